from __future__ import annotations

import hashlib

from careledger.bench.bundles import VISITS, history
from careledger.fhir import ReadOptions, read_file


def test_a_history_is_valid_fhir_in_the_mix_of_synthea() -> None:
    name, data = history(7)
    reading = read_file(name, [data], options=ReadOptions())
    counts = reading.report.counts
    assert reading.report.rows == []
    assert counts.kept == counts.distinct == counts.entries
    assert 9 <= counts.kept / VISITS <= 12
    assert counts.by_compartment["results"] > counts.kept * 0.4
    assert {"about", "bills", "conditions", "medicines", "procedures", "vaccinations", "visits"} <= set(
        counts.by_compartment
    )
    assert 2_000 < len(data) / counts.kept < 4_500


def test_the_same_number_gives_the_same_bytes_and_another_one_others() -> None:
    assert history(3) == history(3)
    assert history(3)[1] != history(4)[1]
    digest = hashlib.sha256(history(0, visits=2)[1]).hexdigest()
    assert digest == "ad7ba927ae46516170b6b4919a3cb2e5915457544b69e4a6de69ecc4dcc015fe", (
        "figures of different data can't be compared: say so in docs/results.md"
    )
