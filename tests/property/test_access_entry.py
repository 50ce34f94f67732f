"""A body built by splicing is the canonical encoding of its struct, whatever it holds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from careledger import access
from careledger.seal import Envelope, Signature, decode, encode

hex16 = st.binary(min_size=16, max_size=16).map(bytes.hex)
hex32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
tokens = st.text("qpzry9x8gf2tvdw0s3jn54khce6mua7l", min_size=46, max_size=46).map("cl1".__add__)
codes = st.from_regex(r"\A[a-z][a-z0-9-]{0,20}\Z")
counts = st.integers(0, 2**53 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
keys = st.text(st.characters(max_codepoint=127), max_size=10)
values = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
envelopes = st.builds(
    Envelope, payload=texts, payloadType=texts, signatures=st.lists(st.builds(Signature, keyid=texts, sig=texts))
)
objects = st.dictionaries(keys, values, max_size=4)
bodies = st.fixed_dictionaries(
    {
        "network": hex32,
        "node": tokens,
        "index": counts,
        "received": counts,
        "directory_height": counts,
        "directory_age": counts,
        "consent_seq": counts,
        "consent_hash": hex32,
        "kind": st.sampled_from(["keep", "access", "erase", "system"]),
        "decision": codes,
        "reason": codes,
        "counters": st.dictionaries(keys, st.integers(-(2**53) + 1, 2**53 - 1), max_size=4),
    },
    optional={
        "subject": tokens,
        "grant": hex16,
        "client": texts,
        "details": objects,
        "manifest": objects,
        "envelopes": st.lists(envelopes, min_size=1, max_size=3),
    },
)


@given(bodies)
def test_building_equals_encoding(fields: dict[str, Any]) -> None:
    expected = encode(access.EntryBody(**fields))
    spliced = dict(fields)
    if "envelopes" in spliced:
        spliced["envelopes"] = [encode(envelope) for envelope in spliced["envelopes"]]
    if "manifest" in spliced:
        spliced["manifest"] = encode(spliced["manifest"])
    built = access.build_entry(**spliced)
    assert built == expected
    assert access.decode_entry(built) == decode(expected, access.EntryBody)


@given(st.sampled_from(["keep", "access", "erase", "system"]), st.binary(min_size=32, max_size=32), st.binary())
def test_leaves_parse_back(kind: str, salt: bytes, body: bytes) -> None:
    leaf = access.leaf(kind, salt, body)
    assert access.parse_leaf(leaf)[0] == kind
    assert leaf.isascii()
    assert access.leaf(kind, salt, body + b"x") != leaf
