"""Who created what: exact sums, nothing twice, no names."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careledger.accounts import Account, Content, Opening, account, content_of
from careledger.errors import MalformedError
from careledger.records import Contributor, Header, Manifest, OpenedRecord, Plaintext, Resource


def manifest(number: int, author: str = "cl1author#3") -> Manifest:
    return Manifest(
        v=1,
        network="00" * 32,
        record=f"{number:032x}",
        subject="cl1subject",
        subject_seq=1,
        author=author,
        submission="00" * 16,
        index=number,
        compartment="00" * 16,
        epoch=1,
        recorded=0,
        ciphertext_hash="00" * 32,
        ciphertext_length=1,
        content_root="00" * 32,
        shares=[],
    )


def opening(number: int, request: str) -> Opening:
    return Opening(request=request, record=f"{number:032x}", reader="cl1reader", purpose="TREAT")


def test_a_record_that_names_nobody_is_its_authors() -> None:
    contents = {f"{1:032x}": Content(resources=4, parts=[])}
    assert account([manifest(1), manifest(2)], contents, []) == {
        "cl1author": Account(records=2, resources=4, parts=2000)
    }


def test_contributors_share_parts_and_each_took_part_in_all_resources() -> None:
    contents = {f"{1:032x}": Content(resources=3, parts=[("cl1a", 700), ("cl1b", 200), ("cl1a", 100)])}
    assert account([manifest(1)], contents, [opening(1, "r1"), opening(1, "r2")]) == {
        "cl1a": Account(records=1, resources=3, parts=800, opens=2),
        "cl1b": Account(records=1, resources=3, parts=200, opens=2),
    }


def test_what_several_custodians_tell_counts_once() -> None:
    twice = [opening(1, "r1"), opening(1, "r1"), opening(2, "r1"), opening(9, "r1")]
    assert account([manifest(1), manifest(1), manifest(2)], {}, twice) == {
        "cl1author": Account(records=2, parts=2000, opens=2)
    }


@pytest.mark.parametrize("parts", [[("cl1a", 999)], [("cl1a", 1001)], [("cl1a", 1500), ("cl1b", -500)]])
def test_parts_that_are_not_a_whole_are_refused(parts: list[tuple[str, int]]) -> None:
    with pytest.raises(MalformedError) as refused:
        account([manifest(1)], {f"{1:032x}": Content(resources=1, parts=parts)}, [])
    assert refused.value.code == "bad-parts"


def test_an_opened_record_tells_its_own_resources_and_hides_names() -> None:
    header = Header(
        v=1,
        salt="A" * 22,
        travelling=[1],
        contributors=[Contributor(token="cl1a", parts=600), Contributor(name="Dr Jane Doe", parts=400)],
    )
    resources = [Resource(bytes(16), "", b"{}"), Resource(bytes(16), "", b"{}")]
    opened = OpenedRecord(record=bytes(16), manifest=manifest(1), header=header, plaintext=Plaintext(b"", resources))
    content = content_of(opened)
    assert content.resources == 1
    assert [share for _, share in content.parts] == [600, 400]
    assert content.parts[0][0] == "cl1a"
    assert content.parts[1][0].startswith("name:")
    assert "Doe" not in content.parts[1][0]
    bare = msgspec.structs.replace(opened, header=Header(v=1, salt="A" * 22))
    assert content_of(bare) == Content(resources=2, parts=[])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1000), max_size=4), max_size=12))
def test_parts_always_sum_to_a_thousand_a_record(cuts: list[list[int]]) -> None:
    contents = {}
    for number, places in enumerate(cuts):
        edges = [0, *sorted(places), 1000]
        parts = [(f"cl1{at}", high - low) for at, (low, high) in enumerate(pairwise(edges))]
        contents[f"{number:032x}"] = Content(resources=number, parts=parts)
    totals = account([manifest(number) for number in range(len(cuts))], contents, [])
    assert sum(one.parts for one in totals.values()) == 1000 * len(cuts)
    assert list(totals) == sorted(totals)
