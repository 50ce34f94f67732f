"""Decisions and signatures: an operator that enters something else than the rules say is caught by its own log."""

import msgspec
import pytest

from careledger.consent import CONSENT_TYPE
from careledger.errors import Error
from careledger.seal import Envelope, SigningKey, encode, envelope_message_id, sign, unb64
from careledger.verify import index_of


def refusal(run, *args):
    with pytest.raises(Error) as caught:
        run(*args)
    return caught.value.code, index_of(caught.value)


def signed_again(node, audit, index, **fields):
    """The operator rewrites an entry, rebuilds everything and signs: only the rules can tell."""
    node.change(index, **fields)
    node.publish()
    return refusal(audit, node)


def test_a_denied_request_entered_as_allowed(with_entry, audit_decisions):
    node, index = with_entry(kind="access", decision="deny", reason="no-grant")
    assert signed_again(node, audit_decisions, index, decision="allow") == ("wrong-decision", index)


def test_an_allowed_request_entered_as_denied(with_entry, audit_decisions):
    node, index = with_entry(kind="access", decision="allow", reason="grant")
    got = signed_again(node, audit_decisions, index, decision="deny", reason="no-grant", grant=None)
    assert got == ("wrong-decision", index)


def test_another_reason_than_the_rules_give(with_entry, audit_decisions):
    node, index = with_entry(kind="access", decision="deny", reason="revoked")
    assert signed_again(node, audit_decisions, index, reason="expired") == ("wrong-decision", index)


def test_another_grant_than_the_rules_use(with_entry, audit_decisions):
    node, index = with_entry(kind="access", decision="allow", reason="grant")
    assert signed_again(node, audit_decisions, index, grant="0" * 32) == ("wrong-decision", index)


@pytest.mark.parametrize("change", [{"consent_seq": 0, "consent_hash": "00" * 32}, {"consent_hash": "11" * 32}])
def test_a_decision_with_another_state_of_consent(with_entry, audit_decisions, change):
    node, index = with_entry(kind="access", decision="allow", reason="grant")
    assert signed_again(node, audit_decisions, index, **change) == ("wrong-moment", index)


def test_a_decision_with_another_age_of_the_directory(with_entry, audit_decisions):
    node, index = with_entry(kind="access", decision="allow", reason="grant")
    assert signed_again(node, audit_decisions, index, directory_age=5)[1] == index


def test_a_decision_with_a_directory_that_did_not_know_the_reader(with_entry, audit_decisions):
    node, index = with_entry(kind="access", decision="allow", reason="grant")
    code, at = signed_again(node, audit_decisions, index, directory_height=1)
    assert at == index
    assert code == "wrong-moment"


def test_limits_that_are_not_the_directory_s(with_entry, audit_decisions):
    node, index = with_entry(kind="access", decision="allow", reason="grant")
    counters = msgspec.json.decode(node.entry(index)[2])["counters"]
    for name in ("requests_max", "stale_max_ms", "head_fresh_ms"):
        got = signed_again(node, audit_decisions, index, counters={**counters, name: counters[name] + 1})
        assert got == ("wrong-counters", index)
        without = {key: value for key, value in counters.items() if key != name}
        assert signed_again(node, audit_decisions, index, counters=without) == ("wrong-counters", index)


def test_fewer_new_people_counted_than_the_log_shows(with_entry, audit_decisions):
    node, index = with_entry(kind="access")
    counters = msgspec.json.decode(node.entry(index)[2])["counters"]
    assert counters["unseen"] > 0
    got = signed_again(node, audit_decisions, index, counters={**counters, "unseen": 0})
    assert got == ("wrong-counters", index)


def test_more_requests_counted_than_allowed(with_entry, audit_decisions):
    node, index = with_entry(kind="access", decision="allow", reason="grant")
    counters = msgspec.json.decode(node.entry(index)[2])["counters"]
    got = signed_again(node, audit_decisions, index, counters={**counters, "requests": 1000})
    assert got == ("wrong-decision", index)


