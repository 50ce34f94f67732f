"""A node's folder: what it is, its secrets, and the network it belongs to.

node.json       token, member, address it listens on, URL others reach it by
secrets.json    seeds of its four keys, mode 0600: whoever has them can sign as the node, but read no record
genesis.json    the network, once it was founded or joined
log.vkey        the key of its log, for anybody's verifier
log/            the published log (C2SP tiles)      store/      main.db, keys.db
directory/      its replica of the directory        witness.db  what it cosigned for others
node.lock       held by the process that serves from this folder
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from careledger.directory import ConsensusPart, NodePart, log_origin
from careledger.directory.engines.cometbft import EngineKeys, peer_id
from careledger.errors import MalformedError, NotFoundError
from careledger.identity import NewIdentity, new_software
from careledger.private_files import write_private
from careledger.seal import SealingKey, SigningKey, b64, keyid, unb64
from careledger.tlog import Cosigner, Ed25519SigningKey, Signer

__all__ = ["NodeFolder", "NodeSecrets", "NodeSettings", "create_node"]


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator may read and change: `url` is what the directory says, `host` and `port` what it listens on."""

    token: str
    url: str
    host: str = "127.0.0.1"
    port: int
    sequence: int = 0
    log_level: str = "info"
    witnesses: list[str] = []
    """URL and vkey (separated by a space) of public C2SP witnesses outside the network."""
    consensus: str = ""
    """host:port that CometBFT listens on for its peers; empty where the node has no consensus key."""


class NodeSecrets(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seeds in base64url: identity, sealing, log and witness keys are separate (DESIGN 5.1). `root` rotates them.

    `consensus` signs CometBFT's votes and `transport` is its peer-to-peer key; empty where the node has none.
    """

    identity: str
    sealing: str
    log: str
    witness: str
    root: str
    consensus: str = ""
    transport: str = ""
    former_sealing: dict[str, str] = {}
    """keyid -> seed of sealing keys that kept release locks were sealed to."""


def create_node(
    folder: Path, *, url: str, host: str, port: int, rand: Callable[[int], bytes], consensus: str = ""
) -> NodePart:
    """Draw a node's keys and write its folder; returns the public part for the founding.

    `consensus` is the host:port at which others reach its CometBFT, and at which it listens; empty: it is no validator.
    Raises MalformedError `node-exists`: a folder is never written over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "node.json").exists():
        raise MalformedError("node-exists", f"{folder} holds a node already; choose another folder")
    identity: NewIdentity = new_software(rand=rand)
    device = identity.secrets.device
    secrets = NodeSecrets(
        identity=b64(device.sign),
        sealing=b64(device.seal),
        log=b64(rand(32)),
        witness=b64(rand(32)),
        root=b64(identity.secrets.root),
        consensus=b64(rand(32)) if consensus else "",
        transport=b64(rand(32)) if consensus else "",
    )
    settings = NodeSettings(token=identity.token, url=url, host=host, port=port, consensus=consensus)
    write_private(folder / "secrets.json", msgspec.json.format(msgspec.json.encode(secrets)))
    part = NodePart(
        inception=identity.envelope,
        url=url,
        log_key=SigningKey(unb64(secrets.log)).public,
        witness_key=SigningKey(unb64(secrets.witness)).public,
        consensus=_consensus_part(secrets, consensus) if consensus else None,
    )
    entry = part.entry()
    public = {"inception": identity.envelope, "url": url, "log_key": entry.log_key, "witness_key": entry.witness_key}
    if entry.consensus is not msgspec.UNSET:
        public["consensus"] = entry.consensus
    (folder / "part.json").write_bytes(msgspec.json.format(msgspec.json.encode(public)))
    (folder / "node.json").write_bytes(msgspec.json.format(msgspec.json.encode(settings)))
    return part


def _consensus_part(secrets: NodeSecrets, address: str) -> ConsensusPart:
    transport = SigningKey(unb64(secrets.transport)).public
    return ConsensusPart(SigningKey(unb64(secrets.consensus)).public, f"{peer_id(transport)}@{address}")


class NodeFolder:
    """An existing node's folder. Raises NotFoundError `no-node`, MalformedError `bad-settings`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.settings = msgspec.json.decode((path / "node.json").read_bytes(), type=NodeSettings)
            self.secrets = msgspec.json.decode((path / "secrets.json").read_bytes(), type=NodeSecrets)
        except FileNotFoundError as missing:
            raise NotFoundError(
                "no-node", f"{path} holds no node ({Path(missing.filename).name} is missing); run careledger node init"
            ) from None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise MalformedError("bad-settings", f"node.json or secrets.json in {path} does not parse") from None

    @property
    def genesis(self) -> bytes:
        """The network's genesis. Raises NotFoundError `no-network`."""
        try:
            return (self.path / "genesis.json").read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                "no-network", f"{self.path} belongs to no network yet: put the founders' genesis.json there"
            ) from None

    def join(self, genesis: bytes, *, network: str) -> None:
        """Write genesis and log key: the node then belongs to that network."""
        (self.path / "genesis.json").write_bytes(genesis)
        vkey = self.log_signer(network).vkey
        (self.path / "log.vkey").write_text(vkey + "\n", encoding="ascii")

    @property
    def signing_key(self) -> SigningKey:
        return SigningKey(unb64(self.secrets.identity, size=32))

    def engine_keys(self) -> EngineKeys:
        """CometBFT's two seeds. Raises MalformedError `no-consensus-key`."""
        if not (self.secrets.consensus and self.secrets.transport and self.settings.consensus):
            raise MalformedError(
                "no-consensus-key", f"the node in {self.path} has no consensus key: make one with --consensus"
            )
        return EngineKeys(unb64(self.secrets.consensus, size=32), unb64(self.secrets.transport, size=32))

    def sealing_keys(self) -> dict[str, SealingKey]:
        """The sealing keys by keyid, the current one last."""
        keys = {key_id: SealingKey(unb64(seed, size=32)) for key_id, seed in self.secrets.former_sealing.items()}
        keys[keyid(self.settings.token, self.settings.sequence)] = SealingKey(unb64(self.secrets.sealing, size=32))
        return keys

    def log_signer(self, network: str) -> Signer:
        """Signs checkpoints under the log's origin."""
        return Signer(log_origin(network, self.settings.token), Ed25519SigningKey(unb64(self.secrets.log, size=32)))

    def cosigner(self, network: str) -> Cosigner:
        """Signs cosignatures for the other members' logs."""
        return Cosigner(
            log_origin(network, self.settings.token), Ed25519SigningKey(unb64(self.secrets.witness, size=32))
        )
