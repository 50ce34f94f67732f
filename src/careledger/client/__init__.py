"""The client: what people's software calls. Authors, patients, readers, organisations, managers; never a custodian.

Everything is async on one event loop; transport, clock and randomness are passed in. What nodes say is verified here,
always: a client that believed a node would make all of the rest pointless.
"""

from careledger.client.author import Author, Imported, Progress, Sent
from careledger.client.enrolment import (
    Enrolled,
    choose_custodians,
    deactivate,
    enrol_patient,
    enrol_person,
    keep_organisation,
    make_organisation,
    publish_document,
    publish_organisation,
    rotate,
)
from careledger.client.export import Exported, Proofs, decode_proofs, encode_proofs, export_record, write_export
from careledger.client.keys import HeldKeys, KeyFolder, MemoryState, State
from careledger.client.managed import Manager, claim
from careledger.client.network import Identity, Network, Subject
from careledger.client.nodes import Node, network_file, parse_network_file
from careledger.client.opening import Opened
from careledger.client.organisation import (
    Organisation,
    Staff,
    StaffPass,
    decode_staff_pass,
    encode_staff_pass,
    open_staff_pass,
)
from careledger.client.owner import Owner
from careledger.client.patient import Granted, Patient, Published
from careledger.client.reader import Listing, Reader
from careledger.client.trail import LoggedAccess, NodeTrail, Trail, audit, cosigners_needed

__all__ = [
    "Author",
    "Enrolled",
    "Exported",
    "Granted",
    "HeldKeys",
    "Identity",
    "Imported",
    "KeyFolder",
    "Listing",
    "LoggedAccess",
    "Manager",
    "MemoryState",
    "Network",
    "Node",
    "NodeTrail",
    "Opened",
    "Organisation",
    "Owner",
    "Patient",
    "Progress",
    "Proofs",
    "Published",
    "Reader",
    "Sent",
    "Staff",
    "StaffPass",
    "State",
    "Subject",
    "Trail",
    "audit",
    "choose_custodians",
    "claim",
    "cosigners_needed",
    "deactivate",
    "decode_proofs",
    "decode_staff_pass",
    "encode_proofs",
    "encode_staff_pass",
    "enrol_patient",
    "enrol_person",
    "export_record",
    "keep_organisation",
    "make_organisation",
    "network_file",
    "open_staff_pass",
    "parse_network_file",
    "publish_document",
    "publish_organisation",
    "rotate",
    "write_export",
]