@pytest.mark.parametrize(("kind", "reason"), [("access", "owner"), ("keep", "consent"), ("keep", "inbox")])
def test_a_signature_that_does_not_hold(with_entry, audit_decisions, kind, reason):
    node, index = with_entry(kind=kind, reason=reason)
    envelopes = msgspec.json.decode(node.entry(index)[2])["envelopes"]
    sig = envelopes[0]["signatures"][0]["sig"]
    envelopes[0]["signatures"][0]["sig"] = ("A" if sig[0] != "A" else "B") + sig[1:]
    assert signed_again(node, audit_decisions, index, envelopes=envelopes) == ("bad-signature", index)


def test_a_request_entered_long_after_it_was_signed(with_entry, audit_decisions):
    node, index = with_entry(kind="access", decision="allow", reason="grant")
    body = msgspec.json.decode(node.entry(index)[2])
    later = {"received": body["received"] + 200_000, "directory_age": body["directory_age"] + 200_000}
    assert signed_again(node, audit_decisions, index, **later) == ("stale-request", index)


def test_a_request_about_another_subject_than_the_entry_says(with_entry, audit_decisions, auditor):
    node, index = with_entry(kind="access", decision="allow", reason="grant")
    code, at = signed_again(node, audit_decisions, index, subject=auditor.tokens[1])
    assert (code, at) == ("wrong-entry", index)


def test_a_consent_event_turned_into_a_document(operator, audit_decisions):
    """The operator makes an event disappear from the subject's chain."""
    node = operator(2)
    events = [at for at, kind, body in node.bodies() if kind == "keep" and body["reason"] == "consent"]
    bodies = {at: body for at, _, body in node.bodies()}
    subject = bodies[events[0]]["subject"]
    mine = [at for at in events if bodies[at]["subject"] == subject]
    victim = mine[1]
    node.change(victim, envelopes=None, reason="document", details={"document": "0" * 64, "sequence": 0})
    node.publish()
    assert refusal(audit_decisions, node) == ("wrong-document", victim)


def test_a_manifest_moved_to_another_compartment(operator, audit_decisions):
    """The manifest is the author's: with another compartment it no longer makes its record's id or submission fit."""
    node = operator(1)
    index = node.find(kind="keep", reason="manifest")
    manifest = msgspec.json.decode(node.entry(index)[2])["manifest"]
    got = signed_again(node, audit_decisions, index, manifest={**manifest, "index": manifest["index"] + 7})
    assert got == ("bad-record-id", index)


def test_a_contribution_decided_against_the_rules_is_named_at_its_submission(operator, audit_decisions):
    node = operator(1)
    submission = node.find(kind="keep", reason="inbox")
    manifest = msgspec.json.decode(node.entry(submission + 1)[2])["manifest"]
    got = signed_again(node, audit_decisions, submission + 1, manifest={**manifest, "epoch": manifest["epoch"] + 1})
    assert got == ("wrong-decision", submission)


def test_another_quota_of_the_inbox_than_the_directory_s(operator, audit_decisions):
    node = operator(1)
    first = node.find(kind="keep", reason="inbox")
    counters = {**msgspec.json.decode(node.entry(first)[2])["counters"], "inbox_records_max": 10**6}
    assert signed_again(node, audit_decisions, first, counters=counters) == ("wrong-counters", first)


def test_an_inbox_count_lower_than_the_log_shows(operator, audit_decisions):
    node = operator(1)
    found = [at for at, _, body in node.bodies() if body["reason"] == "inbox"]
    assert len(found) == 2
    counters = msgspec.json.decode(node.entry(found[1])[2])["counters"]
    used = counters["inbox_records"]
    assert used > 0
    got = signed_again(node, audit_decisions, found[1], counters={**counters, "inbox_records": used - 1})
    assert got == ("wrong-counters", found[1])


def test_a_manifest_without_its_submission(operator, audit_decisions):
    node = operator(1)
    index = node.find(kind="keep", reason="manifest")
    body = msgspec.json.decode(node.entry(index)[2])
    at = node.append("keep", {name: value for name, value in body.items() if name not in ("index", "kind")})
    node.publish()
    assert refusal(audit_decisions, node) == ("wrong-entry", at)


