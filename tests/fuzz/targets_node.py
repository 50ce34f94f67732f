"""What of a node and of the command line reads bytes from outside: bodies of every route, answers of peers, files.

The node is a real custodian with a patient, records and a clinician; its clock stands still, so that the seeds stay
fresh. What is accepted is done, and may be repeated.
"""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import sys
import tempfile
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from careledger.access import SyncAnswer, SyncItem, encode_access_message
from careledger.cli.organisations import MemberFile, NodePartFile, _parsed
from careledger.cli.scan import Scanner, strings_of
from careledger.client import decode_staff_pass, encode_staff_pass, network_file, parse_network_file
from careledger.client.exchange import decoded, refusal
from careledger.client.keys import KeyFolder
from careledger.client.organisation import StaffPass
from careledger.consent import encode_event_message
from careledger.custody import Witness
from careledger.directory import MemberPart, founding
from careledger.directory.engines.embedded import Follower, Sequencer
from careledger.errors import MalformedError
from careledger.identity import device_secrets
from careledger.node import NodeFolder, create_node
from careledger.node.answers import read_body
from careledger.node.api import Api
from careledger.node.directing import Blocks, parse_transactions
from careledger.node.settings import NodeSettings
from careledger.node.standing import Standing
from careledger.records import encode_submission
from careledger.seal import SigningKey, encode
from careledger.tlog import format_add_checkpoint
from careledger.transport import Answer, Transport


