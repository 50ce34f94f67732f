from __future__ import annotations

import pytest

from careledger.errors import ConflictError, Error, MalformedError, NotFoundError, NotPermittedError, VerificationError
from careledger.tlog import (
    AddCheckpoint,
    Checkpoint,
    Cosigner,
    Ed25519SigningKey,
    Ed25519VerifyKey,
    MemoryTree,
    Signer,
    Verifier,
    cosign,
    cosign_if_consistent,
    format_add_checkpoint,
    format_proof,
    leaf_hash,
    open_checkpoint,
    open_cosigned,
    open_note,
    parse_add_checkpoint,
    parse_proof,
    parse_skey,
    parse_vkey,
    parse_wrong_size_body,
    sign_checkpoint,
    sign_note,
    skey,
    verify_cosignature,
    verify_proof,
    wrong_size_body,
)

ORIGIN = "0123456789abcdef/cl1log"
LOG = Signer(ORIGIN, Ed25519SigningKey(bytes(range(32))))
OTHER_KEY = Signer(ORIGIN, Ed25519SigningKey(bytes(range(1, 33))))
OTHER_LOG = Signer("0123456789abcdef/cl1other", Ed25519SigningKey(bytes(range(32))))
WITNESS = Cosigner("0123456789abcdef/cl1witness", Ed25519SigningKey(bytes(range(2, 34))))
ENTRIES = [b"entry %d" % index for index in range(100)]
TREE = MemoryTree([leaf_hash(entry) for entry in ENTRIES])
NOW_S = 1_800_000_000


def checkpoint_at(size: int, signer: Signer = LOG, tree: MemoryTree = TREE) -> bytes:
    return sign_checkpoint(Checkpoint(signer.name, size, tree.root(size)), signer=signer)


def code_of(call: object, *args: object, **kwargs: object) -> str:
    with pytest.raises(Error) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    return caught.value.code


class TestKeys:
    @pytest.mark.parametrize(
        "name", ["", "with space", "with+plus", "no\u2028line", "no\u00a0space", "tab\t", "x" * 256]
    )
    def test_names_that_would_be_read_two_ways_are_refused(self, name: str) -> None:
        assert code_of(Signer, name, LOG.key) == "bad-name"
        assert code_of(Cosigner, name, LOG.key) == "bad-name"

    def test_a_name_may_have_slashes(self) -> None:
        assert parse_vkey(LOG.vkey) == LOG.verifier
        assert parse_vkey(LOG.vkey).name == ORIGIN

    def test_a_log_key_and_a_witness_key_of_one_pair_have_different_ids(self) -> None:
        log, witness = Verifier.ed25519("same", LOG.key.public), Verifier.cosignature("same", LOG.key.public)
        assert log.key_id != witness.key_id
        assert parse_vkey(witness.vkey) == witness != log

    @pytest.mark.parametrize(
        "change",
        [
            lambda v: v.replace("+", " ", 1),
            lambda v: v.replace(v.split("+")[1], "00000000"),
            lambda v: (
                v.replace(v.split("+")[1], v.split("+")[1].upper()) if v.split("+")[1].upper() not in v else v + "="
            ),
            lambda v: v[:-1],
            lambda v: v + "\n",
            lambda v: "x" + v,
            lambda v: v[:-1] + "é",
        ],
    )
    def test_a_vkey_has_one_spelling(self, change: object) -> None:
        with pytest.raises(MalformedError):
            parse_vkey(change(LOG.vkey))  # type: ignore[operator]

    def test_signature_types_nobody_asked_for_are_refused(self) -> None:
        assert code_of(Verifier, "name", 0x06, LOG.key.public, Ed25519VerifyKey(LOG.key.public)) == "bad-vkey"

    def test_a_private_key_text_comes_back_and_tells_nothing_when_it_is_wrong(self) -> None:
        text = skey(ORIGIN, bytes(range(32)))
        assert parse_skey(text).vkey == LOG.vkey
        for wrong in (text[:-4], text.replace("PRIVATE", "PUBLIC"), text[:-2] + "AA", text.replace("cl1log", "cl1low")):
            with pytest.raises(MalformedError) as caught:
                parse_skey(wrong)
            assert wrong.split("+")[-1] not in str(caught.value)
        assert "AAEC" not in repr(LOG)

    # Points of small order and encodings of y not below p: whoever holds such a key "signs" many messages at once.
    @pytest.mark.parametrize(
        "public",
        [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "00" * 31,
        ],
    )
    def test_weak_public_keys_are_refused(self, public: str) -> None:
        assert code_of(Ed25519VerifyKey, bytes.fromhex(public)) == "bad-key"

    def test_a_signature_with_s_above_the_group_order_is_refused(self) -> None:
        order = 2**252 + 27742317777372353535851937790883648493
        good = LOG.key.sign(b"message")
        key = Ed25519VerifyKey(LOG.key.public)
        key.verify(good, b"message")
        other = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
        for signature in (other, good[:63], good + b"\0", b""):
            assert code_of(key.verify, signature, b"message") == "bad-signature"