def test_a_document_that_the_directory_does_not_have(operator, audit_decisions):
    node = operator(1)
    index = node.find(kind="keep", reason="document")
    details = msgspec.json.decode(node.entry(index)[2])["details"]
    got = signed_again(node, audit_decisions, index, details={**details, "document": "0" * 64})
    assert got == ("wrong-document", index)


def test_a_managed_access_by_somebody_who_does_not_manage(with_entry, audit_decisions):
    node, index = with_entry(kind="access", reason="managed")
    got = signed_again(node, audit_decisions, index, decision="deny", reason="no-grant")
    assert got == ("wrong-decision", index)


def test_what_peers_handed_on_is_replayed_as_such(operator, audit_decisions):
    """Node 4 was down: it kept through a peer, and says so; without saying so the keys or the time don't fit."""
    node = operator(4)
    through = [at for at, _, body in node.bodies() if (body.get("details") or {}).get("via")]
    assert through
    assert audit_decisions(node).decisions > 0


def test_a_sync_request_that_was_for_another_node(operator, with_entry, audit_decisions, auditor):
    node, found = with_entry(kind="system")
    other = operator(4 if node.folder.name != "node-4" else 3)
    body = {key: value for key, value in msgspec.json.decode(node.entry(found)[2]).items() if key != "index"}
    body["node"] = auditor.tokens[int(other.folder.name[-1])]
    index = other.append("system", body)
    other.publish()
    assert refusal(audit_decisions, other) == ("wrong-entry", index)


def test_a_submission_by_a_key_that_nobody_had(with_entry, audit_decisions):
    node, index = with_entry(kind="keep", reason="inbox")
    envelopes = msgspec.json.decode(node.entry(index)[2])["envelopes"]
    signature = envelopes[0]["signatures"][0]
    signature["keyid"] = signature["keyid"].partition("#")[0] + "#7"
    assert signed_again(node, audit_decisions, index, envelopes=envelopes) == ("unknown-key", index)


def test_a_submission_about_another_subject_than_the_entry_says(with_entry, audit_decisions, auditor):
    node, index = with_entry(kind="keep", reason="inbox")
    fields = {"subject": auditor.tokens[1], "consent_seq": 0, "consent_hash": "00" * 32}
    assert signed_again(node, audit_decisions, index, **fields) == ("wrong-entry", index)


@pytest.mark.parametrize("field", ["received", "index"])
def test_a_manifest_that_does_not_follow_its_submission(with_entry, audit_decisions, field):
    node, index = with_entry(kind="keep", reason="manifest")
    body = msgspec.json.decode(node.entry(index)[2])
    if field == "received":
        later = {"received": body["received"] + 1, "directory_age": body["directory_age"] + 1}
        assert signed_again(node, audit_decisions, index, **later) == ("wrong-entry", index)
    else:
        # Something else stands between: the submission is decided before the rest of its manifests comes.
        system = {**{name: value for name, value in body.items() if name != "manifest"}, "kind": "system"}
        system |= {"reason": "other", "index": index}
        node.put(index, msgspec.json.encode(system, order="sorted"), kind="system")
        node.publish()
        code, at = refusal(audit_decisions, node)
        assert (code, at) in (("wrong-decision", index - 1), ("wrong-entry", index + 1))


def test_a_consent_event_signed_by_a_stranger_as_the_manager(operator, audit_decisions, story):
    """Only a document names a manager; the patient of the story never had one."""
    node = operator(1)
    index = node.find(kind="keep", reason="consent", subject=story.patient)
    envelope = msgspec.json.decode(node.entry(index)[2])["envelopes"][0]
    payload = {**msgspec.json.decode(unb64(envelope["payload"])), "role": "manager"}
    data = msgspec.json.encode(payload, order="sorted")
    name, seed = story.doctor
    forged = msgspec.json.decode(encode(sign(CONSENT_TYPE, data, [(name, SigningKey(seed))])))
    assert signed_again(node, audit_decisions, index, envelopes=[forged]) == ("unknown-key", index)


@pytest.mark.parametrize("reason", ["document", "consent", "inbox", "manifest"])
def test_what_is_kept_with_another_state_of_consent(with_entry, audit_decisions, reason):
    node, index = with_entry(kind="keep", reason=reason)
    assert signed_again(node, audit_decisions, index, consent_hash="11" * 32) == ("wrong-moment", index)


