"""A node's folder and a whole network of them: every check there is, put together in the order they rest on each other.

genesis -> directory (executed again) -> keys, anchors -> the node's log, its bodies and decisions, compared with the
anchors and with what the other nodes have cosigned of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from careledger.errors import Error, NotFoundError, VerificationError
from careledger.tlog import CHECKPOINT_PATH, Verifier, open_checkpoint, parse_unverified_checkpoint, parse_vkey
from careledger.verify.committed import verify_committed
from careledger.verify.directory import VerifiedDirectory, verify_directory
from careledger.verify.folder import folder_fetch, load_blocks, load_bodies, read_file, witnessed_in
from careledger.verify.history import Fetch, anchors_in, verify_extends
from careledger.verify.log import verify_log
from careledger.verify.report import Known, LogReport, NetworkReport, NodeReport, index_of
from careledger.verify.trust import trust_of_directory

__all__ = ["network_above", "node_folders", "verify_network_folder", "verify_node_folder"]

DIRECTORY_LOG: Final = "directory/log"
DIRECTORY_DB: Final = "directory/directory.db"
LIGHT: Final = "directory/light.json"
MAIN_DB: Final = "store/main.db"
WITNESS_DB: Final = "witness.db"
_TRIES: Final = 5


class _Settings(msgspec.Struct):
    token: str


def node_folders(folder: Path) -> list[Path]:
    """The nodes' folders inside a network's folder, by name."""
    return sorted(one.parent for one in folder.glob("*/node.json"))


def network_above(path: Path) -> Path | None:
    """The nearest folder above (or at) a path that is a network's: it has a genesis.json and nodes' folders."""
    for folder in (path, *path.absolute().parents):
        if (folder / "genesis.json").is_file() and not (folder / "node.json").exists() and node_folders(folder):
            return folder
    return None


def verify_node_folder(
    folder: Path,
    *,
    others: Sequence[Path] = (),
    network: str | None = None,
    cosignatures_needed: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NodeReport:
    """Verify a node's folder, or a copy of it that may lack all but `log`: its directory, then its log, with bodies,
    signatures and decisions where the copy has a store.

    `others`: folders of other nodes of the network; their cosignatures of the directory and what they have cosigned of
    this node's log are compared too, and their directory is taken where the copy has none. If one of them is of the
    same node, its log is an older copy that helps to name a rewritten entry. `network`: its name, where the caller
    knows it. `cosignatures_needed` of other members on the log's newest checkpoint; None: ⌊2m/3⌋ where there is no
    earlier checkpoint to compare with, else none (a node that stops has entries that nobody cosigned any more:
    `vouched` says up to where others vouch).
    Raises as `verify_directory` and `verify_log`; VerificationError `wrong-key`: log.vkey isn't the key that the
    directory has; NotFoundError when files are missing.
    """
    fetch = folder_fetch(folder / "log")
    token = parse_unverified_checkpoint(fetch(CHECKPOINT_PATH)).origin.partition("/")[2]
    directory = _directory(folder, others, network)
    trust = trust_of_directory(directory.directory)
    verifier = trust.log(token)
    _check_vkey(folder, verifier)
    copies = [other for other in others if _is_of(other, token)]
    known = [
        *anchors_in(directory.history.blocks, node=token),
        *_witnessed([other for other in others if other not in copies], verifier),
    ]
    needed = cosignatures_needed
    if needed is None:
        needed = 0 if known else trust.log_needed

    def once() -> LogReport:
        store = load_bodies(folder / MAIN_DB) if (folder / MAIN_DB).exists() else None
        try:
            return verify_log(
                fetch,
                verifier=verifier,
                witnesses=trust.witnesses(besides=token),
                cosignatures_needed=needed,
                known=known,
                bodies=None if store is None else store.bodies,
                history=directory.history,
                documents=None if store is None else store.document,
                on_progress=on_progress,
            )
        finally:
            if store is not None:
                store.close()

    try:
        log = _settled(once, fetch)
    except VerificationError as problem:
        if problem.code in ("rewritten", "fork") and index_of(problem) is None:
            _name_with_copies(fetch, copies, verifier)
        raise
    return NodeReport(node=token, directory=directory.report, log=log)


def _settled(once: Callable[[], LogReport], fetch: Fetch) -> LogReport:
    """A log that its node goes on writing: others may have cosigned a moment before it publishes, and partial files
    give way to fuller ones. So these two refusals count only if the checkpoint stayed the same meanwhile."""
    for _ in range(_TRIES):
        before = fetch(CHECKPOINT_PATH)
        try:
            return once()
        except VerificationError as problem:
            if problem.code not in ("rolled-back", "missing-file") or fetch(CHECKPOINT_PATH) == before:
                raise
    return once()


def _name_with_copies(fetch: Fetch, copies: Sequence[Path], verifier: Verifier) -> None:
    """Raise again what is wrong with a log, with the first entry that differs from an older copy of it."""
    new = open_checkpoint(fetch(CHECKPOINT_PATH), verifier=verifier)
    for copy in copies:
        old_fetch = folder_fetch(copy / "log")
        try:
            old = open_checkpoint(old_fetch(CHECKPOINT_PATH), verifier=verifier)
        except Error:
            continue
        if old.size <= new.size:
            verify_extends(fetch, old=old, new=new, source=f"the copy in {copy.name}", old_fetch=old_fetch)


def verify_network_folder(
    folder: Path,
    *,
    network: str | None = None,
    cosignatures_needed: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NetworkReport:
    """Verify every node's folder inside a folder, each with all the others.

    Errors as `verify_node_folder`, with details `node` = the folder's name. Raises NotFoundError `no-node`.
    """
    nodes = node_folders(folder)
    if not nodes:
        raise NotFoundError("no-node", f"{folder} holds no folder of a node (with a node.json)")
    reports = []
    for node in nodes:
        others = [other for other in nodes if other != node]
        try:
            report = verify_node_folder(
                node,
                others=others,
                network=network,
                cosignatures_needed=cosignatures_needed,
                on_progress=on_progress,
            )
        except Error as problem:
            details = {"node": node.name, **problem.details}
            raise type(problem)(problem.code, f"{node.name}: {problem.message}", details=details) from problem
        reports.append(report)
    return NetworkReport(network=reports[0].directory.network, nodes=reports)


def _is_of(folder: Path, token: str) -> bool:
    """Whether a node's folder is of this node."""
    try:
        return msgspec.json.decode(read_file(folder / "node.json"), type=_Settings).token == token
    except (msgspec.DecodeError, UnicodeError, NotFoundError):
        return False


