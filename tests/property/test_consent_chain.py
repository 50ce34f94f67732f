"""A subject's chain under everything that can happen to it, against a model that is too simple to be wrong.

Grants, revocations, rekeys, filings, forks, merges, expiry and the clock in any order. After every step: each reader
is told what the model says; knows exactly the seeds of the epochs it was ever allowed to read, none of a later one;
and folding all events from zero, in any order, gives the state that folding step by step gave.
"""

from __future__ import annotations

import copy
import hashlib
import random
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from careledger import consent
from careledger.consent import ConsentState, decide, fold, fold_fork
from careledger.seal import SealingKey, SealingPublicKey, SigningKey, VerifyKey

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
NETWORK = "ab" * 32
START = 1_760_000_000_000
READERS = ("ada", "bea", "clinic")
PURPOSES = ("TREAT", "HRESCH")
ORDER = ("no-grant", "revoked", "expired", "wrong-purpose", "out-of-scope", "not-enough-approvals")


def token(name: str) -> str:
    return "cl1" + "".join(ALPHABET[byte % 32] for byte in hashlib.sha512(name.encode()).digest()[:46])


class Everybody:
    height = 1
    time_ms = START

    def is_active(self, token: str, /) -> bool:
        return True

    def licensed(self, person: str, now_ms: int, /) -> bool:
        return True

    def member(self, organisation: str, /) -> bool:
        return True


class Model:
    """What the events so far mean: grants by id, revoked ids, epochs, and each record's places beside its own."""

    def __init__(self) -> None:
        self.grants: dict[str, Any] = {}
        self.revoked: set[str] = set()
        self.epochs: dict[str, int] = {}
        self.filed: dict[str, frozenset[str] | str] = {}

    def places(self, record: str, own: str) -> set[str]:
        filed = self.filed.get(record)
        if filed is None:
            return {own}
        return {filed} if isinstance(filed, str) else {own, *filed}

    def answer(self, who: list[str], record: tuple[str, str], purpose: str, approvers: set[str], now: int) -> str:
        reasons = set()
        for grant_id, grant in self.grants.items():
            if grant.grantee not in who:
                continue
            if grant_id in self.revoked:
                reasons.add("revoked")
            elif now >= grant.expires:
                reasons.add("expired")
            elif purpose not in grant.purposes:
                reasons.add("wrong-purpose")
            elif not self.places(*record) <= set(grant.compartments):
                reasons.add("out-of-scope")
            elif grant.joint and len(approvers & set(grant.joint.tokens)) < grant.joint.k:
                reasons.add("not-enough-approvals")
            else:
                return "grant"
        return min(reasons or {"no-grant"}, key=ORDER.index)


def meet(one: Model, two: Model) -> Model:
    """Only what restricts, of two branches."""
    both = Model()
    both.grants = {key: grant for key, grant in one.grants.items() if key in two.grants}
    both.revoked = one.revoked | two.revoked
    both.epochs = {key: max(one.epochs[key], two.epochs[key]) for key in one.epochs}
    both.filed = torn(one, two)
    return both


def torn(one: Model, two: Model) -> dict[str, frozenset[str] | str]:
    filed: dict[str, frozenset[str] | str] = {}
    for record in {*one.filed, *two.filed}:
        places = {one.filed.get(record), two.filed.get(record)}
        if len(places) == 1 and isinstance(one.filed[record], str):
            filed[record] = one.filed[record]
        else:
            flat = [{place} if isinstance(place, str) else set(place or ()) for place in places]
            filed[record] = frozenset().union(*flat)
    return filed


