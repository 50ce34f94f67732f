"""Bodies: each is its leaf's and says so itself; what is missing was erased by an entry that says so."""

import msgspec
import pytest

from careledger.errors import Error, VerificationError
from careledger.verify import bodies_of, folder_fetch, index_of, load_bodies, verify_log


def refusal(run, *args):
    with pytest.raises(Error) as caught:
        run(*args)
    return caught.value.code, index_of(caught.value)


def test_a_changed_body_is_named(operator, audit_decisions):
    node = operator(1)
    index = node.find(kind="keep", reason="manifest")
    _, _, body = node.entry(index)
    for at in range(0, len(body), 97):
        changed = bytearray(body)
        changed[at] ^= 1
        node.execute("UPDATE entries SET body = ? WHERE idx = ?", (bytes(changed), index))
        assert refusal(audit_decisions, node) == ("bad-body", index)


def test_a_changed_salt_is_named(operator, audit_decisions):
    node = operator(1)
    node.execute("UPDATE entries SET salt = ? WHERE idx = 3", (bytes(32),))
    assert refusal(audit_decisions, node) == ("bad-body", 3)
    node.execute("UPDATE entries SET salt = ? WHERE idx = 3", (b"",))
    assert refusal(audit_decisions, node) == ("bad-body", 3)


def test_the_first_of_several_wrong_bodies_is_named(operator, audit_decisions):
    node = operator(1)
    for index in (9, 5, 7):
        node.execute("UPDATE entries SET body = ? WHERE idx = ?", (b"{}", index))
    assert refusal(audit_decisions, node) == ("bad-body", 5)


def test_a_wrong_body_before_a_wrong_tile_is_the_first(operator, auditor):
    """Bodies and files are walked together, so the first bad index is the first of either."""
    node = operator(1)
    node.execute("UPDATE entries SET body = ? WHERE idx = 4", (b"{}",))
    with load_bodies(node.folder / "store" / "main.db") as store:
        fetch = folder_fetch(node.folder / "log")
        size = verify_log(fetch, verifier=auditor.trust.log(auditor.tokens[1])).size
        assert store.size >= size
        last = f"tile/entries/000.p/{size}" if size < 256 else None
        assert last is not None, "the story is a short log"

        def changed(path):
            data = bytearray(fetch(path))
            if path == last:
                data[-1] ^= 1
            return bytes(data)

        with pytest.raises(VerificationError) as caught:
            verify_log(changed, verifier=auditor.trust.log(auditor.tokens[1]), bodies=store.bodies)
    assert (caught.value.code, index_of(caught.value)) == ("bad-body", 4)


def test_the_body_of_another_entry_is_refused_although_its_leaf_fits(operator, audit_decisions):
    """The operator copies entry 2 (leaf and all) over entry 3 and signs anew."""
    node = operator(1)
    kind, _, body = node.entry(2)
    node.put(3, body, kind=kind)
    node.publish()
    assert refusal(audit_decisions, node) == ("wrong-entry", 3)


def test_a_body_of_another_kind_than_its_leaf_is_refused(operator, audit_decisions):
    node = operator(1)
    index = node.find(kind="access")
    node.put(index, node.entry(index)[2], kind="system")
    node.publish()
    assert refusal(audit_decisions, node) == ("wrong-entry", index)


def test_a_body_of_another_node_or_network_is_refused(operator, audit_decisions, auditor):
    node = operator(1)
    node.change(2, node=auditor.tokens[2])
    node.publish()
    assert refusal(audit_decisions, node) == ("wrong-entry", 2)
    node.change(2, node=auditor.tokens[1], network="0" * 64)
    node.publish()
    assert refusal(audit_decisions, node) == ("wrong-entry", 2)


def test_a_body_that_is_not_canonical_is_refused(operator, audit_decisions):
    node = operator(1)
    body = node.entry(2)[2]
    node.put(2, body.replace(b'"v":1', b'"v": 1'))
    node.publish()
    assert refusal(audit_decisions, node) == ("not-canonical", 2)
    node.put(2, body.replace(b'"v":1', b'"v":2'))
    node.publish()
    assert refusal(audit_decisions, node) == ("bad-field", 2)


