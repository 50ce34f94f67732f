"""Honest nodes verify completely."""

from careledger.verify import verify_network_folder


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
