"""What an audit asks of the features: how similar they stayed, and whether what was forgotten is still in them.

Similarity to the original's (CKA), what neighbours and a new last layer find, and sparse restoration at the features:
strengthening the latents of the forgotten class and reading them with the own and with the original's last layer.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from vestige.core.errors import UsageError
from vestige.core.runtime import rng
from vestige.engines.forgetting.evaluate import represent
from vestige.engines.forgetting.problem import ForgetProblem
from vestige.engines.forgetting.samples import Samples, joined
from vestige.metrics.representation import knn_probe, linear_probe
from vestige.metrics.similarity import linear_cka
from vestige.nn.access import evaluating, features_and_outputs, head, head_name, inside
from vestige.unlearning.sae_restore import SaeRestore

#: Latents of the autoencoder for each of the features, and at most; how many are on at a time; steps of training.
LATENTS, MOST_LATENTS, ON, STEPS = 4, 512, 16, 300
#: Forgotten classes that are restored, at most.
MOST_CLASSES = 3
#: Names of the two figures of the restoration.
OWN, READ = "restored by sparse latents (of the original)", "restored, read by the original's last layer"


def representations(
    models: Mapping[str, nn.Module], forget: Samples, problem: ForgetProblem, most: int, seed: int
) -> dict[str, dict[str, float]]:
    """Figures by model: similarity to the original's features, and what neighbours and a new head find in them.

    Half of the forgotten samples, with twice ``most`` of the retained, teach; the other half is asked.
    """
    gone, kept = forget.sample(most, seed), problem.retain.sample(2 * most, seed)
    order = rng(seed, "probe").permutation(len(gone))
    fit, held = order[: len(gone) // 2], order[len(gone) // 2 :]
    rows: dict[str, dict[str, float]] = {}
    base: dict[str, np.ndarray] = {}
    for name, model in models.items():
        inner, outer = represent(model, gone), represent(model, kept)
        if name == "original":
            base = {"forget": inner, "retain": outer}
        row = rows[name] = {
            "similarity of features, forgotten (CKA)": _cka(inner, base["forget"]),
            "similarity of features, retained (CKA)": _cka(outer, base["retain"]),
        }
        if len(held) and len(fit):
            teach = np.concatenate([inner[fit], outer])
            labels = np.concatenate([gone.labels[fit], kept.labels])
            asked = (inner[held], gone.labels[held].numpy())
            row["a new head finds (accuracy)"] = linear_probe(teach, labels, *asked)
            row["neighbours find (accuracy)"] = knn_probe(teach, labels, *asked)
    return rows


def _cka(x: np.ndarray, y: np.ndarray) -> float:
    return linear_cka(x, y) if min(x.std(0).max(), y.std(0).max()) > 0 else 0.0


def features_moved(original: nn.Module, changed: nn.Module) -> float | None:
    """‖θ' − θ‖ / ‖θ‖ over all weights but the head's; 0 when only the last layer was edited. None when the modules'
    parameters cannot be told to correspond: neither their names, nor the ends of their names, and shapes.

    >>> a = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> features_moved(a, a), features_moved(a, nn.Sequential(a)), features_moved(a, nn.Linear(3, 2))
    (0.0, 0.0, None)
    """
    last = [head_name(original)]
    before = {n: v for n, v in original.state_dict().items() if v.is_floating_point() and not inside(n, last)}
    after = _corresponding(before, changed.state_dict())
    if after is None or not before:
        return None if after is None else 0.0
    moved = sum(float((after[n].cpu() - v.cpu()).double().square().sum()) for n, v in before.items())
    size = sum(float(v.double().square().sum()) for v in before.values())
    return (moved / max(size, 1e-30)) ** 0.5


def _corresponding(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors of ``after`` by the names of ``before``; a wrapper may have put words before the names of either."""
    found = {}
    for name, value in before.items():
        ends = [n for n in after if n == name] or [n for n in after if n.endswith(f".{name}") or name.endswith(f".{n}")]
        if len(ends) != 1 or after[ends[0]].shape != value.shape:
            return None
        found[name] = after[ends[0]]
    return found


class Half(nn.Module):
    """One of two networks' features that lie side by side in N×2d: the first d or the last."""

    def __init__(self, second: bool) -> None:
        super().__init__()
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        return x.chunk(2, 1)[int(self.second)]


def _tail(model: nn.Module, second: bool) -> nn.Module:
    """Features side by side -> what the model's last layer says about its own."""
    parts = OrderedDict(features=Half(second), head=copy.deepcopy(head(model)).float().cpu())
    return nn.Sequential(parts).eval()


