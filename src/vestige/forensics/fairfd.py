"""FairFD: fairness of forgery detectors by group, and pruning of the weights that carry the difference.

Source: Thinking Racial Bias in Fair Forgery Detection: Models, Datasets and Evaluations, AAAI 2025.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vestige.core.errors import UsageError
from vestige.metrics.fairness import GroupTable, fairness_summary, fairness_table

if TYPE_CHECKING:
    from torch import Tensor, nn

Importance = Literal["fair", "weight", "activation"]


class FairFD:
    """Fairness of any detector from its scores, approaches and groups.

    threshold: at or above it a score calls a picture fake; 0.5 suits probabilities, else take the one of equal errors
    on validation data.

    >>> scores, kinds, groups = [0.1, 0.9, 0.8, 0.9], ["real", "real", "swap", "swap"], ["a", "b", "a", "b"]
    >>> FairFD().measure(scores, kinds, groups)["aa-dpd"]
    0.5
    """

    slug = "fairfd"

    def __init__(self, *, threshold: float = 0.5) -> None:
        self.threshold = threshold

    def table(self, scores: Any, approach: Any, group: Any) -> GroupTable:
        """Accuracy of every approach ("real" or a forgery's name) in every group; see `fairness_table`."""
        return fairness_table(scores, approach, group, threshold=self.threshold)

    def measure(self, scores: Any, approach: Any, group: Any) -> dict[str, float]:
        """Naive, approach-averaged and utility-regularised spreads, with the accuracies they have to be read with.

        Keys: "accuracy", "worst_group_accuracy", and "naive-", "aa-", "ur-" before "dpd", "deo", "deodds", "std".
        Raises UsageError for lengths that differ, less than two groups, or an approach missing in a group.
        """
        return fairness_summary(self.table(scores, approach, group))


def bpfa_prune(
    model: nn.Module, groups: Mapping[str, Iterable[Tensor]], *, fraction: float = 1e-3, by: Importance = "fair",
    run: Callable[[Tensor], Any] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Bias pruning with fair activations: zero the least important ``fraction`` of every convolution's weights.

    For an output channel, b = std over groups of ‖mean activation map on real pictures of the group‖₂, and the
    importance of its weights is |w| / b, so that small weights go first where groups differ most. by: "weight" takes
    |w| and "activation" 1 / b alone, for comparison. groups: group -> batches N×C×H×W of real pictures that are used
    for nothing else. run: how the model is called with a batch, where not directly. The model is changed in place and
    stays in its mode. Returns the number of weights zeroed by layer, ⌊fraction · size⌋ each; layers that take no part
    in the answer are left out. Raises UsageError for fewer than two groups, a fraction outside [0, 1), an unknown
    importance, or a model without convolutions.
    """
    import torch
    from torch import nn

    if len(groups) < 2 or not 0 <= fraction < 1 or by not in ("fair", "weight", "activation"):
        raise UsageError(
            f"Pruning needs two groups, a fraction in [0, 1) and importance fair, weight or activation; got "
            f"{len(groups)}, {fraction} and {by!r}."
        )
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if not layers:
        raise UsageError("The model has no convolution to prune.")
    norms = {name: [] for name in layers}  # type: dict[str, list[Tensor]]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batches in groups.values():
                for name, maps in _mean_maps(run or model, layers, batches).items():
                    norms[name].append(maps.flatten(1).norm(dim=1))
            zeroed = {}
            for name, layer in layers.items():
                if not norms[name]:
                    continue  # it takes no part in the answer
                bias = torch.stack(norms[name]).std(0, correction=0)
                # A channel that treats all groups alike would divide by nothing; it is as fair as the fairest measured.
                bias = bias.clamp_min(max(float(bias.max()) * 1e-6, 1e-12))[:, None, None, None]
                weight = layer.weight
                importance = {"fair": weight.abs() / bias, "weight": weight.abs(), "activation": 1 / bias}[by]
                count = math.floor(fraction * weight.numel())
                flat = importance.expand_as(weight).flatten()
                weight.view(-1)[flat.argsort(stable=True)[:count]] = 0
                zeroed[name] = count
    finally:
        model.train(training)
    return zeroed


def _mean_maps(
    model: Callable[[Tensor], Any], layers: Mapping[str, nn.Module], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """Mean activation map (channels×h×w) of every layer over all pictures of a group."""
    sums: dict[str, Tensor] = {}
    seen = 0

    def adder(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def add(module: nn.Module, given: Any, out: Tensor) -> None:
            sums[name] = sums[name] + out.sum(0) if name in sums else out.sum(0)

        return add

    hooks = [layer.register_forward_hook(adder(name)) for name, layer in layers.items()]
    try:
        for batch in batches:
            model(batch)
            seen += len(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise UsageError("A group has no pictures to measure activations on.")
    return {name: total / seen for name, total in sums.items()}


def biased_answers(
    bias: float, forgeries: int, groups: int, pictures: int, generator: np.random.Generator, accuracy: float = 0.7
) -> tuple[np.ndarray, list[str], list[str]]:
    """Scores of a detector whose accuracy differs by ``bias`` between groups, the other way round at every other
    approach, so that averages over approaches hide it; with approaches and groups, (1 + forgeries)·groups·pictures.

    >>> scores, approach, group = biased_answers(0.2, 3, 4, 10, np.random.default_rng(0))
    >>> len(scores), sorted(set(approach)), len(set(group))
    (160, ['forgery 1', 'forgery 2', 'forgery 3', 'real'], 4)
    """
    scores, kinds, names = [], [], []
    for row in range(1 + forgeries):
        for column in range(groups):
            lean = (column / (groups - 1) - 0.5) * (1 if row % 2 else -1)
            right = generator.random(pictures) < accuracy + bias * lean
            fake = right if row else ~right
            scores.append(np.where(fake, 0.75, 0.25))
            kinds += [f"forgery {row}" if row else "real"] * pictures
            names += [f"group {column + 1}"] * pictures
    return np.concatenate(scores), kinds, names
