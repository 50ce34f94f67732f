"""A node's folder: secrets that only its owner reads, and one-line refusals of what is missing or broken."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import msgspec
import pytest

from careledger.directory import MemberPart, founding, network_of
from careledger.directory.engines.cometbft import peer_id
from careledger.errors import Error, MalformedError, NotFoundError
from careledger.identity import new_organisation, token_of
from careledger.node import NodeFolder, create_node
from careledger.private_files import write_private
from careledger.seal import SigningKey, b64, unb64
from careledger.tlog import parse_vkey

RAND = random.Random(3).randbytes
NETWORK = "5a" * 32


def made(folder: Path) -> Path:
    create_node(folder, url="https://node.example", host="127.0.0.1", port=8443, rand=RAND)
    return folder


def refused(folder: Path) -> Error:
    with pytest.raises(Error) as refusal:
        NodeFolder(folder)
    assert "\n" not in refusal.value.message
    return refusal.value


@pytest.mark.parametrize(("consensus", "count"), [("", 5), ("node.example:26656", 7)])
def test_a_new_node_has_different_keys_and_its_public_part_none_of_them(
    tmp_path: Path, consensus: str, count: int
) -> None:
    place = tmp_path / "node"
    create_node(place, url="https://node.example", host="127.0.0.1", port=8443, rand=RAND, consensus=consensus)
    secrets = msgspec.to_builtins(NodeFolder(place).secrets)
    seeds = [value for value in secrets.values() if isinstance(value, str) and value]
    assert len(seeds) == len(set(seeds)) == count
    public = (place / "part.json").read_text() + (place / "node.json").read_text()
    assert not any(seed in public for seed in seeds)


def test_a_consensus_key_and_the_peer_that_others_dial(tmp_path: Path) -> None:
    place = tmp_path / "node"
    part = create_node(
        place, url="https://node.example", host="127.0.0.1", port=8443, rand=RAND, consensus="node.example:26656"
    )
    folder = NodeFolder(place)
    keys = folder.engine_keys()
    assert part.consensus is not None
    assert part.consensus.key == SigningKey(keys.consensus).public
    assert part.consensus.peer == f"{peer_id(SigningKey(keys.transport).public)}@node.example:26656"
    assert folder.settings.consensus == "node.example:26656"
    stated = msgspec.json.decode((place / "part.json").read_bytes())["consensus"]
    assert stated == {"key": b64(part.consensus.key), "peer": part.consensus.peer}


def test_a_node_without_a_consensus_key_says_so(tmp_path: Path) -> None:
    with pytest.raises(Error) as refusal:
        NodeFolder(made(tmp_path / "node")).engine_keys()
    assert refusal.value.code == "no-consensus-key"


def test_secrets_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made(tmp_path / "node")
    finally:
        os.umask(before)
    secrets = tmp_path / "node/secrets.json"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600


def test_a_secret_that_was_readable_is_not_after_it_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert [one.name for one in tmp_path.iterdir()] == ["secret"]


def test_a_folder_is_never_written_over(tmp_path: Path) -> None:
    folder = made(tmp_path / "node")
    before = (folder / "secrets.json").read_bytes()
    with pytest.raises(MalformedError) as refusal:
        made(folder)
    assert refusal.value.code == "node-exists"
    assert (folder / "secrets.json").read_bytes() == before


@pytest.mark.parametrize("gone", ["node.json", "secrets.json", None])
def test_what_is_missing_is_named(tmp_path: Path, gone: str | None) -> None:
    folder = tmp_path / "node"
    if gone is not None:
        made(folder)
        (folder / gone).unlink()
    problem = refused(folder)
    assert (type(problem), problem.code) == (NotFoundError, "no-node")
    assert (gone or "node.json") in problem.message


@pytest.mark.parametrize("name", ["node.json", "secrets.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"token": 5}', b"[" * 5000])
def test_what_does_not_parse_is_refused_without_its_content(tmp_path: Path, name: str, content: bytes) -> None:
    folder = made(tmp_path / "node")
    (folder / name).write_bytes(content)
    assert refused(folder).code == "bad-settings"


def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "node")
    settings = msgspec.json.decode((folder / "node.json").read_bytes())
    (folder / "node.json").write_bytes(msgspec.json.encode({**settings, "colour": "red"}))
    assert refused(folder).code == "bad-settings"


def test_a_node_belongs_to_no_network_until_it_joins_one(tmp_path: Path) -> None:
    folder = NodeFolder(made(tmp_path / "node"))
    with pytest.raises(NotFoundError) as refusal:
        assert folder.genesis
    assert refusal.value.code == "no-network"
    part = create_node(tmp_path / "other", url="http://127.0.0.1:1", host="127.0.0.1", port=1, rand=RAND)
    token = token_of(unb64(part.inception.payload))
    organisation = new_organisation(nodes=[token], rand=RAND)
    genesis = founding([MemberPart(organisation.envelope, [part])], time_ms=5, nonce=bytes(16))
    network = network_of(genesis)
    joined = NodeFolder(tmp_path / "other")
    joined.join(genesis, network=network)
    assert joined.genesis == genesis
    assert joined.settings.token == token
    verifier = parse_vkey((tmp_path / "other/log.vkey").read_text().strip())
    assert verifier.name == f"{network[:16]}/{token}"
    assert verifier == joined.log_signer(network).verifier


def test_former_sealing_keys_stay_usable_and_the_newest_comes_last(tmp_path: Path) -> None:
    path = made(tmp_path / "node")
    folder = NodeFolder(path)
    secrets = msgspec.to_builtins(folder.secrets)
    former = f"{folder.settings.token}#0"
    settings = {**msgspec.to_builtins(folder.settings), "sequence": 3}
    (path / "node.json").write_bytes(msgspec.json.encode(settings))
    write_private(path / "secrets.json", msgspec.json.encode({**secrets, "former_sealing": {former: secrets["log"]}}))
    keys = NodeFolder(path).sealing_keys()
    assert list(keys) == [former, f"{folder.settings.token}#3"]
    assert keys[former].seed == unb64(secrets["log"])


def test_a_seed_that_is_none_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "node")
    secrets = msgspec.to_builtins(NodeFolder(path).secrets)
    for wrong in ("", "AAAA", "!" * 43):
        write_private(path / "secrets.json", msgspec.json.encode({**secrets, "identity": wrong}))
        with pytest.raises(MalformedError):
            assert NodeFolder(path).signing_key
