"""A log's files: whatever is changed in them is noticed, and the entry it touches is named."""

import random

import pytest

from careledger.access import leaf_of_commitment
from careledger.errors import Error, MalformedError, NotFoundError, UnavailableError, VerificationError
from careledger.tlog import (
    CHECKPOINT_PATH,
    Checkpoint,
    Ed25519SigningKey,
    Signer,
    Verifier,
    cosign,
    sign_checkpoint,
    tail_of_entries,
)
from careledger.tlog.cosignature import Cosigner
from careledger.verify import index_of, verify_checkpoint, verify_log

SIGNER = Signer("0123456789abcdef/log", Ed25519SigningKey(b"l" * 32))
KINDS = ("keep", "access", "erase", "system")


def fetcher(files):
    def fetch(path):
        if path not in files:
            raise NotFoundError("not-found", f"there is no {path}")
        return files[path]

    return fetch


def build(size, *, entries=None):
    entries = entries or [leaf_of_commitment(KINDS[at % 4], at.to_bytes(32)) for at in range(size)]
    tail, files = tail_of_entries(entries)
    checkpoint = Checkpoint(SIGNER.name, tail.size, tail.root())
    return {**files, CHECKPOINT_PATH: sign_checkpoint(checkpoint, signer=SIGNER)}


def check(files, **more):
    return verify_log(fetcher(files), verifier=SIGNER.verifier, **more)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 700])
def test_an_honest_log_of_any_size_is_verified_and_counted(size):
    report = check(build(size))
    assert report.size == size
    assert sum(report.kinds.values()) == size
    assert report.withheld == size
    assert report.vouched == 0


def test_progress_is_told_up_to_the_end():
    told = []
    check(build(600), on_progress=lambda done, size: told.append((done, size)))
    assert told == [(256, 600), (512, 600), (600, 600)]