class TestNotes:
    def test_a_note_needs_a_signature_of_a_key_the_caller_trusts(self) -> None:
        note = sign_note(b"text\n", [LOG])
        assert open_note(note, verifiers=[LOG.verifier]).text == b"text\n"
        assert code_of(open_note, note, verifiers=[]) == "no-signature"
        assert code_of(open_note, note, verifiers=[OTHER_KEY.verifier]) == "no-signature"

    def test_signatures_of_strangers_are_carried_but_not_believed(self) -> None:
        note = open_note(sign_note(b"text\n", [OTHER_LOG, LOG, OTHER_KEY]), verifiers=[LOG.verifier])
        assert [s.verifier.name for s in note.verified] == [ORIGIN]
        assert [line.name for line in note.unverified] == [OTHER_LOG.name, ORIGIN]

    def test_a_wrong_signature_of_a_trusted_key_spoils_the_note_even_beside_a_right_one(self) -> None:
        note = sign_note(b"text\n", [LOG])
        line = sign_note(b"other text\n", [LOG]).rpartition(b"\n\n")[2]
        for lines in (note + line, b"text\n\n" + line + note.rpartition(b"\n\n")[2]):
            assert code_of(open_note, lines, verifiers=[LOG.verifier]) == "bad-signature"

    def test_a_repeated_signature_counts_once(self) -> None:
        note = sign_note(b"text\n", [LOG, LOG])
        assert len(open_note(note, verifiers=[LOG.verifier]).verified) == 1

    def test_the_last_empty_line_separates(self) -> None:
        note = sign_note(b"one\n\ntwo\n", [LOG])
        assert open_note(note, verifiers=[LOG.verifier]).text == b"one\n\ntwo\n"

    def test_too_many_signatures_or_bytes_are_refused(self) -> None:
        assert len(open_note(sign_note(b"t\n", [LOG] * 100), verifiers=[LOG.verifier]).verified) == 1
        assert code_of(open_note, sign_note(b"t\n", [LOG] * 101), verifiers=[LOG.verifier]) == "bad-note"
        assert code_of(open_note, sign_note(b"t" * (256 << 10) + b"\n", [LOG]), verifiers=[LOG.verifier]) == "bad-note"

    @pytest.mark.parametrize("line", ["— name AAAAAA==\n", "— name\n", "— name \n", "name AAAAAAA=\n"])
    def test_a_line_without_key_id_and_signature_is_refused(self, line: str) -> None:
        data = sign_note(b"text\n", [LOG]) + line.encode()
        assert code_of(open_note, data, verifiers=[LOG.verifier]) in ("bad-note", "bad-base64")

    @pytest.mark.parametrize("text", [b"no newline", b"\xff\n", b"bell\x07\n", b"tab\t\n"])
    def test_texts_that_are_not_plain_lines_are_not_signed(self, text: bytes) -> None:
        assert code_of(sign_note, text, [LOG]) == "bad-note"


class TestCheckpoints:
    def test_one_logs_checkpoint_does_not_pass_for_anothers_under_the_same_key(self) -> None:
        forged = sign_note(Checkpoint(OTHER_LOG.name, 7, TREE.root(7)).text, [LOG])
        assert code_of(open_checkpoint, forged, verifier=LOG.verifier) == "wrong-origin"

    def test_a_witness_cannot_speak_for_a_log(self) -> None:
        text = Checkpoint(ORIGIN, 7, TREE.root(7)).text
        note = text + b"\n" + cosign(text, signer=WITNESS, now_s=NOW_S)
        witnesses = [WITNESS.verifier]
        assert code_of(open_cosigned, note, verifier=LOG.verifier, witnesses=witnesses) == "no-signature"
        with pytest.raises(AssertionError):
            open_checkpoint(note, verifier=WITNESS.verifier)

    def test_more_than_16_extension_lines_are_refused(self) -> None:
        for count in (16, 17):
            checkpoint = Checkpoint(ORIGIN, 7, TREE.root(7), ("line",) * count)
            note = sign_checkpoint(checkpoint, signer=LOG)
            if count == 16:
                assert open_checkpoint(note, verifier=LOG.verifier) == checkpoint
            else:
                assert code_of(open_checkpoint, note, verifier=LOG.verifier) == "bad-checkpoint"

    def test_a_log_signs_under_its_own_origin_only(self) -> None:
        with pytest.raises(AssertionError):
            sign_checkpoint(Checkpoint("other", 0, TREE.root(0)), signer=LOG)

    def test_every_changed_bit_is_refused(self) -> None:
        data = checkpoint_at(100)
        for at in range(len(data)):
            for bit in (1, 0x20, 0x80):
                changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
                with pytest.raises(Error):
                    open_checkpoint(changed, verifier=LOG.verifier)