def _directory(folder: Path, others: Sequence[Path], network: str | None) -> VerifiedDirectory:
    """The node's replica, or the newest of the others', with the cosignatures that all have of the same head.

    Each node's folder only has the cosignatures it was told of, so one is asked for: what is verified here is the
    execution, and the order is the one that this node and its peers followed.
    """
    if any((one / LIGHT).is_file() for one in (folder, *others)):
        return _committed_directory(folder, others, network)
    notes: dict[Path, bytes] = {}
    for one in (folder, *others):
        try:
            notes[one] = read_file(one / DIRECTORY_LOG / CHECKPOINT_PATH)
        except NotFoundError:
            continue
    if not notes:
        raise NotFoundError("no-directory", f"neither {folder} nor a folder beside it has a copy of the directory")
    source = folder if folder in notes else max(notes, key=lambda one: parse_unverified_checkpoint(notes[one]).size)
    return verify_directory(
        folder_fetch(source / DIRECTORY_LOG),
        read_file(source / "genesis.json"),
        network=network,
        needed=1,
        more_notes=[note for one, note in notes.items() if one != source],
    )


def _committed_directory(folder: Path, others: Sequence[Path], network: str | None) -> VerifiedDirectory:
    """The node's replica, or another's where the copy has none, under the blocks that the validators committed."""
    found = {one: read_file(one / LIGHT) for one in (folder, *others) if (one / LIGHT).is_file()}
    source = folder if folder in found else next(iter(found))
    return verify_committed(
        load_blocks(source / DIRECTORY_DB),
        found[source],
        read_file(source / "genesis.json"),
        network=network,
        others=[light for one, light in found.items() if one != source],
    )


def _check_vkey(folder: Path, verifier: Verifier) -> None:
    try:
        found = parse_vkey(read_file(folder / "log.vkey").decode("utf-8", "replace").strip())
    except NotFoundError:
        return
    if found != verifier:
        raise VerificationError(
            "wrong-key", f"{folder}/log.vkey is not the key that the directory has for this node's log"
        )


def _witnessed(others: Sequence[Path], verifier: Verifier) -> list[Known]:
    found: list[Known] = []
    for other in others:
        try:
            found += witnessed_in(other / WITNESS_DB, verifier=verifier, source=f"what {other.name} cosigned")
        except NotFoundError:
            continue
    return found
