"""Honest nodes verify completely, also while they go on."""

import shutil

import pytest

from careledger.errors import NotFoundError, VerificationError
from careledger.tlog import CHECKPOINT_PATH
from careledger.verify import node_folder, verify_network_folder, verify_node_folder


def test_every_entry_and_decision_of_an_honest_network_is_verified(story):
    report = verify_network_folder(story.nodes, network=story.network)
    assert report.network == story.network and len(report.nodes) == 4
    for one in report.nodes:
        log = one.log
        assert log.bodies == log.size == sum(log.kinds.values()) and log.erased == log.withheld == 0
        assert log.extends > 0 and log.vouched > 0
        assert set(log.not_replayed) <= {"denied-contribution"}, log.not_replayed
        assert log.decisions >= 3 and log.signatures > log.decisions
        assert one.directory.height > 3
    kinds = [one.log.kinds for one in report.nodes]
    assert all(kind["keep"] and kind["access"] for kind in kinds)
    assert sum(kind["system"] for kind in kinds) > 0, "a peer handed out what node-4 had missed"


def test_a_log_that_is_published_while_it_is_verified_is_not_called_rolled_back(operator, story, monkeypatch):
    """The node's peers have cosigned and anchored what its folder shows a moment later."""
    node, newer = operator(1), story.node(1) / "log"
    node.publish(leaves=node.leaves()[:-3])
    read = node_folder.verify_log

    def published_meanwhile(fetch, **options):
        try:
            return read(fetch, **options)
        finally:
            shutil.rmtree(node.folder / "log")
            shutil.copytree(newer, node.folder / "log")

    monkeypatch.setattr(node_folder, "verify_log", published_meanwhile)
    assert verify_node_folder(node.folder).log.size > 0
    monkeypatch.undo()
    node.publish(leaves=node.leaves()[:-3])
    assert (node.folder / "log" / CHECKPOINT_PATH).read_bytes() != (newer / CHECKPOINT_PATH).read_bytes()
    with pytest.raises(VerificationError) as caught:
        verify_node_folder(node.folder)
    assert caught.value.code == "rolled-back"


def test_a_folder_without_nodes(tmp_path):
    with pytest.raises(NotFoundError) as caught:
        verify_network_folder(tmp_path)
    assert caught.value.code == "no-node"