def test_every_sampled_byte_of_every_file_matters_and_bundles_name_the_entry():
    """700 entries: two full bundles, a partial one, tiles of two levels."""
    files = build(700)
    rng = random.Random(5)
    for path, data in files.items():
        places = range(len(data)) if len(data) < 400 else sorted(rng.sample(range(len(data)), 60))
        for at in places:
            changed = bytearray(data)
            changed[at] ^= 1 << rng.randrange(8)
            with pytest.raises(Error) as caught:
                check({**files, path: bytes(changed)})
            index = index_of(caught.value)
            if path.startswith("tile/entries/"):
                first = 256 * int(path.removeprefix("tile/entries/")[:3])
                expected = first + _entry_at(data, at)
                assert index == expected, (path, at)
            elif path.startswith("tile/0/"):
                assert index == 256 * int(path.removeprefix("tile/0/")[:3]) + at // 32
            elif path.startswith("tile/"):
                assert index == 256 * (at // 32)
            else:
                assert path == CHECKPOINT_PATH
                assert index is None or isinstance(caught.value, VerificationError)


def _entry_at(bundle, at):
    position, start = 0, 0
    while True:
        start += 2 + int.from_bytes(bundle[start : start + 2])
        if at < start:
            return position
        position += 1


def test_every_byte_of_a_cosigned_checkpoint_matters_when_all_cosignatures_are_needed():
    files = build(3)
    witnesses = {f"member-{at}": Cosigner(f"w{at}", Ed25519SigningKey(bytes([at]) * 32)) for at in range(2)}
    note = files[CHECKPOINT_PATH]
    text = note[: note.index(b"\n\n") + 1]
    files[CHECKPOINT_PATH] = note + b"".join(cosign(text, signer=one, now_s=7) for one in witnesses.values())
    known = {name: [one.verifier] for name, one in witnesses.items()}
    report = check(files, witnesses=known, cosignatures_needed=2)
    assert report.cosigned == {"member-0": 7, "member-1": 7}
    assert report.vouched == 3
    for at in range(len(files[CHECKPOINT_PATH])):
        changed = bytearray(files[CHECKPOINT_PATH])
        changed[at] ^= 1
        with pytest.raises(Error):
            check({**files, CHECKPOINT_PATH: bytes(changed)}, witnesses=known, cosignatures_needed=2)


def test_two_nodes_of_one_member_cosign_once():
    files = build(3)
    two = [Cosigner(f"w{at}", Ed25519SigningKey(bytes([at]) * 32)) for at in range(2)]
    note = files[CHECKPOINT_PATH]
    text = note[: note.index(b"\n\n") + 1]
    files[CHECKPOINT_PATH] = note + b"".join(cosign(text, signer=one, now_s=7) for one in two)
    with pytest.raises(UnavailableError) as caught:
        check(files, witnesses={"member": [one.verifier for one in two]}, cosignatures_needed=2)
    assert caught.value.code == "not-enough-cosignatures"
    assert caught.value.details == {"found": 1, "needed": 2}


def test_a_log_signed_by_another_key_is_refused():
    other = Verifier.ed25519(SIGNER.name, Ed25519SigningKey(b"o" * 32).public)
    with pytest.raises(VerificationError) as caught:
        verify_log(fetcher(build(3)), verifier=other)
    assert caught.value.code == "no-signature"


def test_a_checkpoint_alone_can_be_checked():
    files = build(3)
    assert verify_checkpoint(files[CHECKPOINT_PATH], verifier=SIGNER.verifier).size == 3
    with pytest.raises(MalformedError):
        verify_checkpoint(files[CHECKPOINT_PATH][:-3], verifier=SIGNER.verifier)


@pytest.mark.parametrize(
    ("path", "index"),
    [("tile/entries/000", 0), ("tile/entries/002.p/188", 512), ("tile/0/001", 256)],
)
def test_a_missing_file_is_named_with_the_first_entry_that_needs_it(path, index):
    files = build(700)
    del files[path]
    with pytest.raises(VerificationError) as caught:
        check(files)
    assert caught.value.code == "missing-file"
    assert index_of(caught.value) == index


def test_a_missing_checkpoint_is_not_found():
    files = build(3)
    del files[CHECKPOINT_PATH]
    with pytest.raises(NotFoundError):
        check(files)


def test_partial_files_may_be_gone_where_full_ones_are():
    """C2SP tlog-tiles lets a log drop partial tiles once the full one exists; an older checkpoint still verifies."""
    small, large = build(300), build(700)
    files = {**large, CHECKPOINT_PATH: small[CHECKPOINT_PATH], "tile/1/000.p/1": small["tile/1/000.p/1"]}
    assert check(files).size == 300
    changed = bytearray(files["tile/entries/001"])
    changed[2 + 3] ^= 1
    with pytest.raises(VerificationError) as caught:
        check({**files, "tile/entries/001": bytes(changed)})
    assert index_of(caught.value) == 256


def test_swapped_entries_are_noticed_at_the_first_of_them():
    entries = [leaf_of_commitment("keep", at.to_bytes(32)) for at in range(300)]
    files = build(300, entries=entries)
    swapped = [*entries]
    swapped[10], swapped[20] = swapped[20], swapped[10]
    files["tile/entries/000"] = build(300, entries=swapped)["tile/entries/000"]
    with pytest.raises(VerificationError) as caught:
        check(files)
    assert index_of(caught.value) == 10


def test_a_dropped_and_an_added_entry_are_noticed():
    entries = [leaf_of_commitment("keep", at.to_bytes(32)) for at in range(100)]
    files = build(100, entries=entries)
    for wrong in (entries[:-1], [*entries, entries[0]]):
        other = build(len(wrong), entries=wrong)
        path = f"tile/entries/000.p/{len(wrong)}"
        with pytest.raises(Error):
            check({**files, "tile/entries/000.p/100": other[path]})


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"careledger/entry/v1 keep",
        b"careledger/entry/v2 keep " + b"0" * 64,
        b"careledger/entry/v1 other " + b"0" * 64,
        b"careledger/entry/v1 keep " + b"0" * 63 + b"A",
        b"careledger/entry/v1 keep " + b"0" * 63 + b"\n",
        b"careledger/entry/v1 keep  " + b"0" * 63,
        b"careledger/entry/v1 keep " + b"0" * 65,
    ],
)
def test_an_entry_of_another_form_is_named(entry):
    entries = [leaf_of_commitment("keep", at.to_bytes(32)) for at in range(300)]
    entries[270] = entry
    with pytest.raises(VerificationError) as caught:
        check(build(300, entries=entries))
    assert caught.value.code == "bad-leaf"
    assert index_of(caught.value) == 270
