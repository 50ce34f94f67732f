"""Whose key was in force when: at the height of an entry, not at the end of the story."""

import pytest

from careledger.verify.moments import GRACE_MS


def rotated_at(history, token):
    """(height, time) of the block with the identity's last operation."""
    newest = history.at(history.height).identity(token)
    height = next(at for at in range(history.height + 1) if history.at(at).identity(token) == newest)
    return height, newest.effective_at


def test_a_superseded_key_counts_only_before_its_end_and_a_moment_after(story, auditor):
    history = auditor.directory.history
    height, time = rotated_at(history, story.patient)
    old, new = f"{story.patient}#0", f"{story.patient}#1"
    assert history.keys(height - 1, time - 1)[old]
    assert history.keys(height, time + GRACE_MS)[old]
    with pytest.raises(KeyError):
        history.keys(height, time + GRACE_MS + 1)[old]
    assert history.keys(height, time + GRACE_MS + 1, superseded=True)[old]
    assert history.keys(height, time + GRACE_MS + 1)[new]


def test_a_later_key_does_not_count_before(story, auditor):
    """Although the history has met it already."""
    history = auditor.directory.history
    height, time = rotated_at(history, story.patient)
    new = f"{story.patient}#1"
    assert history.keys(height, time)[new]
    for superseded in (False, True):
        with pytest.raises(KeyError):
            history.keys(height - 1, time, superseded=superseded)[new]


def test_only_the_keys_of_those_who_may_sign(story, auditor):
    history = auditor.directory.history
    height, time = rotated_at(history, story.patient)
    name = f"{story.patient}#1"
    assert history.keys(height, time, story.patient, story.gone)[name]
    with pytest.raises(KeyError):
        history.keys(height, time, story.gone)[name]


@pytest.mark.parametrize("name", ["nobody#0", "nobody", "", "#"])
def test_what_is_no_known_keyid(auditor, name):
    with pytest.raises(KeyError):
        auditor.directory.history.keys(1, 0)[name]


def test_a_deactivated_identity_has_no_key(story, auditor):
    history = auditor.directory.history
    height, time = rotated_at(history, story.gone)
    assert history.at(height).identity(story.gone).status == "deactivated"
    for superseded in (False, True):
        with pytest.raises(KeyError):
            history.keys(height, time, superseded=superseded)[f"{story.gone}#1"]
    assert history.keys(height, time, superseded=True)[f"{story.gone}#0"]
    with pytest.raises(KeyError):
        history.keys(height, time + GRACE_MS + 1)[f"{story.gone}#0"]


def test_keys_are_looked_up_and_not_listed(auditor):
    keys = auditor.directory.history.keys(1, 0)
    with pytest.raises(TypeError):
        list(keys)
    with pytest.raises(TypeError):
        len(keys)
