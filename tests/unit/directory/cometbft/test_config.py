"""CometBFT's home folder: exactly the files it needs, safe against crashes and old copies."""

from __future__ import annotations

import base64
import hashlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from careledger.directory import Directory
from careledger.directory.engines.cometbft.chain import APP_VERSION, app_state, chain_id
from careledger.directory.engines.cometbft.config import (
    EngineKeys,
    EngineSettings,
    genesis_document,
    peer_id,
    peers,
    write_home,
)
from careledger.errors import MalformedError, UnavailableError
from careledger.seal import SigningKey, unb64

KEYS = EngineKeys(consensus=bytes(range(32)), transport=bytes(range(1, 33)))
PEER = "0" * 40 + "@node-1.example:26656"


@pytest.fixture
def world(make_world: Callable[..., Any]) -> Any:
    return make_world(validates=True)


def written(home: Path, world: Any, **more: Any) -> None:
    settings = EngineSettings(moniker='a "node"', listen="127.0.0.1:26656", peers=[PEER], **more)
    write_home(
        home,
        settings=settings,
        keys=KEYS,
        genesis_json=genesis_document(world.genesis),
        app_socket=Path("/run/a.sock"),
        rpc_socket=Path("/run/r.sock"),
    )


def test_every_file_is_written_for_the_owner_alone(tmp_path: Path, world: Any) -> None:
    written(tmp_path / "home", world)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        "home/config/config.toml",
        "home/config/genesis.json",
        "home/config/node_key.json",
        "home/config/priv_validator_key.json",
        "home/data/priv_validator_state.json",
    ]
    assert all((tmp_path / file).stat().st_mode & 0o777 == 0o600 for file in files)
    assert (tmp_path / "home" / "config").stat().st_mode & 0o777 == 0o700


def test_the_configuration_says_what_was_measured_to_work(tmp_path: Path, world: Any) -> None:
    written(tmp_path, world)
    config = tomllib.loads((tmp_path / "config" / "config.toml").read_text())
    assert config["proxy_app"] == "unix:///run/a.sock"
    assert config["rpc"] == {"laddr": "unix:///run/r.sock"}
    assert config["moniker"] == 'a "node"'
    assert config["p2p"]["persistent_peers"] == PEER
    assert config["p2p"]["unconditional_peer_ids"] == "0" * 40
    assert config["p2p"]["pex"] is False
    assert config["consensus"]["create_empty_blocks_interval"] == "60s"
    assert config["consensus"]["create_empty_blocks"] is False
    assert config["mempool"] == {"recheck": False, "size": 20000, "cache_size": 40000, "max_tx_bytes": 65536}
    assert config["tx_index"]["indexer"] == "null"


def test_keys_have_cometbfts_form(tmp_path: Path, world: Any) -> None:
    written(tmp_path, world)
    key = json.loads((tmp_path / "config" / "priv_validator_key.json").read_text())
    public = SigningKey(KEYS.consensus).public
    assert key["address"] == hashlib.sha256(public).hexdigest()[:40].upper()
    assert base64.b64decode(key["pub_key"]["value"]) == public
    assert base64.b64decode(key["priv_key"]["value"]) == KEYS.consensus + public
    assert key["priv_key"]["type"] == "tendermint/PrivKeyEd25519"
    node = json.loads((tmp_path / "config" / "node_key.json").read_text())
    assert base64.b64decode(node["priv_key"]["value"])[:32] == KEYS.transport
    assert (
        peer_id(SigningKey(KEYS.transport).public) == hashlib.sha256(SigningKey(KEYS.transport).public).hexdigest()[:40]
    )


def test_the_genesis_names_the_validators_and_carries_ours(world: Any) -> None:
    document = json.loads(genesis_document(world.genesis))
    assert document["chain_id"] == chain_id(world.network) == f"careledger-{world.network[:32]}"
    assert len(document["chain_id"]) <= 50
    assert unb64(document["app_state"]) == world.genesis
    assert json.dumps(document["app_state"]).encode() == app_state(world.genesis)
    assert document["genesis_time"] == "2023-11-14T22:13:20.000Z"
    assert (document["initial_height"], document["app_hash"]) == ("1", "")
    assert [entry["name"] for entry in document["validators"]] == [party.token for party in world.parties]
    assert {entry["power"] for entry in document["validators"]} == {"10"}
    assert document["consensus_params"]["version"] == {"app": str(APP_VERSION)}
    assert genesis_document(world.genesis) == genesis_document(world.genesis)


def test_a_directory_that_has_a_history_goes_on_from_it(world: Any) -> None:
    world.run(world.enrol(world.person()), time_ms=world.now_ms + 1_234)
    document = json.loads(genesis_document(world.genesis, start=world.directory))
    assert (document["initial_height"], document["genesis_time"]) == ("2", "2023-11-14T22:13:21.234Z")


def test_a_network_whose_members_have_no_consensus_keys_is_refused(make_world: Callable[..., Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        genesis_document(make_world().genesis)
    assert caught.value.code == "no-validators"


def test_peers_are_the_other_members_nodes(world: Any) -> None:
    directory = Directory.from_genesis(world.genesis)
    assert peers(directory, but=world.parties[1].node) == [
        party.peer for party in world.parties if party is not world.parties[1]
    ]


def test_what_the_validator_has_signed_is_never_written_over(tmp_path: Path, world: Any) -> None:
    written(tmp_path, world)
    state = tmp_path / "data" / "priv_validator_state.json"
    assert json.loads(state.read_text()) == {"height": "0", "round": 0, "step": 0}
    state.write_text('{"height": "7", "round": 1, "step": 3}')
    written(tmp_path, world, log_level="error")
    assert json.loads(state.read_text())["height"] == "7"
    assert 'log_level = "error"' in (tmp_path / "config" / "config.toml").read_text()


def test_a_key_whose_state_is_lost_is_refused_with_the_way_out(tmp_path: Path, world: Any) -> None:
    written(tmp_path, world)
    (tmp_path / "data" / "priv_validator_state.json").unlink()
    with pytest.raises(UnavailableError, match="new consensus key") as caught:
        written(tmp_path, world)
    assert caught.value.code == "validator-state-lost"
    assert not (tmp_path / "data" / "priv_validator_state.json").exists()


def test_a_crash_between_state_and_key_is_mended(tmp_path: Path, world: Any) -> None:
    written(tmp_path, world)
    (tmp_path / "config" / "priv_validator_key.json").unlink()
    written(tmp_path, world)
    assert (tmp_path / "config" / "priv_validator_key.json").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, world: Any) -> None:
    (tmp_path / "config").write_text("in the way")
    with pytest.raises(UnavailableError, match="can't be written") as caught:
        written(tmp_path, world)
    assert caught.value.code == "home-failed"
