"""What a log once was: rollback, fork and rewriting, by what others keep of it."""

import shutil
import sqlite3

import pytest

from careledger.access import leaf_of_commitment
from careledger.errors import Error, NotFoundError, UnavailableError, VerificationError
from careledger.tlog import (
    CHECKPOINT_PATH,
    Checkpoint,
    TileReader,
    decode_entries,
    entries_path,
    open_checkpoint,
    parse_unverified_checkpoint,
    tail_of_entries,
    tile_path,
)
from careledger.verify import (
    Known,
    anchors_in,
    first_divergence,
    folder_fetch,
    index_of,
    network_above,
    node_folders,
    verify_extends,
    verify_log,
    verify_network_folder,
    verify_node_folder,
    witnessed_in,
)
from careledger.verify.history import check_known


def entries(size, *, changed=()):
    return [leaf_of_commitment("keep", (at + (10**6 if at in changed else 0)).to_bytes(32)) for at in range(size)]


def log(size, *, changed=()):
    tail, files = tail_of_entries(entries(size, changed=changed))

    def fetch(path):
        if path not in files:
            raise NotFoundError("not-found", f"there is no {path}")
        return files[path]

    return fetch, Checkpoint("x/log", size, tail.root())


@pytest.mark.parametrize(("old", "new"), [(0, 5), (1, 1), (255, 300), (256, 256), (600, 700), (700, 70_000)])
def test_a_log_that_grew_extends_what_it_was(old, new):
    _, before = log(old)
    fetch, now = log(new)
    verify_extends(fetch, old=before, new=now)


@pytest.mark.parametrize("victim", [0, 100, 255, 256, 511, 599])
def test_a_rewritten_entry_is_named_with_the_old_tiles_at_hand(victim):
    old_fetch, before = log(600)
    fetch, now = log(700, changed=[victim])
    with pytest.raises(VerificationError) as caught:
        verify_extends(fetch, old=before, new=now)
    assert caught.value.code == "rewritten"
    assert index_of(caught.value) is None
    assert caught.value.details["first"] == 0
    assert caught.value.details["last"] == 599
    with pytest.raises(VerificationError) as caught:
        verify_extends(fetch, old=before, new=now, old_fetch=old_fetch)
    assert caught.value.code == "rewritten"
    assert index_of(caught.value) == victim


def test_two_roots_of_one_size_are_a_fork():
    old_fetch, before = log(300)
    fetch, now = log(300, changed=[7, 200])
    with pytest.raises(VerificationError) as caught:
        verify_extends(fetch, old=before, new=now, old_fetch=old_fetch)
    assert caught.value.code == "fork"
    assert index_of(caught.value) == 7


def test_a_shorter_log_was_rolled_back():
    _, before = log(300)
    fetch, now = log(299)
    with pytest.raises(VerificationError) as caught:
        verify_extends(fetch, old=before, new=now, source="an anchor")
    assert caught.value.code == "rolled-back"
    assert "an anchor" in caught.value.message


def test_more_checkpoints_narrow_down_where_a_log_was_rewritten():
    fetch, now = log(700, changed=[333])
    known = [Known(size=size, root=log(size)[1].root.hex(), source=f"size {size}") for size in (600, 100, 340, 320)]
    reader = TileReader(fetch, size=700, root=now.root)
    with pytest.raises(VerificationError) as caught:
        check_known(reader, known, origin="x/log")
    assert (caught.value.details["first"], caught.value.details["last"]) == (320, 339)
    assert index_of(caught.value) is None
    known += [Known(size=size, root=log(size)[1].root.hex(), source="exact") for size in (333, 334)]
    with pytest.raises(VerificationError) as caught:
        check_known(reader, known, origin="x/log")
    assert index_of(caught.value) == 333


def test_the_first_divergence_of_logs_of_different_sizes():
    for old, new, changed in ((300, 700, [299]), (700, 300, [0]), (70_000, 70_001, [65_537])):
        first, second = log(old), log(new, changed=changed)
        readers = [TileReader(fetch, size=at.size, root=at.root) for fetch, at in (first, second)]
        assert first_divergence(*readers) == changed[0]
    same = [log(300), log(700)]
    readers = [TileReader(fetch, size=at.size, root=at.root) for fetch, at in same]
    assert first_divergence(*readers) is None


# A real node, whose operator rewrites an entry, rebuilds all tiles and signs with the node's own key


def rewritten(operator, index):
    """A leaf that commits to another salt: nothing in the entry itself can be objected to."""
    node = operator(1)
    kind, _, body = node.entry(index)
    node.execute("UPDATE entries SET salt = ? WHERE idx = ?", (b"s" * 32, index))
    node.put(index, body, kind=kind)
    node.publish()
    return node


def test_a_rewritten_and_signed_log_holds_by_itself(operator, audit_decisions):
    """Which is why cosignatures and anchors exist: this test fails if they are not needed any more."""
    assert audit_decisions(rewritten(operator, 6)).bodies > 6


def test_cosignatures_catch_a_rewritten_and_signed_log(operator, auditor):
    node = rewritten(operator, 6)
    with pytest.raises(UnavailableError) as caught:
        verify_log(folder_fetch(node.folder / "log"), **auditor.options(1))
    assert caught.value.code == "not-enough-cosignatures"


def test_anchors_catch_a_rewritten_and_signed_log_and_narrow_it_down(operator, auditor):
    anchors = anchors_in(auditor.directory.history.blocks, node=auditor.tokens[1])
    assert len(anchors) > 1
    victim = anchors[0].size
    node = rewritten(operator, victim)
    with pytest.raises(VerificationError) as caught:
        verify_node_folder(node.folder)
    assert caught.value.code == "rewritten"
    assert caught.value.details["first"] <= victim <= caught.value.details["last"]
    assert caught.value.details["first"] == victim
    assert "anchor" in str(caught.value.details["source"])


