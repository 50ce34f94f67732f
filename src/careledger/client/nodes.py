"""The nodes of a network and what they are asked without anybody's keys: transactions, and proofs of the directory.

It starts from a network file: the genesis, whose hash is the network's name, and where nodes answer. What a node says
about the directory is believed only down from a head that more than two thirds of the members vouched for (`heads`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from careledger.client.asking import Race, SteadyPace, first_answer
from careledger.client.exchange import Wire, decoded, gist, refusal
from careledger.client.heads import DirectoryProof, Head, heads_of
from careledger.directory import log_origin, network_of, parse_genesis
from careledger.directory.values import NodeState
from careledger.errors import Error, MalformedError, NotFoundError, UnavailableError, VerificationError
from careledger.seal import Envelope, Payload, b64, decode, encode, unb64
from careledger.tlog import Verifier
from careledger.transport import Answer

__all__ = ["NetworkFile", "Node", "Nodes", "network_file", "parse_network_file"]

_NETWORK_FILE_MAX: Final = 2 << 20
HEAD_FRESH_MS: Final = 600_000
"""A heartbeat block comes every minute; a head older than ten is believed only while there is no newer (DESIGN 5.6)."""
_PROOF_TRIES: Final = 20
_PROOF_PAUSE_S: Final = 0.1
"""A block is cosigned within a second of being made; until then a proof of its state is not enough."""

T = TypeVar("T")
P = TypeVar("P", bound=Payload)


class NetworkFile(Payload, frozen=True, kw_only=True):
    """What a client is configured with: `genesis` in base64url, `urls` = where nodes answer, where that differs from
    the genesis or the directory. Nothing in it is secret; whoever hands it out chooses the network."""

    v: Literal[1]
    network: str
    genesis: str
    urls: dict[str, str]


def network_file(genesis: bytes, urls: dict[str, str] | None = None) -> bytes:
    """Return the canonical bytes of a network file; `urls` maps node tokens to addresses."""
    return encode(NetworkFile(v=1, network=network_of(genesis), genesis=b64(genesis), urls=dict(urls or {})))


def parse_network_file(data: bytes) -> tuple[NetworkFile, bytes]:
    """Return a network file and its genesis bytes.

    Raises VerificationError `wrong-network` (the genesis is another network's), MalformedError.
    """
    file = decode(data, NetworkFile, size_max=_NETWORK_FILE_MAX)
    genesis = unb64(file.genesis)
    if network_of(genesis) != file.network:
        raise VerificationError(
            "wrong-network",
            f"the network file names network {file.network[:16]}, its genesis is of {network_of(genesis)[:16]}; "
            "ask for the right file",
        )
    return file, genesis


class Node(msgspec.Struct, frozen=True, eq=False):
    """A node: where it answers, whose it is, and the keys its log and its witness sign with."""

    token: str
    url: str
    member: str
    log: Verifier
    witness: Verifier


class _Result(msgspec.Struct):
    code: str
    message: str = ""


class _Results(msgspec.Struct):
    results: list[_Result]
    height: int


class Nodes:
    """The servers of one network, for one event loop."""

    def __init__(
        self,
        genesis: bytes,
        *,
        wire: Wire,
        now_ms: Callable[[], int],
        rand: Callable[[int], bytes],
        urls: dict[str, str] | None = None,
    ) -> None:
        """Raises MalformedError `bad-genesis`."""
        self.id = network_of(genesis)
        self.genesis_bytes = genesis
        self.genesis = parse_genesis(genesis)
        self.wire = wire
        self.now_ms = now_ms
        self.rand = rand
        self._stale_max_ms = int(str(self.genesis.parameters["stale_max_ms"]))
        self._urls = dict(urls or {})
        self.pace = SteadyPace()
        self.nodes: dict[str, Node] = {}
        for member in self.genesis.members:
            for entry in member.nodes:
                self._add_node(entry.token, entry.url, member.token, entry.log_key, entry.witness_key)
        sequencer = self.nodes.get(str(self.genesis.parameters.get("sequencer", "")))
        self.heads = heads_of(
            genesis, sequencer=None if sequencer is None else sequencer.log, witnesses=self._witnesses_by_member
        )

    @property
    def members(self) -> list[str]:
        """The tokens of the members whose nodes are known."""
        return sorted({node.member for node in self.nodes.values()})

    def some_nodes(self) -> list[Node]:
        """All known nodes in a random order: nobody's node is always asked first."""
        nodes = list(self.nodes.values())
        keys = {node.token: self.rand(8) for node in nodes}
        return sorted(nodes, key=lambda node: keys[node.token])

    def witnesses_of(self, node: Node) -> list[Verifier]:
        """The witnesses that count for a node's log: other members' nodes only."""
        return [other.witness for other in self.nodes.values() if other.member != node.member]

    def _witnesses_by_member(self) -> dict[str, list[Verifier]]:
        found: dict[str, list[Verifier]] = {}
        for node in self.nodes.values():
            found.setdefault(node.member, []).append(node.witness)
        return found

    async def node(self, token: str) -> Node:
        """A node by its token, proven from the directory where the genesis doesn't know it.

        Raises NotFoundError `unknown-node`; as `proven`.
        """
        found = self.nodes.get(token)
        if found is None:
            state = await self.proven(NodeState.KIND, token, NodeState)
            if state is None or state.token != token or state.status != "active":
                raise NotFoundError("unknown-node", f"{token} is no active node of this network")
            found = self._add_node(token, state.url, state.member, state.log_key, state.witness_key)
        return found

    def _add_node(self, token: str, url: str, member: str, log_key: str, witness_key: str) -> Node:
        origin = log_origin(self.id, token)
        node = Node(
            token=token,
            url=self._urls.get(token, url).rstrip("/"),
            member=member,
            log=Verifier.ed25519(origin, unb64(log_key, size=32)),
            witness=Verifier.cosignature(origin, unb64(witness_key, size=32)),
        )
        self.nodes[token] = node
        return node

    # Exchanges

    async def post(self, node: Node, path: str, message: object, kind: type[T]) -> T:
        """POST a MessagePack body and return the MessagePack answer; raises the refusal as one of our errors."""
        answer = await self.wire.post(node.url, path, msgspec.msgpack.encode(message))
        return decoded(answer, kind, now_ms=self.now_ms)

    def unpacked(self, answer: Answer, kind: type[T]) -> T:
        """The MessagePack answer of an exchange made elsewhere; raises the refusal as one of our errors."""
        return decoded(answer, kind, now_ms=self.now_ms)

    async def get(self, node: Node, path: str, kind: type[T]) -> T:
        """GET a MessagePack answer."""
        return decoded(await self.wire.get(node.url, path), kind, now_ms=self.now_ms)

    async def get_json(self, node: Node, path: str, kind: type[T]) -> T:
        """GET a JSON answer; raises the refusal as one of our errors."""
        return self._json(await self.wire.get(node.url, path), kind)

    async def first_json(self, path: str, kind: type[T]) -> T:
        """GET a JSON answer from the first node that has one: a node that is behind by a block says it is not there.

        Raises NotFoundError when no node has it and one says so; UnavailableError `directory-unreachable`.
        """

        async def ask(node: Node) -> T:
            return await self.get_json(node, path, kind)

        found, failures = await first_answer(self.some_nodes(), ask, pace=self.pace)
        if found is not None:
            return found
        for missing in failures.values():
            if isinstance(missing, NotFoundError):
                raise missing
        raise UnavailableError("directory-unreachable", f"no node answered about the directory ({gist(failures)})")

    def _json(self, answer: Answer, kind: type[T]) -> T:
        if answer.status != 200:
            raise refusal(answer, now_ms=self.now_ms())
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise MalformedError(
                "garbage-answer", "the node's answer is not what was asked for; report the node"
            ) from None

    # The directory

    async def transact(self, envelopes: Sequence[Envelope]) -> None:
        """Have transactions ordered by the directory; returns once the node that answers has applied them.

        Raises VerificationError with the directory's code for the first one refused (`exists` counts as done: it is
        the same operation sent twice); UnavailableError `directory-unreachable`.
        """
        failures: dict[str, Error] = {}
        body = encode(list(envelopes))
        for node in self.some_nodes():
            try:
                answer = await self.wire.post(node.url, "/v1/directory/transaction", body, content="application/json")
                results = self._json(answer, _Results).results
            except (UnavailableError, MalformedError) as error:
                failures[node.token] = error
                continue
            for result in results:
                if result.code not in ("ok", "exists"):
                    message = " ".join(result.message.split())
                    raise VerificationError(result.code, message or "the directory refused the transaction")
            return
        raise UnavailableError("directory-unreachable", f"no node took the transaction ({gist(failures)}); try again")

    async def directory_proof(self, kind: str, ident: str) -> DirectoryProof:
        """A proof of what the directory has of (kind, id), that it is absent included, once it checks out.

        What one node shows usually suffices; else what several show is put together, so that no single node can keep
        a client from a proof. A head that was made just now may lack cosignatures still: asked again for a while.
        Raises VerificationError; UnavailableError `not-enough-cosignatures`, `directory-unreachable`.
        """
        refused: Error | None = None
        for turn in range(_PROOF_TRIES):
            late = turn >= _PROOF_TRIES // 2
            path = f"/v1/directory/proof/{kind}/{ident}{'?cosigned=1' if late else ''}"
            try:
                return await self._proof_round(
                    path, kind, ident, age_max_ms=self._stale_max_ms if late else HEAD_FRESH_MS
                )
            except UnavailableError as error:
                refused = error
            await asyncio.sleep(_PROOF_PAUSE_S)
        assert refused is not None
        raise refused

    async def _proof_round(self, path: str, kind: str, ident: str, *, age_max_ms: int) -> DirectoryProof:
        first = self.nodes.get(str(self.genesis.parameters["sequencer"]))
        others = [node for node in self.some_nodes() if node is not first]
        refusals: list[Error] = []

        async def ask(node: Node) -> DirectoryProof:
            return await self.get_json(node, path, DirectoryProof)

        nodes = [first, *others] if first is not None else others
        async with Race(nodes, ask, pace=self.pace, at_once=1) as race:
            while await race.more():
                refusals = []
                for proof in self.heads.merged(list(race.answers.values())):
                    try:
                        head, _ = self.checked_proof(proof, kind=kind, ident=ident)
                        self._check_age(head, age_max_ms)
                    except Error as error:
                        refusals.append(error)
                        continue
                    return proof
                if refusals:
                    race.ask_more()
            failures = dict(race.failures)
        for refused in refusals:
            if refused.code == "not-enough-cosignatures":
                raise refused
        failures.update({f"proof {number}": error for number, error in enumerate(refusals, start=1)})
        raise UnavailableError("directory-unreachable", f"no node proved the directory's state ({gist(failures)})")

    def _check_age(self, head: Head, age_max_ms: int) -> None:
        """Refuse a head that nobody has vouched for lately: an old one could hide a rotation or a removal.

        Raises UnavailableError `stale-directory`.
        """
        age = self.now_ms() - head.time_ms
        if age > age_max_ms:
            raise UnavailableError(
                "stale-directory", f"the directory's head is {age // 60_000} minutes old; ask other nodes, or wait"
            )

    def checked_proof(self, shown: DirectoryProof, *, kind: str, ident: str) -> tuple[Head, bytes | None]:
        """The proven head and value (None: absent) of a proof. Raises as Heads.check and StateProof.verify."""
        head = self.heads.check(shown)
        return head, shown.proof.verify(kind=kind, ident=ident, app=head.app_hash)

    async def proven(self, kind: str, ident: str, struct: type[P]) -> P | None:
        """The directory's newest value of (kind, id), proven; None when it is proven that there is none.

        Raises as `directory_proof`.
        """
        _, value = self.checked_proof(await self.directory_proof(kind, ident), kind=kind, ident=ident)
        return None if value is None else decode(value, struct)