class TestCosignatures:
    def test_the_signed_time_is_the_one_returned(self) -> None:
        text = Checkpoint(ORIGIN, 7, TREE.root(7)).text
        line = cosign(text, signer=WITNESS, now_s=NOW_S)
        assert verify_cosignature(line, checkpoint_text=text, verifier=WITNESS.verifier) == NOW_S

    def test_a_cosignature_of_one_checkpoint_is_refused_for_another(self) -> None:
        line = cosign(Checkpoint(ORIGIN, 7, TREE.root(7)).text, signer=WITNESS, now_s=NOW_S)
        other = Checkpoint(ORIGIN, 8, TREE.root(8)).text
        assert code_of(verify_cosignature, line, checkpoint_text=other, verifier=WITNESS.verifier) == "bad-signature"

    def test_an_answer_of_unknown_keys_is_no_cosignature(self) -> None:
        text = Checkpoint(ORIGIN, 7, TREE.root(7)).text
        line = cosign(text, signer=Cosigner("other", WITNESS.key), now_s=NOW_S)
        assert code_of(verify_cosignature, line, checkpoint_text=text, verifier=WITNESS.verifier) == "no-signature"

    def test_a_plain_signature_under_a_witnesss_key_is_no_cosignature(self) -> None:
        text = Checkpoint(ORIGIN, 7, TREE.root(7)).text
        plain = Signer(WITNESS.name, WITNESS.key).sign_line(text)
        assert code_of(verify_cosignature, plain, checkpoint_text=text, verifier=WITNESS.verifier) == "no-signature"

    def test_time_zero_is_refused(self) -> None:
        text = Checkpoint(ORIGIN, 7, TREE.root(7)).text
        with pytest.raises(AssertionError):
            cosign(text, signer=WITNESS, now_s=0)
        from careledger.tlog.note import cosigned_message, signature_line

        zero = bytes(8) + WITNESS.key.sign(cosigned_message(text, 0))
        line = signature_line(WITNESS.name, WITNESS.verifier.key_id, zero)
        assert code_of(verify_cosignature, line, checkpoint_text=text, verifier=WITNESS.verifier) == "bad-time"
        note = checkpoint_at(7) + line
        assert open_cosigned(note, verifier=LOG.verifier, witnesses=[WITNESS.verifier])[1] == {}

    def test_a_cosigned_checkpoint_names_the_witnesses_that_are_known(self) -> None:
        text = Checkpoint(ORIGIN, 7, TREE.root(7)).text
        stranger = Cosigner("stranger", Ed25519SigningKey(bytes(32)))
        note = checkpoint_at(7) + b"".join(cosign(text, signer=s, now_s=NOW_S) for s in (WITNESS, stranger))
        checkpoint, times = open_cosigned(note, verifier=LOG.verifier, witnesses=[WITNESS.verifier])
        assert checkpoint.size == 7
        assert times == {WITNESS.vkey: NOW_S}
        with pytest.raises(AssertionError):
            open_cosigned(note, verifier=LOG.verifier, witnesses=[LOG.verifier])


class TestProofs:
    PROOF = format_proof(42, TREE.inclusion_proof(42), checkpoint_at(100))

    def test_a_proof_holds_for_its_leaf_and_no_other(self) -> None:
        checkpoint, index = verify_proof(self.PROOF, leaf=ENTRIES[42], verifier=LOG.verifier)
        assert (checkpoint.size, index) == (100, 42)
        assert code_of(verify_proof, self.PROOF, leaf=ENTRIES[43], verifier=LOG.verifier) == "bad-proof"

    def test_texts_longer_than_their_bound_are_not_parsed(self) -> None:
        # Both would be refused for their content as well: the message tells that the bound came first.
        with pytest.raises(MalformedError, match=r"a proof has .* at most"):
            parse_proof(self.PROOF + bytes(1 << 19))
        with pytest.raises(MalformedError, match=r"a request has .* at most"):
            parse_add_checkpoint(format_add_checkpoint(0, [], checkpoint_at(1)) + bytes(1 << 20))

    def test_a_proof_of_another_log_or_key_is_refused(self) -> None:
        other = format_proof(42, TREE.inclusion_proof(42), checkpoint_at(100, OTHER_LOG))
        assert code_of(verify_proof, other, leaf=ENTRIES[42], verifier=LOG.verifier) == "no-signature"

    def test_a_proof_moved_to_another_checkpoint_or_index_is_refused(self) -> None:
        moved = format_proof(42, TREE.inclusion_proof(42), checkpoint_at(99))
        assert code_of(verify_proof, moved, leaf=ENTRIES[42], verifier=LOG.verifier) == "bad-proof"
        index = self.PROOF.replace(b"index 42", b"index 43")
        assert code_of(verify_proof, index, leaf=ENTRIES[42], verifier=LOG.verifier) == "bad-proof"


