"""A verifiable log: Merkle tree, tiles, notes, checkpoints, proofs, witnessing. Knows nothing of health.

Public formats throughout (RFC 6962 and C2SP), so a log written with it can be checked by software that isn't ours.
Pure: it reads through a `fetch` it is given and writes nothing.
"""

from careledger.tlog.audit import first_difference, verified_bundles, verify_log
from careledger.tlog.checkpoint import (
    Checkpoint,
    format_checkpoint,
    open_checkpoint,
    parse_checkpoint_text,
    parse_unverified_checkpoint,
    sign_checkpoint,
)
from careledger.tlog.cosignature import Cosigner, cosign, open_cosigned, verify_cosignature
from careledger.tlog.frontier import BatchProofs, Frontier
from careledger.tlog.keys import Ed25519SigningKey, Ed25519VerifyKey
from careledger.tlog.note import Note, Signer, Verifier, open_note, parse_skey, parse_vkey, sign_note, skey
from careledger.tlog.proof import Proof, format_proof, parse_proof, verify_proof
from careledger.tlog.reader import TileReader
from careledger.tlog.tail import LogTail, tail_of_entries
from careledger.tlog.tile import (
    CHECKPOINT_PATH,
    TILE_WIDTH,
    Tile,
    decode_entries,
    decode_tile,
    edge_tiles,
    encode_entries,
    entries_path,
    tile_path,
    tiles_for_growth,
)
from careledger.tlog.tree import (
    EMPTY_ROOT,
    MemoryTree,
    consistency_proof,
    inclusion_proof,
    interior_hash,
    leaf_hash,
    leaf_hashes_of,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from careledger.tlog.witness import (
    SIZE_CONTENT_TYPE,
    AddCheckpoint,
    cosign_if_consistent,
    format_add_checkpoint,
    parse_add_checkpoint,
    parse_wrong_size_body,
    wrong_size_body,
)

__all__ = [
    "CHECKPOINT_PATH",
    "EMPTY_ROOT",
    "SIZE_CONTENT_TYPE",
    "TILE_WIDTH",
    "AddCheckpoint",
    "BatchProofs",
    "Checkpoint",
    "Cosigner",
    "Ed25519SigningKey",
    "Ed25519VerifyKey",
    "Frontier",
    "LogTail",
    "MemoryTree",
    "Note",
    "Proof",
    "Signer",
    "Tile",
    "TileReader",
    "Verifier",
    "consistency_proof",
    "cosign",
    "cosign_if_consistent",
    "decode_entries",
    "decode_tile",
    "edge_tiles",
    "encode_entries",
    "entries_path",
    "first_difference",
    "format_add_checkpoint",
    "format_checkpoint",
    "format_proof",
    "inclusion_proof",
    "interior_hash",
    "leaf_hash",
    "leaf_hashes_of",
    "open_checkpoint",
    "open_cosigned",
    "open_note",
    "parse_add_checkpoint",
    "parse_checkpoint_text",
    "parse_proof",
    "parse_skey",
    "parse_unverified_checkpoint",
    "parse_vkey",
    "parse_wrong_size_body",
    "root_of",
    "sign_checkpoint",
    "sign_note",
    "skey",
    "tail_of_entries",
    "tile_path",
    "tiles_for_growth",
    "verified_bundles",
    "verify_consistency",
    "verify_cosignature",
    "verify_inclusion",
    "verify_log",
    "verify_proof",
    "wrong_size_body",
]
