"""Records: how an author seals them, what a custodian checks, how a reader opens them and a subject checks them.

Pure functions over bytes, keys, time and randomness. Who may do what is consent's, what a log says of it access's.
Normative text: docs/spec/records.md.
"""

from careledger.records.checking import (
    CheckedLock,
    CheckedRecord,
    CheckedSubmission,
    check_steps,
    check_submission,
)
from careledger.records.disclosure import (
    DisclosedResource,
    Disclosure,
    decode_disclosure,
    disclose,
    encode_disclosure,
    verify_disclosed,
)
from careledger.records.header import Contributor, Finding, Header, Interaction, Places
from careledger.records.ids import record_id
from careledger.records.keys import SubmissionKeys, compartment_key, consent_key
from careledger.records.locks import Lock, decode_lock
from careledger.records.manifest import Manifest, SubmissionStatement, claimed_author, open_statement
from careledger.records.opening import OpenedRecord, OpenedRecords, open_record, open_records, open_with_master
from careledger.records.owner import check_owner
from careledger.records.plaintext import Plaintext, Resource, content_root, pack_plaintext, padme, unpack_plaintext
from careledger.records.submission import (
    BYTES_ADVISED,
    RECORDS_ADVISED,
    RECORDS_MAX,
    SUBMISSION_MAX,
    RecordPlan,
    Submission,
    SubmissionPlan,
    decode_submission,
    encode_submission,
    seal_submission,
)
from careledger.records.view import (
    LockView,
    RecordView,
    SubmissionView,
    VerifiedRecord,
    VerifiedSubmission,
    decode_view,
    encode_view,
    leaf_tree,
    verify_view,
    view_of,
)

__all__ = [
    "BYTES_ADVISED",
    "RECORDS_ADVISED",
    "RECORDS_MAX",
    "SUBMISSION_MAX",
    "CheckedLock",
    "CheckedRecord",
    "CheckedSubmission",
    "Contributor",
    "DisclosedResource",
    "Disclosure",
    "Finding",
    "Header",
    "Interaction",
    "Lock",
    "LockView",
    "Manifest",
    "OpenedRecord",
    "OpenedRecords",
    "Places",
    "Plaintext",
    "RecordPlan",
    "RecordView",
    "Resource",
    "Submission",
    "SubmissionKeys",
    "SubmissionPlan",
    "SubmissionStatement",
    "SubmissionView",
    "VerifiedRecord",
    "VerifiedSubmission",
    "check_owner",
    "check_steps",
    "check_submission",
    "claimed_author",
    "compartment_key",
    "consent_key",
    "content_root",
    "decode_disclosure",
    "decode_lock",
    "decode_submission",
    "decode_view",
    "disclose",
    "encode_disclosure",
    "encode_submission",
    "encode_view",
    "leaf_tree",
    "open_record",
    "open_records",
    "open_statement",
    "open_with_master",
    "pack_plaintext",
    "padme",
    "record_id",
    "seal_submission",
    "unpack_plaintext",
    "verify_disclosed",
    "verify_view",
    "view_of",
]
