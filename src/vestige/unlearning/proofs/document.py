"""A proof as a file: the statement, the public mask, the commitment and the blocks that its own hash chose.

Nobody asks while the file is made, so the challenge is SHA-256 of root and statement alone (Fiat-Shamir). A cheat may
try commitments until the blocks asked for are good ones; `OPENINGS` are so many that this takes about 2^40 commitments
where one block in twenty is wrong.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vestige.core.errors import InputError, NotVerifiedError, UsageError
from vestige.core.merkle import root_of
from vestige.unlearning.proofs.commit import Block, fixed
from vestige.unlearning.proofs.kkt import Statement, fault, mask_digest
from vestige.unlearning.proofs.spotcheck import Prover, challenge, openings

OPENINGS = openings(0.05, 40)
_FORMAT = 1
_LARGEST = 2**28


def to_bytes(prover: Prover, masked: np.ndarray, names: list[str]) -> bytes:
    """The file: an npz of integers. names: of the matrices, in the order of the blocks."""
    proof = prover.open(b"", OPENINGS)
    blocks = [o.block for o in proof.openings]
    about = {"format": _FORMAT, "statement": asdict(prover.statement), "matrices": names}
    paths = b"".join(b"".join(o.path) for o in proof.openings)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        mask=np.packbits(masked),
        root=np.frombuffer(proof.root, np.uint8),
        salts=np.frombuffer(b"".join(o.salt for o in proof.openings), np.uint8),
        lengths=np.array([len(o.path) for o in proof.openings], np.int64),
        paths=np.frombuffer(paths, np.uint8),
        theta=np.stack([b.theta for b in blocks]).astype(np.int32),
        theta_new=np.stack([b.theta_new for b in blocks]).astype(np.int32),
        gradients=np.stack([b.gradients for b in blocks]).astype(np.int32),
    )
    return content.getvalue()


def check(path: Path, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> Statement:
    """Check a file of `to_bytes` against the weights before and after, by name.

    Returns what was proved. Raises InputError for a file that is no proof, NotVerifiedError for one that does not
    prove its statement or speaks of other weights.
    """
    about, held = _read(path)
    try:
        statement = Statement(**about["statement"])
        count = min(OPENINGS, statement.blocks)
        shape = (statement.blocks, statement.size)
        masked = np.unpackbits(held["mask"], count=shape[0] * shape[1]).astype(bool).reshape(shape)
        root, salts = held["root"].tobytes(), held["salts"].tobytes()
        paths, lengths = held["paths"].tobytes(), held["lengths"].astype(int)
        theta, new, gradients = (held[n].astype(np.int64) for n in ("theta", "theta_new", "gradients"))
        old_cut, new_cut = (_blocks(w, about["matrices"], statement) for w in (before, after))
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise InputError(f"{path} is no proof of this kind ({' '.join(str(error).split())[:100]}).") from None
    if mask_digest(masked) != statement.mask:
        raise NotVerifiedError("The mask in the proof is not that of its statement.")
    asked = challenge(root, statement, b"", count)
    if not len(theta) == len(new) == len(gradients) == len(lengths) == len(asked) or len(salts) != 32 * len(asked):
        raise NotVerifiedError("Other blocks were opened than the commitment asks for.")
    at = 0
    for k, number in enumerate(asked):
        block = Block(number, theta[k], new[k], gradients[k])
        steps = [paths[32 * (at + i) : 32 * (at + i + 1)] for i in range(lengths[k])]
        at += lengths[k]
        if root_of(block.leaf(salts[32 * k : 32 * (k + 1)]), number, statement.blocks, steps) != root:
            raise NotVerifiedError(f"Block {number} is not what was committed to.")
        why = fault(block, masked[number], statement)
        if why:
            raise NotVerifiedError(f"In block {number} {why}.")
        if not np.array_equal(old_cut[number], theta[k]) or not np.array_equal(new_cut[number], new[k]):
            raise NotVerifiedError(f"Block {number} is not that of the models given: the proof is about others.")
    if new_cut[masked].any():
        raise NotVerifiedError("A masked weight of the new model is not zero.")
    return statement


def _blocks(weights: Mapping[str, np.ndarray], names: list[str], statement: Statement) -> np.ndarray:
    """The weights of those matrices as fixed-point blocks×size, as the prover cut them."""
    parts = []
    for name in names:
        if name not in weights:
            raise ValueError(f"the model has no weight {name}")
        flat = fixed(np.asarray(weights[name], np.float64).reshape(-1), statement.weight_bits)
        parts.append(np.pad(flat, (0, -len(flat) % statement.size)).reshape(-1, statement.size))
    found = np.concatenate(parts)
    if len(found) != statement.blocks:
        raise ValueError(f"the model has {len(found)} blocks and the proof {statement.blocks}")
    return found


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
        about = json.loads(held.pop("about").tobytes())
        if about["format"] != _FORMAT:
            raise ValueError("another format")
        return about, held
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path} is no proof that can be read ({' '.join(str(error).split())[:100]}).") from None