@pytest.mark.parametrize("kind", ["access", "system", "keep"])
def test_a_missing_body_that_nothing_erased_is_named(with_entry, audit_decisions, kind):
    node, index = with_entry(kind=kind)
    node.execute("UPDATE entries SET body = NULL, salt = NULL WHERE idx = ?", (index,))
    assert refusal(audit_decisions, node) == ("missing-body", index)


def manifest_and_template(node):
    index = node.find(kind="keep", reason="manifest")
    body = msgspec.json.decode(node.entry(index)[2])
    del body["manifest"]
    return index, {**body, "decision": "accept", "reason": "erase", "consent_seq": 0, "consent_hash": "0" * 64}


def test_an_erased_body_is_excused_by_a_later_entry_that_names_it(operator, audit_decisions):
    node = operator(1)
    index, template = manifest_and_template(node)
    node.append("erase", {**template, "details": {"erased": [index]}})
    node.execute("UPDATE entries SET body = NULL, salt = NULL WHERE idx = ?", (index,))
    node.publish()
    report = audit_decisions(node)
    assert report.erased == 1
    assert report.kinds["erase"] == 1
    assert report.not_replayed["erased-manifest"] >= 1


@pytest.mark.parametrize("change", [{"decision": "deny"}, {"details": {"erased": []}}, {"details": {"erased": [0]}}])
def test_an_erase_entry_that_was_refused_or_names_another_one_excuses_nothing(operator, audit_decisions, change):
    node = operator(1)
    index, template = manifest_and_template(node)
    node.append("erase", {**template, "details": {"erased": [index]}, **change})
    node.execute("UPDATE entries SET body = NULL, salt = NULL WHERE idx = ?", (index,))
    node.publish()
    assert refusal(audit_decisions, node) == ("missing-body", index)


@pytest.mark.parametrize("erased", ["all", 5, [-1], [10**6], [True], [1.5], ["0"]])
def test_an_erase_entry_can_only_name_earlier_entries(operator, audit_decisions, erased):
    node = operator(1)
    _, template = manifest_and_template(node)
    index = node.append("erase", {**template, "details": {"erased": erased}})
    node.publish()
    code, at = refusal(audit_decisions, node)
    assert at == index
    assert code in ("wrong-entry", "bad-field")


def test_an_erase_entry_cannot_erase_an_access(operator, audit_decisions):
    node = operator(1)
    _, template = manifest_and_template(node)
    index = node.append("erase", {**template, "details": {"erased": [node.find(kind="access")]}})
    node.publish()
    assert refusal(audit_decisions, node) == ("wrong-entry", index)


def test_a_missing_body_is_named_before_a_later_wrong_one(operator, audit_decisions):
    node = operator(1)
    index = node.find(kind="keep", reason="manifest")
    node.execute("UPDATE entries SET body = NULL, salt = NULL WHERE idx = ?", (index,))
    node.execute("UPDATE entries SET body = ? WHERE idx = ?", (b"{}", index + 20))
    assert refusal(audit_decisions, node) == ("missing-body", index)


def test_an_erased_body_does_not_hide_a_later_wrong_one(operator, audit_decisions):
    """The erase entry comes after the wrong body: it excuses the missing one all the same."""
    node = operator(1)
    index, template = manifest_and_template(node)
    node.append("erase", {**template, "details": {"erased": [index]}})
    node.execute("UPDATE entries SET body = NULL, salt = NULL WHERE idx = ?", (index,))
    node.publish()
    node.execute("UPDATE entries SET body = ? WHERE idx = ?", (b"{}", index + 20))
    assert refusal(audit_decisions, node) == ("bad-body", index + 20)


def test_a_source_of_bodies_that_gives_too_few_is_a_bug(operator, auditor):
    fetch = folder_fetch(operator(1).folder / "log")
    with pytest.raises(AssertionError):
        verify_log(fetch, verifier=auditor.trust.log(auditor.tokens[1]), bodies=lambda start, end: [])


def test_bodies_can_come_from_a_function_of_one_index(operator, auditor):
    node = operator(1)
    bodies = bodies_of(lambda index: node.entry(index)[1:])
    report = verify_log(folder_fetch(node.folder / "log"), verifier=auditor.trust.log(auditor.tokens[1]), bodies=bodies)
    assert report.bodies == report.size
    assert report.decisions == 0, "without the directory nothing is decided again"
