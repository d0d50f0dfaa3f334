"""Weights of the learned examiners: one safetensors file each, with what is needed to rebuild the network.

They are the package's, or those that the finished run of a recipe left in the folder of runs, or the user names a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vestige.core.calibration import sigmoid, with_prior
from vestige.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

#: Where shipped weights are.
WEIGHTS = Path(__file__).parent.parent / "weights"

N = TypeVar("N", bound="nn.Module")


def save_network(path: Path, network: Any, slug: str, facts: Mapping[str, Any]) -> None:
    """Write weights, ``network.settings`` and JSON-like facts about the training, atomically."""
    from vestige.engines.run_state import write_model

    write_model(path, network, {"examiner": slug, "settings": network.settings, "facts": dict(facts)})


def default_weights(slug: str, recipe: str | None = None) -> Path | None:
    """The package's weights of an examiner, else those of the finished run of its recipe; None without either.

    recipe: what trains it, ``slug`` by default. Of several runs the first by name of variant and seed counts; only a
    variant that is meant for use writes SLUG.safetensors.
    """
    from vestige.engines.runs import runs_root

    shipped = WEIGHTS / f"{slug}.safetensors"
    if shipped.is_file():
        return shipped
    found = sorted((runs_root() / _recipe(slug, recipe)).glob(f"*/*/{slug}.safetensors"))
    return next((path for path in found if (path.parent / "metrics.json").is_file()), None)


def _recipe(slug: str, recipe: str | None) -> str:
    return (recipe or slug).rpartition("/")[2]


def load_network(
    slug: str, build: Callable[..., N], path: str | Path | None = None, *, recipe: str | None = None
) -> tuple[N, dict[str, Any]]:
    """(network in evaluation mode, facts) of a file written by `save_network`, by default that of `default_weights`.

    build: takes the stored settings as keyword arguments. recipe: what trains it, ``slug`` by default.
    Raises InputError, naming the command that trains it, when the file is missing; InputError when it is damaged, of
    another system or another version.
    """
    from safetensors import SafetensorError, safe_open

    from vestige.engines.run_state import load_trained

    command = f"vestige learn {_recipe(slug, recipe)}"
    file = default_weights(slug, recipe) if path is None else Path(path)
    if file is None:
        raise InputError(f"There is no trained network of {slug} here; '{command}' trains one.")
    if not file.is_file():
        raise InputError(f"The weights of {slug} are not at {file}; '{command}' trains some.")
    try:
        with safe_open(str(file), "pt") as opened:
            metadata = opened.metadata() or {}
        found, settings, facts = (json.loads(metadata[key]) for key in ("examiner", "settings", "facts"))
        if not isinstance(settings, dict) or not isinstance(facts, dict):
            raise ValueError("settings")
    except (SafetensorError, OSError, KeyError, ValueError):
        raise InputError(f"{file} holds no weights of an examiner; give one that a recipe wrote ({command}).") from None
    if found != slug:
        raise InputError(f"{file} holds the weights of {str(found)[:40]!r}, not of {slug!r}.")
    try:
        network = build(**settings)
    except TypeError:
        raise InputError(f"{file} was written by another version of {slug}; train it again.") from None
    load_trained(file, network)
    return network.eval().requires_grad_(False), facts


def examiner_of(path: Path) -> str:
    """The slug of the examiner that a file of `save_network` belongs to; raises InputError when it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as opened:
            return str(json.loads((opened.metadata() or {})["examiner"]))
    except (SafetensorError, OSError, KeyError, ValueError):
        raise InputError(f"{path} holds no weights of an examiner; give a file that a recipe of one wrote.") from None


def calibration(clean: np.ndarray, made: np.ndarray, rate: float) -> dict[str, float]:
    """Facts for `stated`: the threshold that at most ``rate`` of the clean scores reach, and the log-odds of a score.

    clean, made: scores (N,) and (M,) of files without and with what the examiner seeks.
    """
    from sklearn.linear_model import LogisticRegression

    from vestige.metrics.detection import null_threshold

    scores, labels = np.append(clean, made), np.repeat([0, 1], [len(clean), len(made)])
    fitted = LogisticRegression(C=1e3, class_weight="balanced").fit(scores[:, None], labels)
    return {
        "threshold": null_threshold(clean, rate), "false_positive_rate": rate,
        "slope": float(fitted.coef_[0, 0]), "offset": float(fitted.intercept_[0]),
    }  # fmt: skip


def stated(facts: Mapping[str, Any], score: float) -> dict[str, Any]:
    """What a finding states of its score by `calibration`'s facts, as keyword arguments; nothing without them.

    >>> stated({"threshold": 2.0, "false_positive_rate": 0.02, "slope": 1.0, "offset": 0.0}, 2.5)["flagged"]
    True
    """
    if "threshold" not in facts:
        return {}
    return {
        "flagged": score >= facts["threshold"],
        "probability": with_prior(sigmoid(facts["slope"] * score + facts["offset"])),
        "threshold": facts["threshold"],
        "false_positive_rate": facts["false_positive_rate"],
    }
