"""The people and organisations of a network as a client knows them: whose keys are whose, who keeps whose records.

An identity's keys come from its own operations, replayed from the inception that makes its token; that they are its
*newest* keys comes from a proof of the directory's state. Documents are compared with the hash in that state. All of
it is cached, parsed keys too: an identity is looked up again when a signature names a keyid that isn't known yet, after
a transaction about it, or when asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from careledger.access import DocumentMessage
from careledger.client.asking import first_answer
from careledger.client.catching_up import until_caught_up
from careledger.client.exchange import Wire, gist
from careledger.client.heads import DirectoryProof
from careledger.client.nodes import Node, Nodes, parse_network_file
from careledger.errors import Error, NotFoundError, UnavailableError, VerificationError
from careledger.identity import (
    Document,
    IdentityState,
    Rotate,
    apply_parsed,
    check_token,
    faults,
    open_document,
    parse_operation,
    verify_key,
)
from careledger.seal import Envelope, Key, SealingPublicKey, VerifyKey, decode, keyid, parse_keyid, sealing_key

_RECIPIENT_AGE_MS: Final = 60_000
_ORDER_S: Final = 3.0
"""For how long a transaction is put again to nodes that lack what it follows: an honest one has it in a second."""
_AGREE_TRIES: Final = 20
_AGREE_PAUSE_S: Final = 0.1
"""A block is everywhere and cosigned within a second of being made."""

T = TypeVar("T")

__all__ = ["Identity", "Network", "Subject", "identity_of"]

_CACHED_MAX: Final = 100_000
"""Identities, subjects and keys remembered; beyond it the oldest is forgotten."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """An identity as its operations and the directory have it; `keys` by the sequence from which they are in force."""

    token: str
    kind: str
    state: IdentityState
    keys: dict[int, tuple[Key, ...]]
    operations: list[Envelope]

    @property
    def keyid(self) -> str:
        return keyid(self.token, self.state.sequence)

    def keys_at(self, sequence: int) -> tuple[Key, ...]:
        """The key list in force after operation `sequence`; raises NotFoundError `unknown-keys`."""
        since = [number for number in self.keys if number <= sequence <= self.state.sequence]
        if not since or not self.keys[max(since)]:
            raise NotFoundError("unknown-keys", f"{self.token} has no keys at operation {sequence}; look it up again")
        return self.keys[max(since)]

    def verify_keys(self) -> dict[str, VerifyKey]:
        """Every keyid the identity ever had, with its signing key."""
        found: dict[str, VerifyKey] = {}
        keys: tuple[Key, ...] = ()
        for sequence in range(self.state.sequence + 1):
            keys = self.keys.get(sequence, keys)
            if keys:
                found[keyid(self.token, sequence)] = verify_key(keys[0])
        return found

    def managers(self) -> dict[str, int]:
        """Providers that managed the identity until a claim, with the claim's sequence."""
        found: dict[str, int] = {}
        for envelope in self.operations:
            operation = parse_operation(envelope).operation
            if isinstance(operation, Rotate) and operation.claim is not msgspec.UNSET:
                found[operation.claim.manager] = operation.sequence
        return found


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A subject with its custodians in share order."""

    identity: Identity
    document: Document
    salt: bytes
    document_bytes: bytes
    custodians: list[Node]

    @property
    def token(self) -> str:
        return self.identity.token

    @property
    def n(self) -> int:
        return len(self.custodians)

    @property
    def threshold(self) -> int:
        return self.document.threshold

    @property
    def faults(self) -> int:
        return faults(self.n)

    @property
    def manager(self) -> str | None:
        manager = self.document.manager
        return None if manager is msgspec.UNSET else manager


def identity_of(
    token: str, operations: Sequence[Envelope], *, network: str, managers: Mapping[str, Mapping[str, VerifyKey]]
) -> Identity:
    """Replay an identity's operations: its token proves the first, each link the next; no proof that none is missing.

    `managers` has the keys of every provider that a claim in `operations` names. `effective_at` of the state is 0: only
    the directory knows when a block was. Raises what apply_parsed raises; VerificationError `wrong-identity`.
    """
    state: IdentityState | None = None
    keys: tuple[Key, ...] = ()
    by_sequence: dict[int, tuple[Key, ...]] = {}
    for envelope in operations:
        parsed = parse_operation(envelope)
        if parsed.token != token:
            raise VerificationError("wrong-identity", f"a node showed operations of another identity than {token}")
        claim = parsed.operation.claim if isinstance(parsed.operation, Rotate) else msgspec.UNSET
        manager_keys = None if claim is msgspec.UNSET else managers.get(claim.manager)
        applied = apply_parsed(state, parsed, network=network, now_ms=0, keys=keys, manager_keys=manager_keys)
        state = applied.state
        if applied.keys != keys:
            by_sequence[state.sequence] = applied.keys
        keys = applied.keys
    if state is None:
        raise NotFoundError("unknown-identity", f"the directory knows no identity {token}; check the token")
    return Identity(token=token, kind=state.kind, state=state, keys=by_sequence, operations=list(operations))


class _IdentityAnswer(msgspec.Struct):
    state: IdentityState
    operations: list[Envelope]


class Network(Nodes):
    """One client's view of one network, for one event loop."""

    def __init__(
        self,
        genesis: bytes,
        *,
        wire: Wire,
        now_ms: Callable[[], int],
        rand: Callable[[int], bytes],
        urls: dict[str, str] | None = None,
    ) -> None:
        super().__init__(genesis, wire=wire, now_ms=now_ms, rand=rand, urls=urls)
        self._identities: dict[str, Identity] = {}
        self._subjects: dict[str, Subject] = {}
        self._looked_up_ms: dict[str, int] = {}
        self._looking_up: dict[str, asyncio.Task[Identity]] = {}
        self._verify_keys: dict[str, VerifyKey] = {}
        self._sealing_keys: dict[str, SealingPublicKey] = {}

    @classmethod
    def from_file(cls, data: bytes, *, wire: Wire, now_ms: Callable[[], int], rand: Callable[[int], bytes]) -> Network:
        """Raises what parse_network_file raises."""
        file, genesis = parse_network_file(data)
        return cls(genesis, wire=wire, now_ms=now_ms, rand=rand, urls=file.urls)

    async def identity(self, token: str, *, fresh: bool = False) -> Identity:
        """An identity with all its keys; cached unless `fresh`.

        Raises NotFoundError `unknown-identity`; VerificationError (its operations or the directory's proof don't hold);
        UnavailableError `directory-unreachable`, `not-enough-cosignatures`; MalformedError `bad-token`.
        """
        found = self._identities.get(token)
        if found is not None and not fresh:
            return found
        check_token(token)
        looking = None if fresh else self._looking_up.get(token)
        if looking is None:
            looking = self._looking_up[token] = asyncio.create_task(self._look_up(token))
            looking.add_done_callback(_retrieved)
        return await asyncio.shield(looking)

    async def _look_up(self, token: str) -> Identity:
        """One look-up for everybody who asks meanwhile; nobody's cancelling spoils it for the others."""
        try:
            identity, _ = await self.identity_with_proof(token)
        finally:
            self._looking_up.pop(token, None)
        _bound(self._identities)
        self._identities[token] = identity
        self._looked_up_ms[token] = self.now_ms()
        return identity

    async def identity_with_proof(self, token: str) -> tuple[Identity, DirectoryProof]:
        """An identity looked up anew, with the directory's proof of its state, for exports.

        Operations are some node's, the state is the proof's; asked again while one is newer than the other. Raises as
        `identity`.
        """
        for _ in range(_AGREE_TRIES):
            identity = await self._looked_up(token)
            shown = await self.directory_proof("identity", token)
            _, value = self.checked_proof(shown, kind="identity", ident=token)
            if value is not None:
                proven = decode(value, IdentityState)
                state = msgspec.structs.replace(identity.state, effective_at=proven.effective_at)
                if state == proven:
                    return msgspec.structs.replace(identity, state=state), shown
            await asyncio.sleep(_AGREE_PAUSE_S)
        raise VerificationError(
            "stale-directory", f"what a node shows of {token} is not what the directory proves; ask again"
        )

    async def _looked_up(self, token: str) -> Identity:
        answer = await self.first_json(f"/v1/directory/identity/{token}", _IdentityAnswer)
        managers: dict[str, Mapping[str, VerifyKey]] = {}
        for envelope in answer.operations:
            operation = parse_operation(envelope).operation
            if isinstance(operation, Rotate) and operation.claim is not msgspec.UNSET:
                managers[operation.claim.manager] = (await self.identity(operation.claim.manager)).verify_keys()
        return identity_of(token, answer.operations, network=self.id, managers=managers)

    async def verify_key(self, name: str) -> VerifyKey:
        """The signing key of a keyid of any sequence; looked up again when the sequence is newer than what is known.

        Raises NotFoundError `unknown-keys`; as `identity`.
        """
        found = self._verify_keys.get(name)
        if found is None:
            token, sequence = parse_keyid(name)
            identity = await self.identity(token)
            if sequence > identity.state.sequence:
                identity = await self.identity(token, fresh=True)
            _bound(self._verify_keys)
            found = self._verify_keys[name] = verify_key(identity.keys_at(sequence)[0])
        return found

    async def sealing_key(self, token: str) -> tuple[str, SealingPublicKey]:
        """(keyid, key) that something for this identity is sealed to; raises NotFoundError `unknown-keys` where it was
        deactivated; as `identity`."""
        identity = await self.identity(token)
        found = self._sealing_keys.get(identity.keyid)
        if found is None:
            _bound(self._sealing_keys)
            keys = identity.keys_at(identity.state.sequence)
            found = self._sealing_keys[identity.keyid] = sealing_key(keys)
        return identity.keyid, found

    async def custodian_keys(self, nodes: Iterable[Node]) -> list[tuple[str, SealingPublicKey]]:
        """(keyid, key) of each node, in order, as locks are sealed to them."""
        return list(await asyncio.gather(*(self.sealing_key(node.token) for node in nodes)))

    async def consent_keys(self, subject: str, signers: Iterable[str]) -> dict[str, VerifyKey]:
        """The keys of those `signers` (keyids) that could ever sign this subject's consent: itself and its managers.

        Others are left out, so that their signatures are unknown. Raises as `verify_key`.
        """
        who = await self.subject(subject)
        names = {name: name.partition("#")[0] for name in signers}
        allowed = {subject, who.manager}
        if not allowed.issuperset(names.values()):
            allowed |= who.identity.managers().keys()
        return {name: await self.verify_key(name) for name, token in names.items() if token in allowed}

    async def recipient(self, token: str) -> tuple[str, SealingPublicKey]:
        """Whom a grant is sealed to: (keyid, key) of a person, or of an organisation with its reading key.

        Looked up again when it was a minute ago: who left an organisation may still hold its former reading key.
        Raises VerificationError `no-reading-key`; as `sealing_key` and `subject`.
        """
        old = self.now_ms() - self._looked_up_ms.get(token, 0) > _RECIPIENT_AGE_MS
        before = self._identities.get(token)
        identity = await self.identity(token, fresh=old)
        if before is not None and before.state.head != identity.state.head:
            self._subjects.pop(token, None)
        if identity.kind != "organisation":
            return await self.sealing_key(token)
        document = (await self.subject(token)).document
        if document.reading_key is msgspec.UNSET:
            raise VerificationError("no-reading-key", f"organisation {token} has no reading key in its document")
        return identity.keyid, sealing_key([document.reading_key])

    def remember(self, subject: Subject) -> None:
        """Know a subject that was just made or changed here; what the directory proves replaces it when asked anew."""
        self._identities[subject.token] = subject.identity
        self._subjects[subject.token] = subject

    def forget(self, token: str) -> None:
        """Look an identity and its document up again next time."""
        self._identities.pop(token, None)
        self._subjects.pop(token, None)

    async def transact(self, envelopes: Sequence[Envelope]) -> None:
        """As Nodes.transact; what follows from a block that the asked node lacks yet is put again for a while."""
        order = partial(super().transact, envelopes)
        await until_caught_up(order, for_s=_ORDER_S)
        for envelope in envelopes:
            try:
                self.forget(parse_operation(envelope).token)
            except Error:
                continue  # no operation of an identity

    # Documents

    async def subject(self, token: str, *, fresh: bool = False) -> Subject:
        """A subject's document and custodians; cached unless `fresh`.

        Raises NotFoundError `no-document`; as `identity` and `node`.
        """
        found = self._subjects.get(token)
        if found is None or fresh:
            identity = await self.identity(token, fresh=fresh)
            message = await self.document(identity)
            _bound(self._subjects)
            found = self._subjects[token] = await self.subject_of(identity, message)
        return found

    async def subject_of(self, identity: Identity, message: DocumentMessage) -> Subject:
        """A subject from its document; raises VerificationError `bad-document-hash`."""
        document = open_document(message.salt, message.document, identity.state.document)
        return Subject(
            identity=identity,
            document=document,
            salt=message.salt,
            document_bytes=message.document,
            custodians=[await self.node(custodian) for custodian in document.custodians],
        )

    async def document(self, identity: Identity) -> DocumentMessage:
        """The current document of an identity with its salt, from whichever node keeps it.

        Raises NotFoundError `no-document`; UnavailableError `no-document`.
        """

        async def ask(node: Node) -> DocumentMessage:
            message = await self.get(node, f"/v1/document/{identity.token}", DocumentMessage)
            open_document(message.salt, message.document, identity.state.document)
            return message

        found, failures = await first_answer(self.some_nodes(), ask, pace=self.pace)
        if found is not None:
            return found
        if all(isinstance(error, NotFoundError) for error in failures.values()):
            raise NotFoundError("no-document", f"no node keeps the document of {identity.token}; check the token")
        raise UnavailableError(
            "no-document", f"the document of {identity.token} could not be had ({gist(failures)}); try again"
        )


def _retrieved(task: asyncio.Task[Identity]) -> None:
    """Whoever waited has the error; asyncio must not report it as forgotten when nobody did any more."""
    if not task.cancelled():
        task.exception()


def _bound(cache: dict[str, T]) -> None:
    if len(cache) >= _CACHED_MAX:
        cache.pop(next(iter(cache)))