@torch.no_grad()
def _sees_features_alone(model: nn.Module, samples: Samples) -> bool:
    """Whether the last linear layer, and nothing behind it, makes the output."""
    batch = next(samples.batches(min(8, len(samples)), device=next(model.parameters()).device))
    with evaluating(model):
        features, said = features_and_outputs(model, batch.x)
        again = head(model)(features)
    return again.shape == said.shape and bool(torch.allclose(again, said, atol=1e-4))


def restoration(
    models: Mapping[str, nn.Module], forget: Samples, problem: ForgetProblem, most: int, seed: int
) -> dict[str, dict[str, float]]:
    """Figures by model: how far the forgotten classes come back from the features, over the original's accuracy on them
    (at most 1).

    `SaeRestore` at the input of the last layer, autoencoder of the original's features. `OWN`: the forgotten class's
    latents are set to the original's ("inject_experts") and the model's own last layer answers. `READ`: the model's own
    features, carried to the original's by a linear map fitted on retained pictures alone, are read by the original's
    last layer; this sees behind an edit of the last layer. One half of the pictures chooses how strong, the other is
    reported; strengths that make the class out of other pictures do not count. Mean over up to `MOST_CLASSES` classes.

    Empty when no class is forgotten: single pictures have no latents of their own. Raises UsageError when the network
    has more behind its last linear layer or when there are too few pictures.
    """
    if not problem.classes:
        return {}
    if not all(_sees_features_alone(model, forget) for model in models.values()):
        raise UsageError("the outputs are not those of the last linear layer")
    if len({head(model).in_features for model in models.values()}) > 1:
        raise UsageError("the models have features of different width")
    own = forget if problem.test_forget is None else problem.test_forget
    assert problem.test is not None
    kept = problem.retain.sample(2 * most, seed + 1)
    rest = problem.test.sample(2 * most, seed)
    teach = joined([forget.sample(most, seed + 1), kept])
    sets = {"teach": teach, "kept": kept, "own": own.sample(most, seed), "rest": rest}
    base = {name: represent(models["original"], samples) for name, samples in sets.items()}
    sae: SaeRestore | None = None
    rows: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        if name == "original":
            continue
        both = {which: _beside(base[which], represent(model, samples), samples) for which, samples in sets.items()}
        first, other = _tail(models["original"], False), _tail(model, True)
        if sae is None:
            sae = _autoencoder(first, both["teach"], seed)
        found: list[dict[str, float]] = []
        for label in problem.classes[:MOST_CLASSES]:
            experts = sae.expert_latents(first, both["teach"], label)
            tuning, test = _parts(both["own"], both["rest"], label, seed)
            injected = sae.measure(first, other, label, test, tuning, experts, mode="inject_experts", alphas=(1.0, 2.0))
            read = sae.measure(
                first, other, label, test, tuning, experts, retained=both["kept"], alphas=(0.0, 1.0, 5.0, 10.0)
            )
            found.append({OWN: min(1.0, injected["restored"]), READ: min(1.0, read["restored"])})
        rows[name] = {which: float(np.mean([one[which] for one in found])) for which in (OWN, READ)}
    return rows


def _beside(first: np.ndarray, second: np.ndarray, samples: Samples) -> Samples:
    return Samples(torch.from_numpy(np.hstack([first, second])).float(), samples.labels)


def _autoencoder(tail: nn.Module, samples: Samples, seed: int) -> SaeRestore:
    width = samples.inputs.shape[1] // 2
    latents = min(LATENTS * width, max(width, MOST_LATENTS))
    epochs = -(-STEPS // -(-len(samples) // 1024))
    sae = SaeRestore("features", latents, min(ON, max(1, latents // 4)), epochs=epochs, seed=seed)
    return sae.fit(tail, samples)


def _parts(own: Samples, rest: Samples, label: int, seed: int) -> tuple[Samples, Samples]:
    """Pictures of the class and of others in two halves: to choose a strength with, and to report."""
    mine, halves = own.take(own.labels == label), []
    for samples in (mine, rest.take(rest.labels != label)):
        order = rng(seed, "restoration").permutation(len(samples))
        if len(order) < 4:
            raise UsageError(f"there are fewer than four pictures of class {label} or of others to restore it on")
        halves.append((samples.take(np.sort(order[::2])), samples.take(np.sort(order[1::2]))))
    return joined([halves[0][0], halves[1][0]]), joined([halves[0][1], halves[1][1]])
