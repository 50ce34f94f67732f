"""Whatever a crash leaves of the published log, a restart mends it from the store.

Files are written without a sync (only the store is the commit point), so after a power cut any of them may be missing,
empty, cut off or full of zeros. Each is damaged in each of these ways here; then the files are opened again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from careledger.access import leaf
from careledger.custody.published import LogFiles
from careledger.custody.store import EntryRow, Store
from careledger.errors import VerificationError
from careledger.tlog import (
    Checkpoint,
    Ed25519SigningKey,
    Frontier,
    Signer,
    leaf_hash,
    open_checkpoint,
    sign_checkpoint,
)
from careledger.verify import folder_fetch, verify_log

ENTRIES = 560
"""Two full bundles and tiles, and partial ones on two levels."""
SIGNER = Signer("0123456789abcdef/cl1test", Ed25519SigningKey(bytes(range(32))))


def body_of(index: int) -> tuple[bytes, bytes]:
    return hashlib.sha256(b"salt %d" % index).digest(), b'{"index":%d}' % index


def commit(store: Store, start: int, end: int) -> list[bytes]:
    """Entries start..end-1, as the writer commits them; returns their leaves."""
    size, hashes = store.log_state()
    assert size == start
    frontier = Frontier(size, hashes)
    leaves = [leaf("keep", *body_of(index)) for index in range(start, end)]
    rows: list[EntryRow] = []
    for index, text in enumerate(leaves, start=start):
        salt, body = body_of(index)
        rows.append((index, 0, bytes.fromhex(text[-64:].decode()), salt, body, None))
    frontier.append_batch([leaf_hash(text) for text in leaves])
    store.commit(rows, [], [], (frontier.size, b"".join(frontier.hashes)))
    return leaves


def publish(files: LogFiles) -> bytes:
    size, root = files.write()
    note = sign_checkpoint(Checkpoint(SIGNER.name, size, root), signer=SIGNER)
    files.publish(note)
    return note


def check(folder: Path, size: int) -> None:
    """The log is whole, and the one of the store."""
    note = (folder / "checkpoint").read_bytes()
    assert open_checkpoint(note, verifier=SIGNER.verifier).size == size
    verify_log(folder_fetch(folder), verifier=SIGNER.verifier)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ENTRIES entries with its published log; the last twenty entries are not published yet."""
    folder = tmp_path_factory.mktemp("log")
    store = Store(folder / "store")
    files = LogFiles(folder / "log", store, verifier=SIGNER.verifier)
    files.add(commit(store, 0, 300))
    publish(files)
    files.add(commit(store, 300, ENTRIES - 20))
    publish(files)
    commit(store, ENTRIES - 20, ENTRIES)
    store.close()
    return folder


def _remove(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(bytes(data))


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\x00more")


DAMAGES: list[Callable[[Path], None]] = [_remove, _empty, _cut, _zeros, _flip, _longer]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_each_file_of_the_log_is_mended_from_the_store_at_the_next_start(
    made: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    store = Store(made / "store")
    names = sorted(str(path.relative_to(made / "log")) for path in (made / "log").rglob("*") if path.is_file())
    assert "checkpoint" in names
    assert sum("entries" in name for name in names) >= 3
    for name in names:
        folder = tmp_path / "log"
        shutil.copytree(made / "log", folder)
        damage(folder / name)
        files = LogFiles(folder, store, verifier=SIGNER.verifier)
        publish(files)
        check(folder, ENTRIES)
        shutil.rmtree(folder)
    store.close()


def test_a_kill_after_each_written_file_is_mended(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two renames, so also between the tiles and the checkpoint that covers them."""
    store = Store(made / "store")
    real = os.replace
    for survived in range(12):
        folder = tmp_path / "log"
        shutil.copytree(made / "log", folder)
        before = (folder / "checkpoint").read_bytes()
        files = LogFiles(folder, store, verifier=SIGNER.verifier)
        left = [survived]

        def die(source: str, target: str, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            real(source, target)

        monkeypatch.setattr(os, "replace", die)
        try:
            publish(files)
        except KeyboardInterrupt:
            died = True
        else:
            died = False
        monkeypatch.setattr(os, "replace", real)
        if died:
            assert (folder / "checkpoint").read_bytes() == before, "the checkpoint is what is written last"
            check(folder, ENTRIES - 20)
        publish(LogFiles(folder, store, verifier=SIGNER.verifier))
        check(folder, ENTRIES)
        shutil.rmtree(folder)
        if not died:
            assert survived >= 3, "tile, bundle and checkpoint are three files"
            break
    else:
        pytest.fail("publishing twenty entries writes more than twelve files")
    store.close()


def test_a_folder_that_is_gone_is_built_again(made: Path, tmp_path: Path) -> None:
    store = Store(made / "store")
    publish(LogFiles(tmp_path / "nothing", store, verifier=SIGNER.verifier))
    check(tmp_path / "nothing", ENTRIES)
    store.close()


def test_an_older_store_under_a_newer_checkpoint_is_refused_not_mended(made: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    commit(store, 0, 300)
    shutil.copytree(made / "log", tmp_path / "log")
    with pytest.raises(VerificationError) as refused:
        LogFiles(tmp_path / "log", store, verifier=SIGNER.verifier)
    assert refused.value.code == "rolled-back"
    assert "540" in str(refused.value) and "300" in str(refused.value)
    store.close()
