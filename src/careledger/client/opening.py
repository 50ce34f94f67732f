"""One opening on its way: from the first answer to content that is proven, or to one refusal that names who failed.

What it asks of whom follows from what has arrived: shares without content, content without shares, a share that is
false, a key that is missing. Nothing here decides whether the reader may; custodians do, and log it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from careledger.client.asking import Race
from careledger.client.chain import GrantsView
from careledger.client.exchange import gist
from careledger.client.network import Subject
from careledger.client.nodes import Node
from careledger.client.release import Asked, Release
from careledger.errors import Error, NotFoundError, NotPermittedError, UnavailableError, VerificationError
from careledger.identity import default_threshold
from careledger.records import (
    OpenedRecord,
    OpenedRecords,
    VerifiedSubmission,
    claimed_author,
    decode_view,
    open_records,
    verify_view,
)
from careledger.seal import share_commitment

if TYPE_CHECKING:
    from careledger.client.reader import Reader

__all__ = ["Opened", "Opening", "not_enough", "raise_common"]

_REASONS_S = 2.0
"""As long as an answer may take before others are asked in its place (asking.py)."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What a request opened: records, those that would not open and why, which custodians failed and why.

    `receipts` (by node) prove that the read is logged; `views` are the proofs of authorship: both go into an export.
    """

    request: str
    records: list[OpenedRecord]
    failed: list[tuple[str, Error]]
    faults: dict[str, Error]
    receipts: dict[str, bytes]
    views: list[bytes]


class Opening:
    """One request on its way: collects answers until the records open, or until that is impossible."""

    def __init__(self, reader: Reader, who: Subject, view: GrantsView, request: Asked) -> None:
        self.reader = reader
        self.who = who
        self.view = view
        self.request = request
        self.race: Race[Release] = reader.race(who, self._ask)
        self.content: list[VerifiedSubmission] | None = None
        self.view_bytes: list[bytes] = []
        self._asked_for_content: set[str] = set()
        self._asked_twice = False
        self._refreshed = False

    async def _ask(self, node: Node) -> Release:
        """The first node sends the content; when it has failed, the next one that is asked."""
        content = self.content is None and not (self._asked_for_content & self.race.running)
        if content:
            self._asked_for_content.add(node.token)
        return await self.reader.ask(node, self.request, content=content)

    async def run(self) -> Opened:
        race, threshold = self.race, self.who.threshold
        async with race:
            while True:
                await self._take_content()
                if len(race.answers) >= threshold:
                    if self.content is None:
                        self._ask_again_for_content()
                    else:
                        opened = await self._try_open()
                        if opened is not None:
                            return opened
                if race.possible < threshold or not await race.more():
                    raise await not_enough(self.who, race)

    async def _take_content(self) -> None:
        for node, release in list(self.race.answers.items()):
            if self.content is None and release.submissions:
                try:
                    self.content = await self._verified(release)
                    self.view_bytes = release.submissions
                except Error as error:
                    self.race.bad(node, error)

    def _ask_again_for_content(self) -> None:
        """Shares are here, the content isn't: its node failed, sent none, or is slow. Repeat the same message to
        another."""
        if self._asked_for_content & self.race.running and (self._asked_twice or not self.race.hedged):
            return
        self._asked_twice = self.race.hedged
        for node in self.who.custodians:
            if node.token in self.race.answers and node.token not in self._asked_for_content:
                self._asked_for_content.add(node.token)
                self.race.ask_again(node, self._content_from)
                return
        for token in self._asked_for_content & self.race.answers.keys():
            self.race.bad(token, UnavailableError("no-content", "the node released its share, but sent no content"))

    async def _content_from(self, node: Node) -> Release:
        return await self.reader.ask(node, self.request, content=True)

    async def _verified(self, release: Release) -> list[VerifiedSubmission]:
        network = self.reader.network
        found: list[VerifiedSubmission] = []
        for data in release.submissions:
            shown = decode_view(data)
            key = await network.verify_key(claimed_author(shown.envelope))
            found.append(verify_view(shown, network=network.id, author_key=key, subject=self.request.subject))
        shown_ids = [one.record for submission in found for one in submission.records if one.ciphertext is not None]
        wanted = self.request.records or ()
        if len(shown_ids) != len(wanted) or set(shown_ids) != set(wanted):
            raise VerificationError(
                "missing-content", f"the node sent content of {len(shown_ids)} records where {len(wanted)} were asked"
            )
        return found

    async def _try_open(self) -> Opened | None:
        """Open with what is there; None when a custodian turned out to be false and others are asked now."""
        releases = self.race.answers
        for node, error in self._false_custodians().items():
            self.race.bad(node, error)
        if len(releases) < self.who.threshold:
            return None
        shares: dict[int, dict[bytes, bytes]] = {}
        for release in releases.values():
            for record, share in release.shares.items():
                shares.setdefault(share[-1], {})[record] = share
        opened = await self._opened(shares)
        if any(error.code == "bad-seal" for _, error in opened.failed) and self.race.possible > len(releases):
            self.race.ask_more()  # another choice of t shares may still open it (DESIGN 5.2)
            return None
        return Opened(
            request=self.request.id.hex(),
            records=opened.records,
            failed=[(record.hex(), error) for record, error in opened.failed],
            faults=dict(self.race.failures),
            receipts={node: release.receipt for node, release in releases.items()},
            views=self.view_bytes,
        )

    def _false_custodians(self) -> dict[str, Error]:
        """Who released a share that is not its own: it does not match the author's commitment at its own place.

        Without the place a liar could hand out somebody else's x, spoil that custodian's share and have it blamed.
        """
        assert self.content is not None
        manifests = {one.record: one.manifest for submission in self.content for one in submission.records}
        sequence = self.who.identity.state.sequence
        places = {node.token: place for place, node in enumerate(self.who.custodians, start=1)}
        taken: set[tuple[int, bytes]] = set()
        false: dict[str, Error] = {}
        for node, release in self.race.answers.items():
            for record, share in release.shares.items():
                manifest, place = manifests[record], share[-1]
                own = place == places[node] or manifest.subject_seq != sequence
                known = 1 <= place <= len(manifest.shares) and (place, record) not in taken
                if not (own and known and share_commitment(record, share).hex() == manifest.shares[place - 1]):
                    false[node] = _false_share(record)
                    break
            if node not in false:
                taken.update((share[-1], record) for record, share in release.shares.items())
        return false

    async def _opened(self, shares: dict[int, dict[bytes, bytes]]) -> OpenedRecords:
        assert self.content is not None
        secrets, consent_keys, missing = self._consent(self.content)
        if missing and not self._refreshed:
            self._refreshed = True
            self.view = await self.reader.grants(self.request.subject, fresh=True)
            secrets, consent_keys, missing = self._consent(self.content)
        records: list[OpenedRecord] = []
        failed: list[tuple[bytes, Error]] = []
        bad: list[tuple[int, bytes]] = []
        for submission in self.content:
            mine = secrets[submission.statement.submission]
            by_count: dict[int, list[int]] = {}
            for at, one in enumerate(submission.records):
                by_count.setdefault(len(one.manifest.shares), []).append(at)
            for n, members in by_count.items():
                part = open_records(
                    [submission.records[at] for at in members],
                    shares=shares,
                    threshold=self.who.threshold if n == self.who.n else default_threshold(n),
                    secrets=mine,
                    consent_keys=consent_keys,
                )
                records += part.records
                failed += [(record, missing.get(record, error)) for record, error in part.failed]
                bad += part.bad_shares
        return OpenedRecords(records=records, failed=failed, bad_shares=bad)

    def _consent(
        self, content: Sequence[VerifiedSubmission]
    ) -> tuple[dict[str, dict[tuple[str, int], bytes]], dict[bytes, bytes], dict[bytes, Error]]:
        """C by submission and (compartment, epoch); K_consent by record; and why a record has neither."""
        secrets: dict[str, dict[tuple[str, int], bytes]] = {}
        consent_keys: dict[bytes, bytes] = {}
        missing: dict[bytes, Error] = {}
        for submission in content:
            mine = secrets.setdefault(submission.statement.submission, {})
            tried: dict[tuple[str, int], Error] = {}
            for one in submission.records:
                own = self.view.consent_key(one.record)
                if own is not None:
                    consent_keys[one.record] = own
                    continue
                place = (one.manifest.compartment, one.manifest.epoch)
                if place not in mine and place not in tried:
                    try:
                        mine[place] = submission.open_consent_lock(*place, self.view.compartment_key(*place))
                    except (NotFoundError, VerificationError) as error:
                        tried[place] = error
                if place in tried:
                    missing[one.record] = tried[place]
        return secrets, consent_keys, missing


def _false_share(record: bytes) -> VerificationError:
    return VerificationError(
        "bad-share", f"the share of record {record.hex()} does not match the author's commitment; report the custodian"
    )


async def not_enough(who: Subject, race: Race[Release]) -> Error:
    """The one refusal to show when fewer than t custodians can answer usefully.

    A denial by no more than could be lying is not believed alone: then the others' reasons are waited for.
    """
    denials = _denials(race)
    if 0 < len(denials) <= who.faults:
        await race.rest(timeout_s=_REASONS_S)
        denials = _denials(race)
    if len(denials) > who.faults:
        codes = [error.code for error in denials]
        code = max(codes, key=codes.count)
        return next(error for error in denials if error.code == code)
    raise_common(race.failures)
    return UnavailableError(
        "not-enough-custodians",
        f"{race.possible} of {who.n} custodians can release their share, {who.threshold} are needed: "
        f"{gist(race.failures)}; try again",
        details={
            "found": race.possible,
            "needed": who.threshold,
            "nodes": {node: error.code for node, error in race.failures.items()},
        },
    )


def _denials(race: Race[Release]) -> list[NotPermittedError]:
    return [error for error in race.failures.values() if isinstance(error, NotPermittedError)]


def raise_common(failures: dict[str, Error]) -> None:
    """Where every node says that our clock is off, that is the one thing to say."""
    for error in failures.values():
        if error.code == "clock-off" and all(other.code == "clock-off" for other in failures.values()):
            raise error
