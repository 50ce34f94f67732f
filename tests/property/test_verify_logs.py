"""For any log and any change to it: the verifier agrees with what was built, and names what was changed."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careledger.access import build_entry, leaf, leaf_of_commitment, origin
from careledger.errors import Error, NotFoundError, VerificationError
from careledger.tlog import (
    CHECKPOINT_PATH,
    Checkpoint,
    Ed25519SigningKey,
    Signer,
    TileReader,
    decode_entries,
    encode_entries,
    entries_path,
    sign_checkpoint,
    tail_of_entries,
)
from careledger.verify import first_divergence, index_of, verify_extends, verify_log

NETWORK, NODE = "ab" * 32, "cl1" + "q" * 46
SIGNER = Signer(origin(NETWORK, NODE), Ed25519SigningKey(b"p" * 32))
KINDS = ("keep", "access", "erase", "system")

sizes = st.one_of(st.integers(1, 40), st.sampled_from([255, 256, 257, 511, 512, 513, 600]))


def some_leaf(number, salt=0):
    return leaf_of_commitment(KINDS[number % 4], hashlib.sha256(b"%d %d" % (number, salt)).digest())


def fetcher(files):
    def fetch(path):
        if path not in files:
            raise NotFoundError("not-found", f"there is no {path}")
        return files[path]

    return fetch


def published(leaves):
    tail, files = tail_of_entries(leaves)
    checkpoint = Checkpoint(SIGNER.name, tail.size, tail.root())
    return {**files, CHECKPOINT_PATH: sign_checkpoint(checkpoint, signer=SIGNER)}, checkpoint


def refused(files, **more):
    try:
        verify_log(fetcher(files), verifier=SIGNER.verifier, **more)
    except Error as problem:
        return problem
    raise AssertionError("the change was not noticed")


@settings(max_examples=60)
@given(sizes, st.data())
def test_one_bit_of_one_file_is_always_noticed(size, data):
    files, _ = published([some_leaf(at) for at in range(size)])
    path = data.draw(st.sampled_from(sorted(files)))
    at = data.draw(st.integers(0, len(files[path]) - 1))
    changed = bytearray(files[path])
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    refused({**files, path: bytes(changed)})


@settings(max_examples=60)
@given(sizes, st.data())
def test_one_replaced_entry_is_named(size, data):
    files, _ = published([some_leaf(at) for at in range(size)])
    victim = data.draw(st.integers(0, size - 1))
    bundle = victim // 256
    path = entries_path(bundle, min(256, size - 256 * bundle))
    entries = decode_entries(files[path])
    entries[victim % 256] = some_leaf(victim, salt=1)
    problem = refused({**files, path: encode_entries(entries)})
    assert (problem.code, index_of(problem)) == ("bad-entry", victim)


@settings(max_examples=60)
@given(sizes, st.integers(0, 40), st.sets(st.integers(0, 639), max_size=4))
def test_a_later_log_extends_an_earlier_one_unless_an_entry_before_was_changed(size, more, changed):
    old_files, old = published([some_leaf(at) for at in range(size)])
    new_files, new = published([some_leaf(at, salt=int(at in changed)) for at in range(size + more)])
    before = sorted(at for at in changed if at < size)
    readers = [
        TileReader(fetcher(files), size=at.size, root=at.root) for files, at in ((old_files, old), (new_files, new))
    ]
    assert first_divergence(*readers) == (before[0] if before else None)
    if not before:
        verify_extends(fetcher(new_files), old=old, new=new, old_fetch=fetcher(old_files))
        return
    with pytest.raises(VerificationError) as caught:
        verify_extends(fetcher(new_files), old=old, new=new, old_fetch=fetcher(old_files))
    assert caught.value.code == ("rewritten" if more else "fork")
    assert index_of(caught.value) == before[0]


def body_of(index, kind):
    return build_entry(
        network=NETWORK,
        node=NODE,
        index=index,
        received=1,
        directory_height=0,
        directory_age=0,
        consent_seq=0,
        consent_hash="0" * 64,
        kind=kind,
        decision="accept",
        reason="test",
        counters={},
    )


@settings(max_examples=60)
@given(sizes, st.data())
def test_the_first_of_any_wrong_or_missing_bodies_is_named(size, data):
    kinds = ["access" if at % 3 else "keep" for at in range(size)]
    bodies = [(hashlib.sha256(b"%d" % at).digest(), body_of(at, kinds[at])) for at in range(size)]
    files, _ = published([leaf(kind, salt, body) for kind, (salt, body) in zip(kinds, bodies, strict=True)])

    def source(start, end):
        return found[start:end]

    found = list(bodies)
    report = verify_log(fetcher(files), verifier=SIGNER.verifier, bodies=source)
    assert report.bodies == size
    wrong = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=5)))
    for at in wrong:
        salt, body = bodies[at]
        found[at] = data.draw(
            st.sampled_from([None, (salt, body + b" "), (bytes(32), body), bodies[(at + 1) % size], (b"", body)])
        )
    changed = [at for at in wrong if found[at] != bodies[at]]
    if changed:
        problem = refused(files, bodies=source)
        assert index_of(problem) == changed[0]
        assert problem.code == ("missing-body" if found[changed[0]] is None else "bad-body")
