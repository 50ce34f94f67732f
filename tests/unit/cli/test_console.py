"""What people read on stderr: the reason code in brackets is part of it."""

from __future__ import annotations

import io

import pytest

from careledger.cli import session


def test_a_reason_code_in_brackets_is_printed_and_not_taken_for_a_style(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(session.console, "_file", said)
    session.console.print("careledger: chart.json: ends in the middle. Download it again. [truncated]")
    assert said.getvalue().rstrip().endswith("[truncated]")