def _custody() -> Any:
    """The town of tests/unit/custody: a directory, people, and custodians without HTTP."""
    path = Path(__file__).parent.parent / "unit" / "custody" / "conftest.py"
    spec = importlib.util.spec_from_file_location("careledger_fuzz_town", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PLACE = Path(tempfile.mkdtemp(prefix="careledger-fuzz-"))
TOWN_MODULE = _custody()
TOWN = TOWN_MODULE.Town(PLACE / "town", requests_per_hour=1_000_000_000, inbox_quota=1_000_000_000)
CASE = TOWN_MODULE.Case(TOWN)
RECORDS = CASE.treated()
KEEPER = CASE.keeper
PEER = TOWN.keeper(1)
STANDING = Standing(KEEPER.token, TOWN.directory, now_ms=TOWN.clock)
STANDING.rollback = "checked"
STANDING.custodian = KEEPER.custodian
API = Api(
    KEEPER.custodian,
    STANDING,
    release=KEEPER.release,
    acceptance=KEEPER.acceptance,
    documents=KEEPER.documents,
    events=KEEPER.events,
    reading=KEEPER.reading,
    exchange=KEEPER.exchange,
    witness=Witness(PLACE / "witness.db", signer=KEEPER.cosigner, now_s=lambda: TOWN.clock() // 1000),
)
_encode = msgspec.msgpack.encode


def _run(work: Awaitable[Any]) -> Any:
    KEEPER.custodian._nonces.clear()
    return TOWN.run(work)


def access(data: bytes) -> None:
    assert _run(API.access(data)).status in (200, 403)


def submission(data: bytes) -> None:
    _run(API.submission(data))


def consent(data: bytes) -> None:
    _run(API.consent(data))


def document(data: bytes) -> None:
    _run(API.document(data))


def document_of(data: bytes) -> None:
    _run(API.document_of(data.decode("utf-8", "surrogateescape")))


def consent_read(data: bytes) -> None:
    _run(API.consent_read(data))


def audit(data: bytes) -> None:
    if KEEPER.custodian.published[0] < KEEPER.size:
        KEEPER.publish()
    _run(API.audit(data))


def sync(data: bytes) -> None:
    _run(API.sync(data))


def add_checkpoint(data: bytes) -> None:
    _run(API.add_checkpoint(data))


def log_file(data: bytes) -> None:
    _run(API.log_file(data.decode("utf-8", "surrogateescape")))


def transactions(data: bytes) -> None:
    for envelope in parse_transactions(data):
        assert parse_transactions(encode(envelope)) == [envelope]


def body(data: bytes) -> None:
    """A body in parts, as an HTTP server hands it on: the first byte says how long they are."""
    size = 1 + data[0] if data else 1
    parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    messages = iter(parts)

    async def receive() -> dict[str, Any]:
        part = next(messages, None)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": part is not parts[-1] or data[-1:] == b"\x00"}

    async def main() -> None:
        limit = 64
        read = await read_body({"headers": [(b"content-length", data[:3])]}, receive, size_max=limit)
        assert len(read) <= limit

    _run(main())


def peers_answer(data: bytes) -> None:
    """What a peer hands out: everything that doesn't prove itself is refused by name, whatever it is."""
    try:
        answer = msgspec.msgpack.decode(data, type=SyncAnswer)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError("not-msgpack", "no answer") from None
    PEER.exchange.missing(answer)
    refused = _run(PEER.exchange.take(KEEPER.token, answer))
    assert len(refused) <= len(answer.items)


def _item(kind: str) -> Callable[[bytes], None]:
    def take(data: bytes) -> None:
        answer = SyncAnswer([SyncItem(0, kind, b"", data)], 1, 1)
        if _run(PEER.exchange.take(KEEPER.token, answer)):
            raise MalformedError("refused", "the item was refused")

    return take


class _Blocks:
    """A follower, and the blocks that a real sequencer has for it."""

    def __init__(self) -> None:
        seeds = (TOWN.log_seeds[0], TOWN.witness_seeds[0], TOWN.witness_seeds[1])
        log_key, witness, other = map(SigningKey, seeds)
        node = TOWN.software[0].token
        (PLACE / "blocks").mkdir()
        sequencer = Sequencer(
            PLACE / "blocks" / "sequencer.db",
            genesis=TOWN.genesis,
            node=node,
            log_key=log_key,
            witness=witness,
            now_ms=TOWN.clock(),
        )
        sequencer.submit([], now_ms=TOWN.clock())
        sequencer.heartbeat(now_ms=TOWN.clock() + 100_000)
        found = sequencer.blocks_after(0)
        assert found is not None
        self.seed = _encode(Blocks(*found))
        sequencer.close()
        self.follower = Follower(
            PLACE / "blocks" / "follower.db", genesis=TOWN.genesis, node=TOWN.software[1].token, witness=other
        )


BLOCKS = _Blocks()


def blocks(data: bytes) -> None:
    """What a sequencer answers a follower with; a good block may come again."""
    try:
        found = msgspec.msgpack.decode(data, type=Blocks)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise MalformedError("not-msgpack", "no blocks") from None
    if BLOCKS.follower.height:
        return
    BLOCKS.follower.accept(found.blocks, found.checkpoint, now_ms=TOWN.clock() + 100_000)


def node_settings(data: bytes) -> None:
    place = PLACE / "settings"
    place.mkdir(exist_ok=True)
    (place / "node.json").write_bytes(data)
    (place / "secrets.json").write_bytes(SECRETS)
    folder = NodeFolder(place)
    assert msgspec.json.decode(msgspec.json.encode(folder.settings), type=NodeSettings) == folder.settings


def node_secrets(data: bytes) -> None:
    place = PLACE / "secrets"
    place.mkdir(exist_ok=True)
    (place / "node.json").write_bytes(SETTINGS)
    (place / "secrets.json").write_bytes(data)
    folder = NodeFolder(place)
    assert folder.signing_key.public
    assert folder.sealing_keys()
    folder.log_signer(TOWN.network)
    folder.cosigner(TOWN.network)


def node_part(data: bytes) -> None:
    part = _parsed(data, NodePartFile, "node's part").part()
    founding([MemberPart(TOWN.organisations[0].inception, [part])], time_ms=0, nonce=bytes(16))


def member_part(data: bytes) -> None:
    member = _parsed(data, MemberFile, "member's part")
    parts = [one.part() for one in member.nodes]
    founding([MemberPart(member.inception, parts, member.roles)], time_ms=0, nonce=bytes(16))


def clients_network_file(data: bytes) -> None:
    file, genesis = parse_network_file(data)
    assert network_file(genesis, file.urls) == data


def staff_pass(data: bytes) -> None:
    assert decode_staff_pass(encode_staff_pass(decode_staff_pass(data))) == decode_staff_pass(data)


def nodes_refusal(data: bytes) -> None:
    """What a node that refuses may say: one printable line comes of it."""
    status = 400 + data[0] if data else 500
    problem = refusal(Answer(status, data[1:], {}), now_ms=TOWN.clock())
    assert problem.message.isprintable()
    assert problem.message
    if problem.code == "garbage-answer":
        raise problem


def nodes_answer(data: bytes) -> None:
    for kind in (SyncAnswer, Blocks, list[bytes]):
        try:
            decoded(Answer(200, data, {}), kind, now_ms=TOWN.clock)
        except MalformedError:
            continue
        return
    raise MalformedError("garbage", "nothing of that kind")


class _NoWriter:
    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


def http_answer(data: bytes) -> None:
    """The raw bytes that whoever answers at a node's address may send."""

    async def main() -> None:
        transport = Transport(timeout_s=1.0)

        async def connect(url: str) -> Any:
            from careledger.transport import _Connection

            reader = asyncio.StreamReader(limit=1 << 20)
            reader.feed_data(data)
            reader.feed_eof()
            return _Connection(reader, _NoWriter())  # type: ignore[arg-type]

        transport._connect = connect  # type: ignore[method-assign]
        answer = await transport.get("http://node.example", "/")
        assert len(answer.body) <= len(data)

    _run(main())


def key_folder(data: bytes) -> None:
    """Both public files of a key folder, parted by a zero byte, up to the passphrase."""
    identity, _, box = data.partition(b"\x00")
    place = PLACE / "keys"
    place.mkdir(exist_ok=True)
    (place / "identity.json").write_bytes(identity)
    (place / "box.json").write_bytes(box)
    KeyFolder._read(place)


def scan(data: bytes) -> None:
    """A file of a node, looked through for strings: those that were planted are found, whatever stands around them."""
    assert SCANNER.search_deep(data + PLANTED.encode() + data) == {0}
    strings_of(data)


def _settings() -> tuple[bytes, bytes, bytes]:
    place = PLACE / "node"
    create_node(place, url="https://node.example", host="127.0.0.1", port=8443, rand=TOWN.rand)
    return tuple((place / name).read_bytes() for name in ("node.json", "secrets.json", "part.json"))  # type: ignore[return-value]


def _key_folder() -> bytes:
    person = CASE.clinician
    place = PLACE / "folder"
    KeyFolder.create(
        place,
        network=TOWN.network,
        token=person.token,
        kind="person",
        device=device_secrets(sequence=0, rand=TOWN.rand),
        root=person.root,
        passphrase="x",
        rand=TOWN.rand,
    )
    return (place / "identity.json").read_bytes() + b"\x00" + (place / "box.json").read_bytes()


def _checkpoint() -> bytes:
    size, root = PEER.files.write()
    return format_add_checkpoint(0, [], PEER.custodian.sign(size, root))


def _sync_seeds() -> list[bytes]:
    node = TOWN.node_signer(1)
    named = PEER.exchange.ask(KEEPER.token, since=0, signer=node)
    wanted = PEER.exchange.ask(KEEPER.token, since=0, signer=node, subject=CASE.subject.token, wanted=[0, 1, 3])
    return [_encode(named), _encode(wanted)]


PLANTED = "Planted Name, 12 Long Street"
SCANNER = Scanner([PLANTED])
SETTINGS, SECRETS, PART = _settings()
MEMBER = msgspec.json.encode(
    {
        "inception": TOWN.organisations[0].inception,
        "nodes": [msgspec.json.decode(PART)],
        "roles": ["licensor", "provider"],
    }
)
SUBJECT = CASE.subject
READS = {"for_": CASE.clinic, "affiliation": CASE.affiliation}
EVENT = SUBJECT.events[0]
_SUBMISSION = encode_submission(CASE.seal(("results", "visits")))
_REFUSAL = b"\x03" + encode({"code": "no-grant", "message": "no", "details": {"x": 1}, "time": TOWN.clock()})
_HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Type: text/plain\r\n\r\nbody"

TARGETS: dict[str, Callable[[bytes], None]] = {
    "node_access": access,
    "node_submission": submission,
    "node_consent": consent,
    "node_document": document,
    "node_document_of": document_of,
    "node_consent_read": consent_read,
    "node_audit": audit,
    "node_sync": sync,
    "node_add_checkpoint": add_checkpoint,
    "node_log_file": log_file,
    "node_transactions": transactions,
    "node_body": body,
    "node_peers_answer": peers_answer,
    "node_peers_document": _item("document"),
    "node_peers_event": _item("consent"),
    "node_peers_submission": _item("submission"),
    "node_blocks": blocks,
    "node_settings": node_settings,
    "node_secrets": node_secrets,
    "node_part": node_part,
    "cli_member_part": member_part,
    "cli_scan": scan,
    "client_network_file": clients_network_file,
    "client_staff_pass": staff_pass,
    "client_nodes_refusal": nodes_refusal,
    "client_nodes_answer": nodes_answer,
    "client_key_folder": key_folder,
    "transport_http_answer": http_answer,
}
SEEDS: dict[str, list[bytes]] = {
    "node_access": [
        encode_access_message(CASE.ask(RECORDS).message),
        encode_access_message(CASE.ask().message),
        encode_access_message(TOWN.ask(SUBJECT, SUBJECT, RECORDS, basis="owner").message),
    ],
    "node_submission": [_SUBMISSION],
    "node_consent": [_encode(SUBJECT.events), _encode([EVENT])],
    "node_document": [_encode(SUBJECT.message)],
    "node_document_of": [SUBJECT.token.encode()],
    "node_consent_read": [
        _encode(TOWN.read_consent(SUBJECT, SUBJECT, "chain")),
        _encode(TOWN.read_consent(CASE.clinician, SUBJECT, "grants", **READS)),
        _encode(TOWN.read_consent(CASE.clinician, SUBJECT, "keys", **READS)),
    ],
    "node_audit": [_encode(TOWN.read_audit(SUBJECT, SUBJECT))],
    "node_sync": _sync_seeds(),
    "node_add_checkpoint": [_checkpoint()],
    "node_log_file": [b"checkpoint", b"tile/0/000.p/4", b"tile/entries/000.p/4", b"%74ile/0/x001/000"],
    "node_transactions": [
        encode(CASE.clinician.inception),
        encode([msgspec.to_builtins(CASE.clinician.inception), msgspec.to_builtins(SUBJECT.inception)]),
    ],
    "node_body": [b"\x0412 " + b"x" * 20, b"007"],
    "node_peers_answer": [
        _encode(
            SyncAnswer(
                [
                    SyncItem(0, "document", SUBJECT.salt, _encode(SUBJECT.message)),
                    SyncItem(1, "consent", bytes(32), encode_event_message(EVENT)),
                    SyncItem(2, "submission", b"cl1x/00", _SUBMISSION),
                ],
                3,
                3,
            )
        )
    ],
    "node_peers_document": [_encode(SUBJECT.message)],
    "node_peers_event": [encode_event_message(EVENT)],
    "node_peers_submission": [_SUBMISSION],
    "node_blocks": [BLOCKS.seed],
    "node_settings": [SETTINGS],
    "node_secrets": [SECRETS],
    "node_part": [PART],
    "cli_member_part": [MEMBER],
    "cli_scan": [b'{"name": "Planted"}', zlib.compress(b"x" * 40), gzip.compress(b"{}", mtime=0)],
    "client_network_file": [network_file(TOWN.genesis, {TOWN.software[0].token: "http://127.0.0.1:1"})],
    "client_staff_pass": [
        encode_staff_pass(StaffPass(affiliation=CASE.affiliation, to=CASE.clinician.keyid, sealed=bytes(100)))
    ],
    "client_nodes_refusal": [_REFUSAL],
    "client_nodes_answer": [BLOCKS.seed, _encode(SyncAnswer([], 0, 0))],
    "client_key_folder": [_key_folder()],
    "transport_http_answer": [_HTTP, b"HTTP/1.1 204 No Content\r\n\r\n"],
}

# A peer gets what it may keep of the items above, so that each of them alone can be accepted.
peers_answer(SEEDS["node_peers_answer"][0])
PEER.tell(SUBJECT, *SUBJECT.events)
