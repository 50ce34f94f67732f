"""What CometBFT says, and what is made of it: the texts are those that its damaged files made it write."""

from __future__ import annotations

import json
import logging

import pytest

from careledger.directory.engines.cometbft.logs import EngineLog, diagnose


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (
            "ERROR: failed to create node: error during handshake: app block height (83) is higher than core (68)",
            "engine-behind-directory",
        ),
        ("panic: state.AppHash does not match AppHash after replay. Got 00, expected 01", "app-hash-differs"),
        ("ERROR: failed to initialize database: resource temporarily unavailable", "engine-runs-already"),
        ("ERROR: failed to start node: listen unix /r/rpc.sock: bind: address already in use", "address-in-use"),
        (
            "Error reading PrivValidator state from /h/data/priv_validator_state.json: unexpected end of JSON input",
            "validator-state-damaged",
        ),
        ("ERROR: failed to create node: leveldb/table: corruption on data-block", "engine-data-damaged"),
        ("ERROR: failed to initialize database: leveldb: manifest corrupted", "engine-data-damaged"),
        ("error in proxyAppConns: error: CometBFT's genesis has another chain id [wrong-genesis]", "wrong-genesis"),
        ("write /h/data/cs.wal/wal: no space left on device", "disk-full"),
        ("Corrupted entry. Skipping... err=DataCorruptionError", "engine-wal-repaired"),
        ("the WAL file is corrupted; attempting repair", "engine-wal-repaired"),
        ("CONSENSUS FAILURE!!!", "consensus-failure"),
        ("panic: runtime error: index out of range", "engine-panicked"),
        ("ERROR: something that nobody has seen yet", "engine-failed"),
    ],
)
def test_every_damage_has_a_code_and_one_line_that_says_what_to_do(line: str, code: str) -> None:
    problem = diagnose(line)
    assert problem is not None
    assert problem.code == code
    assert problem.message
    assert "\n" not in problem.message


def test_an_error_that_is_not_in_the_table_speaks_for_itself() -> None:
    problem = diagnose("ERROR: something that nobody has seen yet")
    assert problem is not None
    assert "something that nobody has seen yet" in problem.message


def test_ordinary_lines_mean_nothing() -> None:
    assert diagnose("executed block height=5 num_valid_txs=3") is None


def entry(level: str, message: str, **more: str) -> bytes:
    return json.dumps({"level": level, "_msg": message, "module": "consensus", **more}).encode()


def test_errors_are_passed_on_once_a_minute_each(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = EngineLog(clock=clock)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            log.take(entry("error", "Error dialing peer", err="connection refused"))
            log.take(entry("info", "executed block"))
        assert len(caplog.records) == 1
        clock.now = 61.0
        log.take(entry("error", "Error dialing peer", err="connection refused"))
    assert len(caplog.records) == 2
    assert caplog.records[0].fields == {  # type: ignore[attr-defined]
        "message": "Error dialing peer",
        "error": "connection refused",
    }
    assert log.problem is None


def test_a_repaired_write_ahead_log_is_a_warning_and_explains_no_end(caplog: pytest.LogCaptureFixture) -> None:
    log = EngineLog(clock=Clock())
    with caplog.at_level(logging.INFO):
        log.take(entry("error", "the WAL file is corrupted; attempting repair", err="EOF"))
        log.take(entry("info", "successful WAL repair"))
    assert log.problem is None
    assert log.warning is not None
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_first_problem_explains_the_end(caplog: pytest.LogCaptureFixture) -> None:
    log = EngineLog(clock=Clock())
    with caplog.at_level(logging.INFO):
        log.take(b"panic: state.AppHash does not match AppHash after replay. Got 00, expected 01")
        log.take(b"goroutine 1 [running]: panic(...)")
    assert log.problem is not None
    assert log.problem.code == "app-hash-differs"
    assert caplog.records[0].levelname == "ERROR"


def test_bytes_of_any_kind_and_length_do_no_harm() -> None:
    log = EngineLog(clock=Clock())
    for data in (b"", b"\xff\xfe\n", b"{", b'{"_msg": 5}', b"[1]", b"x" * 10_000, b"\x00"):
        log.take(data)
    assert all(len(line) <= 500 for line in log.lines)


def test_messages_without_end_leave_a_bounded_memory() -> None:
    log = EngineLog(clock=Clock())
    for number in range(2000):
        log.take(entry("error", f"message {number}"))
    assert len(log._said) <= 256
