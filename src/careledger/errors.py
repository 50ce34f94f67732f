"""The one error tree. Every refusal or failure that careledger foresees is one of these.

    Error                    what, why and what to do, in one line; a stable reason code
    ├─ MalformedError        does not parse, or is not canonical; never retried
    ├─ VerificationError     parses, but is not proven: signature, proof, commitment, fork
    ├─ NotPermittedError     a decision said no: no-grant, expired, revoked, wrong-purpose …
    ├─ NotFoundError         never existed, or not for you
    ├─ ErasedError           existed and was lawfully destroyed; says when, never what
    ├─ ConflictError         somebody else got there first; carries what is there now
    └─ UnavailableError      a retry may help; carries what was found and what is needed

Bugs raise AssertionError or TypeError and are never caught as Error. No message carries a secret, a name or any
other health data: ids, sizes and hashes only.
"""

from __future__ import annotations

__all__ = [
    "ConflictError",
    "ErasedError",
    "Error",
    "MalformedError",
    "NotFoundError",
    "NotPermittedError",
    "UnavailableError",
    "VerificationError",
]


class Error(Exception):
    """A refusal or failure that we foresee.

    `code` is a stable, lower-case, hyphenated reason that programs may rely on; `message` is one line for people.
    `details` are further machine-readable facts of the refusal, such as the node's time or the newest epoch.
    """

    exit_code = 1
    http_status = 500
    outcome = "exception"
    """The `OperationOutcome.issue.code` of FHIR R4 that says the same."""

    def __init__(self, code: str, message: str, *, details: dict[str, object] | None = None) -> None:
        if not message or "\n" in message:
            raise AssertionError(f"an error message is exactly one line: {message!r}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class MalformedError(Error):
    """Does not parse, is not canonical, or has unknown fields."""

    http_status = 400
    outcome = "structure"


class VerificationError(Error):
    """Parses, but a signature, proof, commitment or history does not hold."""

    http_status = 422
    outcome = "security"


class NotPermittedError(Error):
    """A decision said no."""

    http_status = 403
    outcome = "forbidden"


class NotFoundError(Error):
    """Never existed, or not for the asker: the two cannot be told apart."""

    http_status = 404
    outcome = "not-found"


class ErasedError(Error):
    """Existed and was lawfully destroyed."""

    http_status = 410
    outcome = "deleted"


class ConflictError(Error):
    """Something else was there first."""

    http_status = 409
    outcome = "conflict"


class UnavailableError(Error):
    """Not possible now; a retry may help."""

    http_status = 503
    outcome = "transient"