class ConsentChain(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        source = random.Random(seed)
        self.rand = source.randbytes
        self.now = START
        self.patient = token("patient")
        self.sign = SigningKey(self.rand(32))
        own = SealingKey(self.rand(32))
        keyid = self.patient + "#0"
        self.keys = {keyid: VerifyKey(self.sign.public)}
        self.writer = consent.Writer(
            network=NETWORK,
            subject=self.patient,
            signer=(keyid, self.sign),
            owner=(keyid, SealingPublicKey(own.public)),
        )
        self.reading = {name: SealingKey(self.rand(32)) for name in READERS}
        self.state: ConsentState = consent.EMPTY
        self.before: ConsentState | None = None
        self.events: list[tuple[consent.ConsentEvent, str]] = []
        self.model = Model()
        self.model_before = Model()
        self.heads: dict[str, Model] = {}
        self.boxed: dict[str, consent.Seeds] = {name: {} for name in READERS}
        self.entitled: dict[str, dict[str, int]] = {name: {} for name in READERS}
        first = consent.first_compartments(self.writer, categories=["a", "b", "c"], now_ms=self.now, rand=self.rand)
        self.compartments = [first.id_of(name) for name in ("a", "b", "c")]
        self.seeds = dict(first.seeds)
        self.records = [(hashlib.sha256(bytes([i])).hexdigest()[:32], self.compartments[i % 3]) for i in range(6)]
        self.append(first.message, self.model)
        self.model.epochs = dict.fromkeys(self.state.compartments, 1)

    # -- what the subject does

    def recipient(self, name: str) -> tuple[str, SealingPublicKey]:
        return token(name) + "#0", SealingPublicKey(self.reading[name].public)

    def checked(self, message: consent.EventMessage) -> tuple[consent.ConsentEvent, str]:
        event, message_id = consent.read_event(message, network=NETWORK, subject=self.patient, keys=self.keys)
        for name in READERS:
            if isinstance(event, consent.Grant) and event.grantee == token(name):
                box: bytes | None = message.boxes[0]
            else:
                box = None
                if isinstance(event, consent.Rekey):
                    box = consent.box_for(event, message.boxes, token(name) + "#0")
            if box is not None:
                opened = consent.open_grant_box(event, box, keyid=token(name) + "#0", key=self.reading[name])
                self.boxed[name].update({(key, epoch): seed for key, (epoch, seed) in opened.seeds.items()})
        return event, message_id

    def append(self, message: consent.EventMessage, model: Model) -> consent.ConsentEvent:
        pair = self.checked(message)
        self.model_before, self.before = copy.deepcopy(model), self.state
        self.state = fold(self.state, *pair)
        self.events.append(pair)
        return pair[0]

    def make_grant(self, state: ConsentState, data: st.DataObject) -> consent.EventMessage:
        name = data.draw(st.sampled_from(READERS))
        joint: Any = consent.Joint(k=1, tokens=[token("approver")]) if data.draw(st.booleans()) else None
        return consent.make_grant(
            self.writer,
            state,
            grantee=token(name),
            to=self.recipient(name),
            rights=["read"],
            purposes=data.draw(st.lists(st.sampled_from(PURPOSES), min_size=1, unique=True)),
            expires=self.now + data.draw(st.integers(1, 100)),
            compartments=data.draw(st.lists(st.sampled_from(self.compartments), min_size=1, unique=True)),
            seeds=self.seeds,
            **({"joint": joint} if joint else {}),
            policy="",
            text_hash="00" * 32,
            text_language="en",
            now_ms=self.now,
            rand=self.rand,
        )

    def apply_grant(self, model: Model, event: consent.ConsentEvent) -> None:
        assert isinstance(event, consent.Grant)
        model.grants[event.grant] = event
        name = next(name for name in READERS if token(name) == event.grantee)
        for compartment in event.compartments or []:
            known = self.entitled[name].get(compartment, 0)
            self.entitled[name][compartment] = max(known, model.epochs[compartment])

    def standing(self, model: Model) -> list[str]:
        return [key for key in model.grants if key not in model.revoked]

    def make_rekey(self, compartments: list[str]) -> None:
        names = {token(name): name for name in READERS}
        remaining = consent.remaining_grantees(self.state, compartments, now_ms=self.now)
        rekeyed = consent.make_rekey(
            self.writer,
            self.state,
            compartments,
            seeds=self.seeds,
            recipients={who: self.recipient(names[who]) for who in remaining},
            now_ms=self.now,
            rand=self.rand,
        )
        self.append(rekeyed.message, self.model)
        self.seeds.update(rekeyed.seeds)
        for compartment in compartments:
            self.model.epochs[compartment] += 1
            for key in self.standing(self.model):
                grant = self.model.grants[key]
                if grant.expires > self.now and compartment in grant.compartments:
                    self.entitled[names[grant.grantee]][compartment] = self.model.epochs[compartment]

    @precondition(lambda self: not self.state.forked)
    @rule(data=st.data())
    def grant(self, data: st.DataObject) -> None:
        self.apply_grant(self.model, self.append(self.make_grant(self.state, data), self.model))

    @precondition(lambda self: not self.state.forked and self.standing(self.model))
    @rule(data=st.data())
    def revoke_and_rekey(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.standing(self.model)))
        self.append(consent.make_revocation(self.writer, self.state, key, now_ms=self.now), self.model)
        self.model.revoked.add(key)
        self.make_rekey(self.model.grants[key].compartments)

    @precondition(lambda self: not self.state.forked)
    @rule(data=st.data())
    def rekey(self, data: st.DataObject) -> None:
        self.make_rekey(data.draw(st.lists(st.sampled_from(self.compartments), min_size=1, unique=True)))

    @precondition(lambda self: not self.state.forked)
    @rule(data=st.data())
    def file(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from(self.records))[0]
        place = data.draw(st.sampled_from(self.compartments))
        self.append(self.make_file(self.state, record, place), self.model)
        self.model.filed[record] = place

    def make_file(self, state: ConsentState, record: str, place: str) -> consent.EventMessage:
        return consent.make_file(
            self.writer, state, record=record, compartment=place, consent_key=bytes(32), now_ms=self.now
        )

    @rule(ms=st.integers(1, 40))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @precondition(lambda self: not self.state.forked and self.before is not None and self.before.seq > 0)
    @rule(data=st.data(), what=st.sampled_from(["grant", "revoke", "file"]))
    def fork(self, data: st.DataObject, what: str) -> None:
        """A second device signs an event with the number of the last one."""
        assert self.before is not None
        other = copy.deepcopy(self.model_before)
        if what == "revoke" and self.standing(other):
            key = data.draw(st.sampled_from(self.standing(other)))
            pair = self.checked(consent.make_revocation(self.writer, self.before, key, now_ms=self.now))
            other.revoked.add(key)
        elif what == "file":
            record, place = data.draw(st.sampled_from(self.records))[0], data.draw(st.sampled_from(self.compartments))
            pair = self.checked(self.make_file(self.before, record, place))
            other.filed[record] = place
        else:
            pair = self.checked(self.make_grant(self.before, data))
            self.apply_grant(other, pair[0])
        if pair[1] == self.state.head:
            return  # the very same event again
        self.heads = {self.state.head: self.model, pair[1]: other}
        self.events.append(pair)
        self.state = fold_fork(self.patient, self.events)
        self.model = meet(self.model, other)

    @precondition(lambda self: self.state.forked)
    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        # By place, since message ids differ from run to run: HPKE's ephemeral isn't ours to choose.
        keep = list(self.heads)[data.draw(st.integers(0, 1))]
        kept = self.heads.pop(keep)
        (other,) = self.heads.values()
        pair = self.checked(consent.make_merge(self.writer, self.state, keep, now_ms=self.now))
        self.events.append(pair)
        self.state = fold_fork(self.patient, self.events)
        self.model = Model()
        self.model.grants = {**other.grants, **kept.grants}
        self.model.revoked = kept.revoked | other.revoked | (set(other.grants) - set(kept.grants))
        self.model.epochs = {key: max(kept.epochs[key], other.epochs[key]) for key in kept.epochs}
        self.model.filed = torn(kept, other)
        self.before = None

    # -- what must hold whatever happened

    @rule(data=st.data())
    def a_reader_asks(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(["ada", "bea", "cyd"]))
        for_ = token("clinic") if data.draw(st.booleans()) else None
        record = data.draw(st.sampled_from(self.records))
        purpose = data.draw(st.sampled_from(PURPOSES))
        approved = data.draw(st.booleans())
        request = SimpleNamespace(
            reader=token(reader),
            for_=for_,
            affiliated=for_ and (for_, self.now + 1),
            subject=self.patient,
            records=[record[0]],
            purpose=purpose,
            basis="grant",
            grant=None,
            head=(self.state.seq, self.state.head),
            approvals=[SimpleNamespace(approver=token("approver"), expires=self.now + 1)] if approved else [],
        )
        manifests = [SimpleNamespace(record=key, compartment=own, recorded=START) for key, own in self.records]
        decision = decide(self.state, Everybody(), request, manifests, {}, self.now)
        who = [token(reader), *([for_] if for_ else [])]
        approvers = {token("approver")} if approved else set()
        expected = self.model.answer(who, record, purpose, approvers, self.now)
        assert decision.reason == expected
        assert decision.allow is (expected == "grant")
        request.records = None
        listed = decide(self.state, Everybody(), request, manifests, {}, self.now)
        covered = [
            item[0] for item in self.records if self.model.answer(who, item, purpose, approvers, self.now) == "grant"
        ]
        assert list(listed.covered) == covered
        without_the_rest = [item for item in manifests if item.record in covered]
        assert decide(self.state, Everybody(), request, without_the_rest, {}, self.now) == listed

    @invariant()
    def readers_know_every_epoch_they_could_read_and_none_after(self) -> None:
        chain = [event for event, _ in self.events]
        for name in READERS:
            known = consent.seeds_from_rekeys(self.boxed[name], chain)
            entitled = {
                (compartment, epoch)
                for compartment, newest in self.entitled[name].items()
                for epoch in range(1, newest + 1)
            }
            assert set(known) == entitled
            assert all(seed == self.seeds[place] for place, seed in known.items())

    @invariant()
    def replaying_all_events_from_zero_gives_this_state(self) -> None:
        shuffled = list(self.events)
        random.Random(len(shuffled)).shuffle(shuffled)
        assert fold_fork(self.patient, shuffled) == self.state
        assert {key: epoch for key, (epoch, _) in self.state.compartments.items()} == self.model.epochs


TestConsentChain = ConsentChain.TestCase
TestConsentChain.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
