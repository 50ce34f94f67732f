"""The offline verifier: logs, receipts, exports and the directory from their bytes alone. Opens no sockets.

Everything is read through a `fetch` (path -> bytes). A check raises at the first thing that is wrong and names the
entry (`index_of`); what it returns says how far the proof reaches. Normative text: docs/spec/verify.md.
"""

from careledger.verify.bodies import Bodies, bodies_of
from careledger.verify.describe import Form, describe_file, describe_folder
from careledger.verify.directory import VerifiedDirectory, verify_directory, verify_directory_proof
from careledger.verify.export import Proofs, decode_proofs, verify_export
from careledger.verify.folder import Store, folder_fetch, load_bodies, witnessed_in
from careledger.verify.history import Fetch, anchors_in, first_divergence, verify_extends
from careledger.verify.log import verify_checkpoint, verify_log
from careledger.verify.moments import DirectoryHistory
from careledger.verify.node_folder import network_above, node_folders, verify_network_folder, verify_node_folder
from careledger.verify.receipt import verify_receipt_file
from careledger.verify.replay import Documents
from careledger.verify.report import (
    CheckpointReport,
    DirectoryProofReport,
    DirectoryReport,
    ExportReport,
    Known,
    LogReport,
    NetworkReport,
    NodeReport,
    ReceiptReport,
    index_of,
)
from careledger.verify.trust import NodeKeys, Trust, others_needed, trust_of_directory, trust_of_genesis

__all__ = [
    "Bodies",
    "CheckpointReport",
    "DirectoryHistory",
    "DirectoryProofReport",
    "DirectoryReport",
    "Documents",
    "ExportReport",
    "Fetch",
    "Form",
    "Known",
    "LogReport",
    "NetworkReport",
    "NodeKeys",
    "NodeReport",
    "Proofs",
    "ReceiptReport",
    "Store",
    "Trust",
    "VerifiedDirectory",
    "anchors_in",
    "bodies_of",
    "decode_proofs",
    "describe_file",
    "describe_folder",
    "first_divergence",
    "folder_fetch",
    "index_of",
    "load_bodies",
    "network_above",
    "node_folders",
    "others_needed",
    "trust_of_directory",
    "trust_of_genesis",
    "verify_checkpoint",
    "verify_directory",
    "verify_directory_proof",
    "verify_export",
    "verify_extends",
    "verify_log",
    "verify_network_folder",
    "verify_node_folder",
    "verify_receipt_file",
    "witnessed_in",
]
