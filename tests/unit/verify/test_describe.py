"""What lies at a path is told from names and first bytes."""

import sqlite3

import pytest

from careledger.errors import MalformedError, NotFoundError, UnavailableError
from careledger.tlog import CHECKPOINT_PATH
from careledger.verify import describe_file, describe_folder, folder_fetch, load_bodies, witnessed_in


def form(folder):
    return describe_folder([one.name for one in folder.iterdir()], folder_fetch(folder))


def test_folders(story, tmp_path):
    assert form(story.node(1)) == "node"
    assert form(story.node(1) / "log") == "log"
    assert form(story.node(1) / "directory" / "log") == "directory"
    assert form(story.nodes) == "network"
    assert form(story.export) == "export"
    assert form(tmp_path) == "unknown"
    (tmp_path / "checkpoint").write_bytes(b"garbage")
    assert form(tmp_path) == "log"


def test_files(story):
    assert describe_file(next(iter(story.receipts.values()))[:4096]) == "receipt"
    assert describe_file(story.proof[:4096]) == "directory-proof"
    assert describe_file((story.export / "proofs.careledger").read_bytes()[:4096]) == "export"
    assert describe_file((story.node(1) / "log" / CHECKPOINT_PATH).read_bytes()) == "checkpoint"
    assert describe_file(b"c2sp.org/tlog-proof@v1\nindex 0\n") == "tlog-proof"
    assert describe_file(b"") == "unknown"
    assert describe_file(b"{}") == "unknown"


def test_a_fetch_never_leaves_its_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_bytes(b"s")
    fetch = folder_fetch(tmp_path / "inside")
    for path in ("../secret", "/etc/passwd", "tile/../../secret", "", "missing"):
        with pytest.raises(NotFoundError):
            fetch(path)


def test_a_file_too_large_for_a_log_is_not_read(tmp_path):
    with (tmp_path / "checkpoint").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(MalformedError):
        folder_fetch(tmp_path)("checkpoint")


def test_the_store_is_opened_read_only(operator):
    node = operator(1)
    path = node.folder / "store" / "main.db"
    before = path.read_bytes()
    with load_bodies(path) as store:
        assert store.bodies(0, 2)[0] is not None
        with pytest.raises(sqlite3.OperationalError):
            store._db.execute("DELETE FROM entries")
    assert path.read_bytes() == before


def test_what_is_no_store(tmp_path, auditor):
    with pytest.raises(NotFoundError):
        load_bodies(tmp_path / "main.db")
    (tmp_path / "main.db").write_bytes(b"not a database at all, whatever its name")
    with pytest.raises(UnavailableError):
        load_bodies(tmp_path / "main.db")
    verifier = auditor.trust.log(auditor.tokens[1])
    with pytest.raises(UnavailableError):
        witnessed_in(tmp_path / "main.db", verifier=verifier, source="x")
    with pytest.raises(NotFoundError):
        witnessed_in(tmp_path / "none.db", verifier=verifier, source="x")
