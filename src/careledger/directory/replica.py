"""A replica of the directory in memory: built from the genesis, moved on by blocks, read in constant time.

Two replicas that applied the same blocks have the same app hash, whatever engine ordered them.
"""

from __future__ import annotations

from careledger.directory.genesis import directory_origin, log_origin
from careledger.directory.parameters import Value
from careledger.directory.proofs import EventProof, StateProof
from careledger.directory.rules import apply_block, found_state
from careledger.directory.state import Outcome, State, app_hash
from careledger.directory.statemap import MapProof
from careledger.directory.transactions import Block, TxResult
from careledger.directory.values import (
    AnchorState,
    ForkMark,
    LicenceState,
    MemberState,
    NodeState,
    ParameterState,
    ProposalState,
)
from careledger.identity import IdentityState, Token
from careledger.seal import Key, encode, parse_keyid, unb64
from careledger.tlog import Verifier

__all__ = ["Directory"]


_Witnesses = tuple[dict[Token, MemberState], dict[Token, NodeState], dict[Token, list[Verifier]]]


class Directory:
    """The directory's state at one height. Not safe for use while another thread applies a block."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._witnesses: _Witnesses | None = None

    @classmethod
    def from_genesis(cls, genesis: bytes) -> Directory:
        """The directory at height 0. Raises MalformedError `bad-genesis`."""
        return cls(found_state(genesis))

    def apply(self, block: Block) -> list[TxResult]:
        """Apply the next block; refused transactions change nothing.

        Raises VerificationError `wrong-network`, `bad-height`, `bad-time`, with the state left as it was.
        """
        outcome = apply_block(self._state, block)
        self.commit(outcome)
        return outcome.results

    def commit(self, outcome: Outcome) -> None:
        """Make an outcome that was computed on this very state (see `state`) the directory's."""
        self._state.commit(outcome)

    @property
    def state(self) -> State:
        """For engines, which compute outcomes before they commit them."""
        return self._state

    @property
    def network(self) -> str:
        return self._state.network

    @property
    def height(self) -> int:
        return self._state.height

    @property
    def time_ms(self) -> int:
        """The time of the last block (of the genesis at height 0)."""
        return self._state.time_ms

    @property
    def origin(self) -> str:
        """The origin of the embedded engine's block log."""
        return directory_origin(self._state.network)

    def app_hash(self) -> bytes:
        return app_hash(self._state.state_map.root, self._state.frontier.root())

    def identity(self, token: Token) -> IdentityState | None:
        value = self._state.values.get(f"identity/{token}")
        return value if isinstance(value, IdentityState) else None

    def is_active(self, token: Token) -> bool:
        """Whether the identity is known and not deactivated."""
        state = self.identity(token)
        return state is not None and state.status == "active"

    def public_keys(self, token: Token, sequence: int) -> list[Key] | None:
        """The keys in force after operation `sequence`; None if there was no such operation or they are none."""
        state = self.identity(token)
        if state is None or not 0 <= sequence <= state.sequence:
            return None
        for entry in reversed(self._state.keys[token]):
            if entry.sequence <= sequence:
                return list(entry.keys) or None
        return None

    def current_keys(self, token: Token) -> list[Key] | None:
        """The keys in force now; None when unknown or deactivated."""
        lists = self._state.keys.get(token)
        return list(lists[-1].keys) or None if lists else None

    def keys_since(self, token: Token) -> int | None:
        """The sequence from which the current keys are in force: any keyid from it on names them."""
        lists = self._state.keys.get(token)
        return lists[-1].sequence if lists else None

    def keys_from(self, token: Token, sequence: int) -> int | None:
        """The operation since which the keys in force after operation `sequence` hold; None when it is not known."""
        lists = [entry.sequence for entry in self._state.keys.get(token, ()) if entry.sequence <= sequence]
        return lists[-1] if lists else None

    def claims(self, token: Token) -> list[tuple[int, Token]]:
        """(operation, provider) of every claim: until then that provider says it was the identity's manager."""
        lists = self._state.keys.get(token, ())
        return [(entry.sequence, entry.claim) for entry in lists if entry.claim is not None]

    def signing_rank(self, key_id: str, *, subject: Token) -> int:
        """How new a key is among those that may ever have signed the subject's consent: the operation since which it
        holds; of a former manager the last one before the claim that ended its part.

        Raises MalformedError `bad-keyid`.
        """
        token, sequence = parse_keyid(key_id)
        if token == subject:
            return self.keys_from(token, sequence) or 0
        ends = [at for at, manager in self.claims(subject) if manager == token]
        return max(ends) - 1 if ends else self.keys_since(subject) or 0

    def claimed_from(self, token: Token, since: int) -> Token | None:
        """The provider that a claim names, when the one rotation after operation `since` was a claim; else None.

        For who has the document of that time: only it tells whether that provider was the manager.
        """
        lists = [entry for entry in self._state.keys.get(token, ()) if entry.sequence > since]
        return lists[0].claim if len(lists) == 1 else None

    def member(self, token: Token) -> MemberState | None:
        """The active member of this token."""
        return self._state.members.get(token)

    def members(self) -> list[MemberState]:
        """Active members, founders first, then by admission."""
        return list(self._state.members.values())

    def node(self, token: Token) -> NodeState | None:
        """The active node of this token."""
        return self._state.nodes.get(token)

    def nodes(self) -> list[NodeState]:
        """Active nodes of all members."""
        return list(self._state.nodes.values())

    def node_member(self, token: Token) -> Token | None:
        """The member whose node this is."""
        node = self._state.nodes.get(token)
        return None if node is None else node.member

    def licences(self, person: Token) -> list[LicenceState]:
        """All licences of a person, whatever their status."""
        return list(self._state.licences.get(person, {}).values())

    def licensed(self, person: Token, now_ms: int) -> bool:
        """Whether the person has an active licence in force at `now_ms`."""
        return any(
            licence.status == "active" and licence.from_ <= now_ms < licence.until
            for licence in self._state.licences.get(person, {}).values()
        )

    def anchor(self, node: Token) -> AnchorState | None:
        value = self._state.values.get(f"anchor/{node}")
        return value if isinstance(value, AnchorState) else None

    def fork(self, node: Token) -> ForkMark | None:
        """The mark of a node whose log was proven to have forked."""
        value = self._state.values.get(f"fork/{node}")
        return value if isinstance(value, ForkMark) else None

    def proposal(self, ident: str) -> ProposalState | None:
        value = self._state.values.get(f"proposal/{ident}")
        return value if isinstance(value, ProposalState) else None

    def parameter(self, name: str) -> Value | None:
        """The parameter's value in force at this height; None: there is no such parameter."""
        value = self._state.values.get(f"parameter/{name}")
        return value.at(self.height) if isinstance(value, ParameterState) else None

    def integer(self, name: str) -> int:
        """An integer parameter in force at this height."""
        value = self.parameter(name)
        if not isinstance(value, int):
            raise AssertionError(f"the network has no integer parameter {name}")
        return value

    def sequencer_verifier(self) -> Verifier | None:
        """The key that signs the block log's checkpoints: the sequencer node's log key under the block log's origin."""
        node = self.node(str(self.parameter("sequencer") or ""))
        return None if node is None else Verifier.ed25519(self.origin, unb64(node.log_key, size=32))

    def witnesses(self) -> dict[Token, list[Verifier]]:
        """Each member's witness verifiers: those of its nodes that haven't forked. Not to be changed."""
        known, (members, nodes) = self._witnesses, (self._state.members, self._state.nodes)
        if known is None or known[0] is not members or known[1] is not nodes:
            found = {
                member.token: [self._witness(nodes[token]) for token in member.nodes if self.fork(token) is None]
                for member in members.values()
            }
            known = self._witnesses = (members, nodes, found)
        return known[2]

    def log_verifier(self, node: Token) -> Verifier | None:
        """The verifier of a node's log."""
        found = self.node(node)
        if found is None:
            return None
        return Verifier.ed25519(log_origin(self.network, node), unb64(found.log_key, size=32))

    def _witness(self, node: NodeState) -> Verifier:
        return Verifier.cosignature(log_origin(self.network, node.token), unb64(node.witness_key, size=32))

    def prove(self, kind: str, ident: str) -> MapProof:
        """The proof that (kind, id) is in the state map, or that it is not."""
        return self._state.state_map.prove(kind, ident)

    def prove_state(self, kind: str, ident: str, *, height: int | None = None) -> StateProof:
        """The value (None: absent) with everything that leads from it to the app hash.

        `height`: as of that block instead of the newest, so that it fits a checkpoint that others have cosigned.
        Raises NotFoundError `too-old`: more than 1024 blocks back.
        """
        at = self.height if height is None else height
        state_map, frontier = self._state.roots_at(at)
        value = self._state.value_at(f"{kind}/{ident}", at)
        return StateProof.build(
            kind=kind,
            ident=ident,
            value=None if value is None else encode(value),
            proof=state_map.prove(kind, ident),
            state_root=state_map.root,
            events_root=frontier.root(),
        )

    def history(self, kind: str, ident: str, *, height: int | None = None) -> list[EventProof]:
        """Every change of (kind, id) since genesis, oldest first, each proven to be among the events.

        `height` as in prove_state. That no change is missing is not proven.
        """
        state_map, frontier = self._state.roots_at(self.height if height is None else height)
        tree = self._state.event_tree()
        return [
            EventProof.build(
                event=self._state.events[index],
                index=index,
                size=frontier.size,
                hashes=tree.inclusion_proof(index, frontier.size),
                state_root=state_map.root,
                events_root=frontier.root(),
            )
            for index in self._state.event_places.get(f"{kind}/{ident}", [])
            if index < frontier.size
        ]
