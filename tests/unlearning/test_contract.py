"""Contract of the wing: every eraser of models in the catalogue, on problems it has not seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.unlearning.toys import toy_problem
from vestige.core.catalogue import systems
from vestige.core.roles import UNLEARNING_NEEDS, Unlearner
from vestige.nn.access import outputs

ERASERS = [
    pytest.param(s, id=s.slug)
    for s in systems()
    if s.wing == "unlearning" and s.target is not None and "erase" in s.roles and s.subject == "model"
]


@pytest.mark.parametrize("kind", ["class", "random"])
@pytest.mark.parametrize("entry", ERASERS)
def test_an_eraser_returns_a_new_model_and_leaves_its_input_alone(entry, kind):
    eraser = entry.load()()
    assert isinstance(eraser, Unlearner)
    assert eraser.slug == entry.slug
    assert eraser.needs <= UNLEARNING_NEEDS
    problem = toy_problem(kind)
    if not {"labels", "training"} & eraser.needs:
        problem = problem.without_labels()
    before = {name: value.clone() for name, value in problem.model.state_dict().items()}
    modes = [part.training for part in problem.model.modules()]
    flags = [p.requires_grad for p in problem.model.parameters()]

    forgotten = eraser.erase(problem)

    assert forgotten is not problem.model
    for name, value in problem.model.state_dict().items():
        assert torch.equal(value, before[name]), f"{entry.slug} changed {name} of the model it was given"
    assert [part.training for part in problem.model.modules()] == modes
    assert [p.requires_grad for p in problem.model.parameters()] == flags
    assert all(p.grad is None for p in problem.model.parameters())
    x = next(problem.test.batches(8)).x
    with torch.no_grad():
        said = outputs(forgotten.eval(), x)
        assert said.shape == outputs(problem.model, x).shape
    assert torch.isfinite(said).all()
    assert set(forgotten.state_dict()) == set(before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in forgotten.modules())
    assert any(not torch.equal(value, before[n]) for n, value in forgotten.state_dict().items())


@pytest.mark.parametrize("entry", ERASERS)
def test_an_eraser_is_deterministic(entry):
    x = next(toy_problem().test.batches(8)).x
    one, two = (outputs(entry.load()().erase(toy_problem()).eval(), x) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("entry", [p for p in ERASERS if "labels" in p.values[0].load()().needs])
def test_missing_labels_are_refused_in_one_sentence(entry):
    from vestige.core.errors import VestigeError

    with pytest.raises(VestigeError, match="label") as caught:
        entry.load()().erase(replace(toy_problem().without_labels()))
    assert "\n" not in str(caught.value)