class TestWitness:
    STATE = (60, TREE.root(60))

    def ask(
        self,
        state: tuple[int, bytes] | None,
        old_size: int,
        checkpoint: bytes,
        proof: list[bytes] | None = None,
        verifier: Verifier | None = LOG.verifier,
    ) -> tuple[tuple[int, bytes], bytes]:
        if proof is None:
            size = parse_size(checkpoint)
            proof = TREE.consistency_proof(old_size, size) if old_size <= size else []
        request = AddCheckpoint(old_size, tuple(proof), checkpoint)
        return cosign_if_consistent(state, request, log_verifier=verifier, signer=WITNESS, now_s=NOW_S)

    def test_a_log_that_grew_is_cosigned_and_remembered(self) -> None:
        state, line = self.ask(self.STATE, 60, checkpoint_at(100))
        assert state == (100, TREE.root(100))
        text = Checkpoint(ORIGIN, 100, TREE.root(100)).text
        assert verify_cosignature(line, checkpoint_text=text, verifier=WITNESS.verifier) == NOW_S

    def test_a_new_log_and_an_unchanged_one_are_cosigned(self) -> None:
        assert self.ask(None, 0, checkpoint_at(60))[0] == self.STATE
        assert self.ask(None, 0, checkpoint_at(0))[0] == (0, TREE.root(0))
        assert self.ask(self.STATE, 60, checkpoint_at(60))[0] == self.STATE

    def test_a_fork_at_the_same_size_is_refused(self) -> None:
        forked = MemoryTree([leaf_hash(b"other %d" % index) for index in range(100)])
        with pytest.raises(VerificationError) as caught:
            self.ask(self.STATE, 60, checkpoint_at(60, LOG, forked))
        assert (caught.value.code, caught.value.http_status) == ("fork", 422)

    def test_a_fork_that_grew_is_refused(self) -> None:
        forked = MemoryTree([leaf_hash(b"other %d" % index) for index in range(100)])
        for proof in (forked.consistency_proof(60, 100), TREE.consistency_proof(60, 100), []):
            with pytest.raises(VerificationError) as caught:
                self.ask(self.STATE, 60, checkpoint_at(100, LOG, forked), proof)
            assert (caught.value.code, caught.value.http_status) == ("bad-proof", 422)

    def test_a_rolled_back_log_is_refused(self) -> None:
        with pytest.raises(ConflictError) as caught:
            self.ask(self.STATE, 50, checkpoint_at(50))
        assert caught.value.http_status == 409
        assert wrong_size_body(caught.value) == b"60\n"
        assert parse_wrong_size_body(wrong_size_body(caught.value)) == 60
        with pytest.raises(VerificationError):
            self.ask(self.STATE, 60, checkpoint_at(50))

    def test_a_log_cannot_start_again_from_zero(self) -> None:
        with pytest.raises(ConflictError):
            self.ask(self.STATE, 0, checkpoint_at(100))

    def test_a_proof_from_zero_must_be_empty_and_an_empty_log_has_the_empty_root(self) -> None:
        assert code_of(self.ask, None, 0, checkpoint_at(60), [TREE.root(1)]) == "bad-proof"
        bad = sign_checkpoint(Checkpoint(ORIGIN, 0, TREE.root(1)), signer=LOG)
        assert code_of(self.ask, None, 0, bad, []) == "bad-proof"

    def test_unknown_logs_and_wrong_signatures_have_their_own_status(self) -> None:
        with pytest.raises(NotFoundError) as unknown:
            self.ask(self.STATE, 60, checkpoint_at(100), verifier=None)
        assert unknown.value.http_status == 404
        for checkpoint in (checkpoint_at(100, OTHER_KEY), checkpoint_at(100).replace(b"\n100\n", b"\n101\n")):
            with pytest.raises(NotPermittedError) as caught:
                self.ask(self.STATE, 60, checkpoint, [])
            assert caught.value.http_status == 403

    def test_requests_come_back_as_they_were_written(self) -> None:
        proof = TREE.consistency_proof(60, 100)
        request = parse_add_checkpoint(format_add_checkpoint(60, proof, checkpoint_at(100)))
        assert request == AddCheckpoint(60, tuple(proof), checkpoint_at(100))
        assert request.unverified_origin == ORIGIN
        assert parse_add_checkpoint(format_add_checkpoint(0, [], checkpoint_at(1))).proof == ()


def parse_size(checkpoint: bytes) -> int:
    return int(checkpoint.split(b"\n")[1])
