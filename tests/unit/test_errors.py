"""The one error tree: stable codes, one line, and one table of class to HTTP status, FHIR outcome and exit code."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import careledger
from careledger import errors
from careledger.errors import Error

# The issue-type codes of FHIR R4 that the classes use (http://hl7.org/fhir/R4/valueset-issue-type.html).
OUTCOMES = {"exception", "structure", "security", "forbidden", "not-found", "deleted", "conflict", "transient"}
CLASSES = [getattr(errors, name) for name in errors.__all__]
SOURCES = sorted(Path(careledger.__file__).parent.rglob("*.py"))


def test_each_class_has_a_status_and_an_outcome_of_its_own() -> None:
    statuses = [kind.http_status for kind in CLASSES]
    assert len(set(statuses)) == len(CLASSES)
    assert {kind.outcome for kind in CLASSES} == OUTCOMES
    assert {kind.exit_code for kind in CLASSES} == {1}
    assert all(issubclass(kind, Error) for kind in CLASSES)


def test_the_tree_is_drawn_at_its_top() -> None:
    assert errors.__doc__ is not None
    assert all(kind.__name__ in errors.__doc__ for kind in CLASSES)


def test_an_error_says_its_line_and_its_code() -> None:
    problem = errors.ConflictError("stale-epoch", "a compartment has a newer key", details={"epoch": 2})
    assert str(problem) == "a compartment has a newer key [stale-epoch]"
    assert (problem.code, problem.details) == ("stale-epoch", {"epoch": 2})
    assert errors.Error("x", "y").details == {}


@pytest.mark.parametrize("message", ["", "two\nlines"])
def test_a_message_is_exactly_one_line(message: str) -> None:
    with pytest.raises(AssertionError):
        Error("code", message)


def _raised() -> list[tuple[Path, ast.Call]]:
    """Every call of an error class in the package whose code is written out."""
    names = {kind.__name__ for kind in CLASSES}
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
                found.append((path, node))
    return found


def test_every_reason_code_in_the_package_is_lower_case_and_hyphenated() -> None:
    found = _raised()
    assert len(found) > 300
    for path, call in found:
        code = call.args[0]
        if isinstance(code, ast.Constant):
            assert isinstance(code.value, str)
            assert code.value == code.value.lower(), f"{path.name}: {code.value}"
            assert code.value.replace("-", "").isalnum(), f"{path.name}: {code.value}"


def test_no_message_is_only_a_librarys_text() -> None:
    """`str()` of theirs can be empty, long, or full of input: it is wrapped, never handed on."""
    for path, call in _raised():
        if len(call.args) > 1:
            message = call.args[1]
            bare = isinstance(message, ast.Call) and isinstance(message.func, ast.Name) and message.func.id == "str"
            assert not bare, f"{path}:{call.lineno} hands on another library's words"


def test_errors_imports_nothing_of_the_project() -> None:
    assert "careledger" not in [
        node.module or "" for node in ast.walk(ast.parse(inspect.getsource(errors))) if isinstance(node, ast.ImportFrom)
    ]