@pytest.mark.parametrize(("kind", "reason"), [("access", "owner"), ("keep", "consent"), ("keep", "document")])
def test_an_entry_that_does_not_name_its_subject(with_entry, audit_decisions, kind, reason):
    node, index = with_entry(kind=kind, reason=reason)
    assert signed_again(node, audit_decisions, index, subject=None) == ("wrong-entry", index)


def test_a_network_whose_name_begins_like_the_log_s(operator, audit_decisions, story):
    """The origin has sixteen digits of it; the directory knows all."""
    node = operator(1)
    assert signed_again(node, audit_decisions, 2, network=story.network[:16] + "0" * 48) == ("wrong-entry", 2)


def test_a_document_kept_by_a_node_that_it_does_not_name(operator, audit_decisions, story, auditor):
    keeper, other = operator(1), operator(4)
    body = msgspec.json.decode(keeper.entry(keeper.find(reason="document", subject=story.elsewhere))[2])
    row = keeper.row("SELECT * FROM documents WHERE token = ?", (story.elsewhere,))
    other.execute("INSERT INTO documents VALUES(?,?,?,?,?,?,?)", row)
    del body["index"]
    index = other.append("keep", {**body, "node": auditor.tokens[4]})
    other.publish()
    assert refusal(audit_decisions, other) == ("wrong-decision", index)


def test_a_consent_event_entered_as_refused(with_entry, audit_decisions):
    node, index = with_entry(kind="keep", reason="consent")
    assert signed_again(node, audit_decisions, index, decision="deny") == ("wrong-decision", index)


def test_a_record_kept_twice(with_entry, audit_decisions):
    node, index = with_entry(kind="keep", reason="manifest")
    following = msgspec.json.decode(node.entry(index + 1)[2])
    assert following["reason"] == "manifest"
    manifest = msgspec.json.decode(node.entry(index)[2])["manifest"]
    assert signed_again(node, audit_decisions, index + 1, manifest=manifest) == ("wrong-entry", index + 1)


def consent_entries(node, subject):
    """The bodies of a subject's consent events, in order, each with its event's payload."""
    for _, _, body in node.bodies():
        envelopes = body.get("envelopes") or [{}]
        if body.get("subject") == subject and envelopes[0].get("payloadType") == CONSENT_TYPE:
            yield body, msgspec.json.decode(unb64(envelopes[0]["payload"]))


def handed_on(node, story, via, keys):
    """Enter a grant that follows the patient's newest event, signed by these keys, as if a peer had handed it on."""
    entered = list(consent_entries(node, story.patient))
    body, newest = entered[-1]
    head = envelope_message_id(msgspec.convert(body["envelopes"][0], Envelope)).hex()
    granted = next(payload for _, payload in entered if payload["type"] == "grant")
    seq = newest["seq"] + 1
    payload = encode({**granted, "grant": f"{seq:032x}", "seq": seq, "prev": head, "time": newest["time"] + 1})
    signed = encode(sign(CONSENT_TYPE, payload, [(keys[0], SigningKey(keys[1]))]))
    last = node.bodies()[-1][2]
    moment = {name: last[name] for name in ("received", "directory_height", "directory_age")}
    state = {"consent_seq": newest["seq"], "consent_hash": head}
    more = {"envelopes": [msgspec.json.decode(signed)], "details": {"via": via}}
    return node.append("keep", {**body, **moment, **state, **more})


def test_a_consent_event_by_an_older_key_after_one_by_a_newer(operator, story, auditor, audit_decisions):
    """A custodian that takes it from a peer would let whoever stole a device go on with the chain."""
    node = operator(1)
    stolen, newer = story.patient_keys
    handed_on(node, story, auditor.tokens[2], newer)
    handed_on(node, story, auditor.tokens[2], newer)
    node.publish()
    assert audit_decisions(node).decisions > 0
    index = handed_on(node, story, auditor.tokens[2], stolen)
    node.publish()
    assert refusal(audit_decisions, node) == ("superseded-key", index)
