"""The check of one group of weights as a real SNARK (Halo2 with KZG) by the optional package ezkl.

The circuit takes θ, θ' and G as private inputs, each followed by random entries, and makes public their Poseidon hashes
(the commitments), the new masked weights and the residual of the free ones:

    m = θ'·[S],    r = (Gᵀ(Gδ)/N + λδ)·[R],   δ = θ' − θ

Whoever verifies learns no weight and no gradient, only that m = 0 and |r| ≤ τ. Numbers are fixed-point with 13 bits, so
τ must exceed a few units of 2⁻¹³, and small residuals themselves leak a little.

For d = 16 and N = 8 the proof has 30 kB and the prover's key 330 MB.

Without a reference string of a public ceremony, `setup` makes one: a TEST ceremony, and whoever made it can forge
proofs.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vestige.core.errors import MissingDependencyError, NotVerifiedError, UsageError

SCALE = 13
#: Random entries after each private input: 4 × 21 bits, so that hashes of coarse weights cannot be guessed.
BLIND = 4
INPUTS = ("theta", "theta_new", "gradients")
FILES = (
    "network.onnx", "network.ezkl", "settings.json", "calibration.json", "kzg.srs", "vk.key", "pk.key", "input.json",
    "witness.json", "proof.json", "received.json",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """What the circuit is about, public. masked: which of the d weights must be zero. samples: N. damping: λ.
    tolerance: τ; the default is eight units of the fixed-point numbers."""

    masked: tuple[bool, ...]
    samples: int
    damping: float = 1.0
    tolerance: float = 2.0**-10

    def __post_init__(self) -> None:
        if not any(self.masked) or self.samples < 1 or not self.damping > 0:
            raise UsageError("A group has a masked weight, a sample and a positive damping.")


def setup(group: Group, folder: Path, reference: Path | None = None) -> None:
    """Compile the circuit of a group and make its keys, in ``folder``; once per shape, mask, N and λ.

    reference: a KZG reference string of a public ceremony, of at least the circuit's size; without it one is made here,
    for tests only. Raises MissingDependencyError without ezkl.
    """
    ezkl = _ezkl()
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    size = len(group.masked)
    _circuit(group, folder / "network.onnx")
    example = (rng.normal(size=size), rng.normal(size=size), rng.normal(size=(group.samples, size)))
    _write(folder / "calibration.json", example)
    at = _paths(folder)
    args = ezkl.PyRunArgs()
    args.input_visibility, args.output_visibility, args.param_visibility = "hashed", "public", "fixed"
    args.input_scale = args.param_scale = SCALE
    _must(ezkl.gen_settings(at["network.onnx"], at["settings.json"], py_run_args=args), "The settings")
    _must(
        ezkl.calibrate_settings(
            at["calibration.json"], at["network.onnx"], at["settings.json"], "resources", scales=[SCALE]
        ),
        "The calibration",
    )
    _must(ezkl.compile_circuit(at["network.onnx"], at["network.ezkl"], at["settings.json"]), "The circuit")
    if reference is None:
        ezkl.gen_srs(at["kzg.srs"], json.loads(Path(at["settings.json"]).read_text())["run_args"]["logrows"])
    else:
        shutil.copyfile(reference, at["kzg.srs"])
    _must(ezkl.setup(at["network.ezkl"], at["vk.key"], at["pk.key"], at["kzg.srs"]), "The setup")


def prove(
    group: Group, theta: np.ndarray, theta_new: np.ndarray, gradients: np.ndarray, folder: Path
) -> dict[str, Any]:
    """A proof for a group that was set up in ``folder``; its instances hold the hashes, masked weights and residuals.

    theta, theta_new: (d,). gradients: N×d. Raises UsageError for other shapes.
    """
    ezkl = _ezkl()
    shapes = (theta.shape, theta_new.shape, gradients.shape)
    size = len(group.masked)
    if shapes != ((size,), (size,), (group.samples, size)):
        raise UsageError(f"The group takes {size} weights and {group.samples} gradients, not {shapes}.")
    at = _paths(folder)
    try:
        _write(folder / "input.json", (theta, theta_new, gradients))
        _must(ezkl.gen_witness(at["input.json"], at["network.ezkl"], at["witness.json"]), "The witness")
        _must(
            ezkl.prove(at["witness.json"], at["network.ezkl"], at["pk.key"], at["proof.json"], at["kzg.srs"]),
            "The proof",
        )
        return json.loads(Path(at["proof.json"]).read_text())
    finally:  # both hold the weights in clear
        for name in ("input.json", "witness.json"):
            Path(at[name]).unlink(missing_ok=True)


def verify(group: Group, folder: Path, proof: dict[str, Any]) -> tuple[str, ...]:
    """The three commitments (hashes of θ, θ', G) when the proof holds.

    Needs settings.json, vk.key and kzg.srs in ``folder``. Raises NotVerifiedError when it does not hold, or when a
    masked weight is not zero or a residual above the tolerance.
    """
    ezkl = _ezkl()
    at = _paths(folder)
    Path(at["received.json"]).write_text(json.dumps(proof))
    try:
        good = ezkl.verify(at["received.json"], at["settings.json"], at["vk.key"], at["kzg.srs"])
    except (RuntimeError, ValueError):
        good = False
    scales = json.loads(Path(at["settings.json"]).read_text())["model_output_scales"]
    if not good:
        raise NotVerifiedError("The proof does not hold for this circuit.")
    public = list(proof["instances"][0])
    size = len(group.masked)
    if len(public) != len(INPUTS) + 2 * size:
        raise NotVerifiedError("The proof speaks of another number of weights.")
    hashes, values = public[: len(INPUTS)], public[len(INPUTS) :]
    masked, residual = (
        np.array([_signed(ezkl, v) for v in part]) / 2.0**scale
        for part, scale in ((values[:size], scales[0]), (values[size:], scales[1]))
    )
    if masked.any():
        raise NotVerifiedError("A masked weight is not zero.")
    if np.abs(residual).max() > group.tolerance:
        raise NotVerifiedError("The other weights are not those that make up for the masked ones.")
    return tuple(hashes)


def _signed(ezkl: Any, element: str) -> int:
    """A field element as a signed whole number."""
    return int(ezkl.felt_to_int(element))


def _circuit(group: Group, path: Path) -> None:
    """The check as an ONNX graph over 1×(d + blind), 1×(d + blind) and N×(d + blind)."""
    onnx, helper, numpy_helper = _onnx()
    size, n = len(group.masked), group.samples
    masked = np.array(group.masked, np.float32)[None]
    constants = {
        "start": np.array([0]), "end": np.array([size]), "axis": np.array([1]),
        "is_masked": masked, "is_free": 1 - masked,
        "share": np.array([[1 / n]], np.float32), "damping": np.array([[group.damping]], np.float32),
    }  # fmt: skip
    nodes = [helper.make_node("Slice", [name, "start", "end", "axis"], [f"{name}_"]) for name in INPUTS]
    nodes += [
        helper.make_node("Sub", ["theta_new_", "theta_"], ["delta"]),
        helper.make_node("Transpose", ["gradients_"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["delta", "turned"], ["along"]),
        helper.make_node("MatMul", ["along", "gradients_"], ["back"]),
        helper.make_node("Mul", ["back", "share"], ["mean"]),
        helper.make_node("Mul", ["delta", "damping"], ["damped"]),
        helper.make_node("Add", ["mean", "damped"], ["whole"]),
        helper.make_node("Mul", ["theta_new_", "is_masked"], ["masked_weights"]),
        helper.make_node("Mul", ["whole", "is_free"], ["residual"]),
    ]
    value = onnx.TensorProto.FLOAT
    width = size + BLIND
    shapes = {"theta": [1, width], "theta_new": [1, width], "gradients": [n, width]}
    inputs = [helper.make_tensor_value_info(name, value, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info(name, value, [1, size]) for name in ("masked_weights", "residual")]
    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "group", inputs, outputs, initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _write(path: Path, values: tuple[np.ndarray, ...]) -> None:
    """Inputs with fresh random entries behind each row, readable by the owner only."""
    rows = []
    for array in values:
        table = np.atleast_2d(array)
        noise = [[secrets.randbelow(2**21) / 2**SCALE - 128 for _ in range(BLIND)] for _ in table]
        rows.append(np.concatenate([table, noise], 1).flatten().tolist())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"input_data": rows}, file)


def _paths(folder: Path) -> dict[str, str]:
    return {name: str(folder / name) for name in FILES}


def _must(done: Any, what: str) -> None:
    if not done:
        raise UsageError(f"{what} of the proof could not be made.")


def _ezkl() -> Any:
    try:
        import ezkl
    except ImportError:
        raise MissingDependencyError("Proofs by SNARK need ezkl and onnx: pip install 'vestige[proofs]'.") from None
    return ezkl


def _onnx() -> tuple[Any, Any, Any]:
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        raise MissingDependencyError("Proofs by SNARK need ezkl and onnx: pip install 'vestige[proofs]'.") from None
    return onnx, helper, numpy_helper
