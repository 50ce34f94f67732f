"""A node's folder and a whole network of them: every check there is, put together in the order they rest on each other.

genesis -> directory (executed again) -> keys, anchors -> the node's log, its bodies and decisions, compared with the
anchors and with what the other nodes have cosigned of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from careledger.errors import Error, MalformedError, NotFoundError, VerificationError
from careledger.tlog import CHECKPOINT_PATH, Verifier, parse_vkey
from careledger.verify.directory import VerifiedDirectory, verify_directory
from careledger.verify.folder import folder_fetch, load_bodies, read_file, witnessed_in
from careledger.verify.history import anchors_in
from careledger.verify.log import verify_log
from careledger.verify.report import Known, NetworkReport, NodeReport
from careledger.verify.trust import trust_of_directory

__all__ = ["node_folders", "verify_network_folder", "verify_node_folder"]

DIRECTORY_LOG: Final = "directory/log"
MAIN_DB: Final = "store/main.db"
WITNESS_DB: Final = "witness.db"


class _Settings(msgspec.Struct):
    token: str


def node_folders(folder: Path) -> list[Path]:
    """The nodes' folders inside a network's folder, by name."""
    return sorted(one.parent for one in folder.glob("*/node.json"))


def verify_node_folder(
    folder: Path,
    *,
    others: Sequence[Path] = (),
    network: str | None = None,
    cosignatures_needed: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NodeReport:
    """Verify a node's folder (or a copy): its directory, then its log with bodies, signatures and decisions.

    `others`: folders of other nodes of the network; their cosignatures of the directory and what they have cosigned of
    this node's log are compared too. `network`: its name, where the caller knows it. `cosignatures_needed` of other
    members on the log's newest checkpoint; None: ⌊2m/3⌋ where there is no earlier checkpoint to compare with, else none
    (a node that stops has entries that nobody cosigned any more: `vouched` says up to where others vouch).
    Raises as `verify_directory` and `verify_log`; VerificationError `wrong-key`: log.vkey isn't the key that the
    directory has; NotFoundError when files are missing.
    """
    token = _token(folder)
    genesis = read_file(folder / "genesis.json")
    directory = _directory(folder, genesis, others, network)
    trust = trust_of_directory(directory.directory)
    verifier = trust.log(token)
    _check_vkey(folder, verifier)
    known = [*anchors_in(directory.history.blocks, node=token), *_witnessed(others, verifier)]
    needed = cosignatures_needed
    if needed is None:
        needed = 0 if known else trust.log_needed
    with load_bodies(folder / MAIN_DB) as store:
        log = verify_log(
            folder_fetch(folder / "log"),
            verifier=verifier,
            witnesses=trust.witnesses(besides=token),
            cosignatures_needed=needed,
            known=known,
            bodies=store.bodies,
            history=directory.history,
            documents=store.document,
            on_progress=on_progress,
        )
    return NodeReport(node=token, directory=directory.report, log=log)


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


def _token(folder: Path) -> str:
    try:
        return msgspec.json.decode(read_file(folder / "node.json"), type=_Settings).token
    except msgspec.DecodeError:
        raise MalformedError("bad-settings", f"{folder}/node.json does not name a node") from None


def _directory(folder: Path, genesis: bytes, others: Sequence[Path], network: str | None) -> VerifiedDirectory:
    """The node's replica, with the cosignatures that the others have of the same head. Each node's own folder only has
    those it was told of, so without the others fewer are asked for: the node's own execution is what is verified."""
    notes: list[bytes] = []
    for other in others:
        try:
            notes.append(read_file(other / DIRECTORY_LOG / CHECKPOINT_PATH))
        except NotFoundError:
            continue
    fetch = folder_fetch(folder / DIRECTORY_LOG)
    return verify_directory(fetch, genesis, network=network, needed=1, more_notes=notes)


def _check_vkey(folder: Path, verifier: Verifier) -> None:
    found = parse_vkey(read_file(folder / "log.vkey").decode("utf-8", "replace").strip())
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