def test_what_other_nodes_cosigned_catches_a_rewritten_log(operator, auditor, story):
    verifier = auditor.trust.log(auditor.tokens[1])
    known = witnessed_in(story.node(2) / "witness.db", verifier=verifier, source="node-2")
    assert len(known) == 1
    node = rewritten(operator, 6)
    with pytest.raises(VerificationError) as caught:
        verify_log(folder_fetch(node.folder / "log"), verifier=verifier, known=known)
    assert caught.value.code in ("rewritten", "fork")
    assert caught.value.details["source"] == "node-2"


def test_an_older_copy_names_the_rewritten_entry(operator, auditor, story):
    verifier = auditor.trust.log(auditor.tokens[1])
    copy, node = folder_fetch(story.node(1) / "log"), rewritten(operator, 6)
    fetch = folder_fetch(node.folder / "log")
    old = open_checkpoint(copy(CHECKPOINT_PATH), verifier=verifier)
    new = open_checkpoint(fetch(CHECKPOINT_PATH), verifier=verifier)
    with pytest.raises(VerificationError) as caught:
        verify_extends(fetch, old=old, new=new, old_fetch=copy)
    assert index_of(caught.value) == 6


def test_an_entry_that_contradicts_the_rules_in_a_rewritten_log_is_called_rewritten(operator, auditor):
    node = operator(1)
    index = node.find(kind="keep", reason="inbox")
    node.change(index, decision="deny")
    node.publish()
    with pytest.raises(VerificationError) as caught:
        verify_node_folder(node.folder)
    assert (caught.value.code, index_of(caught.value)) == ("rewritten", index + 1)


def test_a_bare_copy_is_judged_by_the_network_it_lies_in(operator, story):
    """Only log, store and key were copied, as an auditor would: the rest comes from the nodes beside it, and the node's
    own log names the entry."""
    node = rewritten(operator, 6)
    for name in ("genesis.json", "node.json", "directory", "witness.db"):
        path = node.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(NotFoundError):
        verify_node_folder(node.folder)
    with pytest.raises(VerificationError) as caught:
        verify_node_folder(node.folder, others=node_folders(story.nodes))
    assert caught.value.code in ("rewritten", "fork")
    assert index_of(caught.value) == 6
    shutil.rmtree(node.folder / "store")
    with pytest.raises(VerificationError) as caught:
        verify_node_folder(node.folder, others=node_folders(story.nodes))
    assert index_of(caught.value) == 6


def test_an_honest_bare_copy_holds(operator, story):
    node = operator(2)
    for name in ("genesis.json", "node.json", "directory", "witness.db", "log.vkey", "store"):
        path = node.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    report = verify_node_folder(node.folder, others=node_folders(story.nodes))
    assert report.log.withheld == report.log.size
    assert report.log.vouched > 0


def test_the_network_above_a_path(story, tmp_path):
    assert network_above(story.node(1) / "log") == story.nodes
    assert network_above(story.nodes) == story.nodes
    assert network_above(tmp_path) is None


def test_a_rolled_back_node_is_caught_by_its_anchor(operator):
    node = operator(1)
    (count,) = (len(node.leaves()),)
    node.execute("DELETE FROM entries WHERE idx >= ?", (count - 3,))
    node.publish()
    with pytest.raises(VerificationError) as caught:
        verify_node_folder(node.folder)
    assert caught.value.code == "rolled-back"


@pytest.mark.parametrize("place", ["bundle", "tile"])
def test_a_network_of_folders_names_node_and_entry_that_were_tampered_with(story, tmp_path, place):
    shutil.copytree(story.nodes, tmp_path / "all")
    path = tmp_path / "all" / "node-3" / "log"
    size = parse_unverified_checkpoint((path / CHECKPOINT_PATH).read_bytes()).size
    file = path / (entries_path(0, size) if place == "bundle" else tile_path(0, 0, size))
    data = bytearray(file.read_bytes())
    at = 32 * 9 + 1 if place == "tile" else sum(len(one) + 2 for one in decode_entries(bytes(data))[:9]) + 50
    data[at] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(Error) as caught:
        verify_network_folder(tmp_path / "all")
    assert caught.value.details["node"] == "node-3"
    assert caught.value.code not in ("rewritten", "fork")
    assert index_of(caught.value) == 9
    assert caught.value.message.startswith("node-3: ")


def test_another_key_beside_the_log_than_the_directory_has(operator, story):
    node = operator(1)
    (node.folder / "log.vkey").write_bytes((story.node(2) / "log.vkey").read_bytes())
    with pytest.raises(VerificationError) as caught:
        verify_node_folder(node.folder)
    assert caught.value.code == "wrong-key"


def test_a_folder_of_another_network_than_expected(operator):
    with pytest.raises(VerificationError) as caught:
        verify_node_folder(operator(1).folder, network="0" * 64)
    assert caught.value.code == "wrong-network"


def test_a_witness_cannot_accuse_a_log_of_what_its_key_did_not_sign(operator, story, auditor):
    other = operator(2)
    db = sqlite3.connect(other.folder / "witness.db")
    with db:
        for name, checkpoint in db.execute("SELECT origin, checkpoint FROM cosigned").fetchall():
            origin, size, root, rest = checkpoint.split(b"\n", 3)
            other_root = (b"B" if root.startswith(b"A") else b"A") + root[1:]
            forged = b"\n".join((origin, size, other_root, rest))
            db.execute("UPDATE cosigned SET checkpoint = ? WHERE origin = ?", (forged, name))
    db.close()
    verifier = auditor.trust.log(auditor.tokens[1])
    assert witnessed_in(other.folder / "witness.db", verifier=verifier, source="liar") == []
