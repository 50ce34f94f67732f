"""The custodian: keeps a subject's ciphertexts and shares, logs every request before it acts, and hands on to peers.

Rules come from `consent`, `records`, `access`, `directory`; this package adds the store and the order of things.
"""

from careledger.custody.acceptance import Acceptance
from careledger.custody.custodian import Custodian
from careledger.custody.documents import Documents, Events, claimed_subject
from careledger.custody.exchange import Exchange
from careledger.custody.published import LogFiles, read_log_file
from careledger.custody.reading import Reading
from careledger.custody.release import Release
from careledger.custody.shelf import Shelf
from careledger.custody.store import Store
from careledger.custody.witness import Witness, read_cosigned
from careledger.custody.writer import Writer

__all__ = [
    "Acceptance",
    "Custodian",
    "Documents",
    "Events",
    "Exchange",
    "LogFiles",
    "Reading",
    "Release",
    "Shelf",
    "Store",
    "Witness",
    "Writer",
    "claimed_subject",
    "read_cosigned",
    "read_log_file",
]
