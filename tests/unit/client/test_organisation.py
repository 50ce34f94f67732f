"""Staff passes and reading keys: today's people read for the organisation, yesterday's don't."""

from __future__ import annotations

from typing import Any

import pytest

from careledger.client import Network, decode_staff_pass, encode_staff_pass, open_staff_pass
from careledger.client.enrolment import publish_organisation_document
from careledger.client.reader import Reader
from careledger.errors import Error, NotPermittedError, VerificationError


def test_a_pass_round_trips_and_names_organisation_and_end(lab: Any) -> None:
    keys = lab.run(lab.person())
    organisation = lab.run(lab.organisation(1))
    made = lab.run(organisation.staff_pass(keys.token, role="nurse", hours=8))
    staff = lab.run(open_staff_pass(decode_staff_pass(encode_staff_pass(made)), keys, network=lab.network))
    assert staff.organisation == organisation.keys.token
    assert staff.until - lab.clock.ms <= 8 * 3_600_000


def test_a_pass_opens_for_nobody_else(lab: Any) -> None:
    keys, other = lab.run(lab.person()), lab.run(lab.person())
    organisation = lab.run(lab.organisation(1))
    made = lab.run(organisation.staff_pass(keys.token, role="nurse"))
    with pytest.raises(NotPermittedError) as refused:
        lab.run(open_staff_pass(made, other, network=lab.network))
    assert refused.value.code == "not-affiliated"


def test_a_pass_of_more_than_a_day_is_not_made(lab: Any) -> None:
    organisation = lab.run(lab.organisation(1))
    with pytest.raises(NotPermittedError) as refused:
        lab.run(organisation.staff_pass(lab.run(lab.person()).token, role="nurse", hours=25))
    assert refused.value.code == "too-long"


def test_yesterdays_pass_is_refused_here_and_by_custodians(lab: Any, treated: Any) -> None:
    keys = lab.run(lab.person())
    organisation = lab.run(lab.organisation(1))
    begun = lab.clock.ms - 25 * 3_600_000
    made = lab.run(organisation.staff_pass(keys.token, role="nurse", from_ms=begun))
    with pytest.raises(NotPermittedError) as refused:
        lab.run(open_staff_pass(made, keys, network=lab.network))
    assert refused.value.code == "expired"


@pytest.mark.parametrize("data", [b"", b"\x80", b"x" * 100_000])
def test_what_is_no_pass_is_refused(data: bytes) -> None:
    with pytest.raises(Error) as refused:
        decode_staff_pass(data)
    assert refused.value.code == "bad-staff-pass"


def test_a_new_reading_key_reads_old_and_new_grants(lab: Any, make_treated: Any) -> None:
    treated = make_treated()
    organisation = lab.run(lab.organisation(2))
    keys = lab.run(lab.person())
    categories = ["about", "results", "visits"]
    lab.run(treated.patient.grant(organisation.keys.token, categories=categories, expires_ms=lab.expires()))
    sequence = lab.run(organisation.renew_reading_key())
    document, salt = organisation.state.load("document", tuple[bytes, bytes])
    lab.run(publish_organisation_document(lab.network, organisation.keys.token, document, salt))
    lab.run(treated.patient.rekey(categories))
    staff = lab.run(
        open_staff_pass(lab.run(organisation.staff_pass(keys.token, role="nurse")), keys, network=lab.network)
    )
    assert set(staff.reading) == {0, sequence}
    opened = lab.run(Reader(lab.network, keys, staff=staff).open(treated.subject, treated.records, purpose="TREAT"))
    assert len(opened.records) == len(treated.records)


def test_a_pass_for_another_network_is_refused(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    keys = lab.run(lab.person())
    organisation = lab.run(lab.organisation(1))
    made = lab.run(organisation.staff_pass(keys.token, role="nurse"))
    network: Network = lab.new_network()
    network.id = "00" * 32
    network._identities = lab.network._identities
    with pytest.raises(VerificationError) as refused:
        lab.run(open_staff_pass(made, keys, network=network))
    assert refused.value.code == "wrong-network"
