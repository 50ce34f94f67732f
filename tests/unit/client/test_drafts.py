"""Batches: nothing that is kept is sent again, what changed replaces, order is kept."""

from __future__ import annotations

from careledger.client.drafts import KeptIndex, batches, with_replaced
from careledger.fhir import RecordDraft

A, B, C, T = (f"urn:uuid:{name}" for name in "abct")


def draft(*resources: tuple[str, bytes], travelling: int = 0, compartment: str = "results") -> RecordDraft:
    count = len(resources)
    return RecordDraft(
        compartment=compartment,
        resources=list(resources),
        travelling=list(range(count - travelling, count)),
        header={"travelling": list(range(count - travelling, count))},
    )


def test_kept_resources_are_left_out_and_travelling_ones_stay() -> None:
    index = KeptIndex()
    index.add(bytes(16), [(A, b"1"), (T, b"t")], travelling=1)
    ((batch,), already) = batches([draft((A, b"1"), (B, b"2"), (T, b"t"), travelling=1)], index)
    assert batch.drafts[0].resources == [(B, b"2"), (T, b"t")]
    assert batch.drafts[0].travelling == [1]
    assert batch.drafts[0].header["travelling"] == [1]
    assert already == 2


def test_nothing_of_its_own_left_means_nothing_to_send() -> None:
    index = KeptIndex()
    index.add(bytes(16), [(A, b"1")], travelling=0)
    assert batches([draft((A, b"1"), (T, b"t"), travelling=1)], index)[0] == []


def test_changed_bytes_replace_the_record_that_had_them() -> None:
    index = KeptIndex()
    index.add(b"1" * 16, [(A, b"old"), (T, b"t")], travelling=1)
    ((batch,), _) = batches([draft((A, b"new")), draft((B, b"b"), (T, b"t2"), travelling=1)], index)
    assert with_replaced(batch, index).replaces == [b"1" * 16, None], "a travelling copy replaces nothing"


def test_two_versions_in_one_file_go_one_after_the_other() -> None:
    made, _ = batches([draft((A, b"v1")), draft((B, b"b")), draft((A, b"v2")), draft((C, b"c"))], KeptIndex())
    assert [len(batch.drafts) for batch in made] == [2, 2]
    assert [batch.waits for batch in made] == [False, True]
    index = KeptIndex()
    index.add(b"9" * 16, made[0].drafts[0].resources, travelling=0)
    assert with_replaced(made[1], index).replaces == [b"9" * 16, None]


def test_batches_are_bounded_in_records_and_bytes() -> None:
    many = [draft((f"urn:uuid:{n}", b"x")) for n in range(401)]
    assert [len(batch.drafts) for batch in batches(many, KeptIndex())[0]] == [200, 200, 1]
    large = [draft((f"urn:uuid:{n}", bytes(3_000_000))) for n in range(3)]
    assert [len(batch.drafts) for batch in batches(large, KeptIndex())[0]] == [1, 1, 1]


def test_warnings_become_lines_and_empty_fields_go() -> None:
    warned = RecordDraft(
        compartment="results",
        resources=[(A, b"1")],
        travelling=[],
        header={
            "source": "",
            "labels": [],
            "import": "x",
            "warnings": [{"resource": 0, "code": "bad-code", "path": "Observation.status", "severity": "warning"}],
        },
    )
    ((batch,), _) = batches([warned], KeptIndex())
    (plan,) = batch.plans({"results": "00" * 16}, contributors=[])
    assert plan.header == {
        "import": "x",
        "warnings": ["warning bad-code in resource 0 Observation.status"],
        "contributors": [],
    }
