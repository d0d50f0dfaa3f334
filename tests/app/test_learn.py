"""``vestige learn``: recipes are found, set, trained, resumed and reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from vestige.app.verbs.learning import list_variants, parse, run, settings
from vestige.core.errors import InputError, Interrupted, UsageError
from vestige.engines.recipe import Recipe, Variant, load_recipe, recipe_modules
from vestige.engines.run_log import read_log
from vestige.engines.runs import finished
from vestige.engines.train import TrainConfig

RECIPE = """
import os
from pathlib import Path
import torch
from torch import nn
from vestige.engines.recipe import Job, Recipe
from vestige.engines.train import TrainConfig


def build(context):
    o = context.options
    assert context.out.name and context.device.type == "cpu"
    data = torch.randn(64, 3, generator=torch.Generator().manual_seed(context.seed))

    def batches(number, generator):
        if number == o["fail_at"]:
            raise KeyboardInterrupt
        return data[torch.randint(64, (context.config.batch_size,), generator=generator)]

    def step(model, batch, generator):
        return {"loss": (model(batch) - o["target"]).square().mean()}

    def save(model, out):
        (out / "bias.txt").write_text(str(model.bias.item()))

    return Job(
        nn.Linear(3, 1), step, batches,
        validate=lambda model: {"bias": model.bias},
        evaluate=lambda model: {"widths": o["widths"], "data": os.environ.get("VESTIGE_DATA"), "draw": torch.rand(())},
        save=save,
    )


RECIPE = Recipe(
    "tiny", "A line.", build, TrainConfig(steps=60, batch_size=16, lr=0.1, log_every=10, checkpoint_every=10),
    reach={"bias": "close to the target"},
    options={"target": 1.5, "widths": (8, 16), "name": "x", "fail_at": -1},
)
"""

TINY = "recipes/deep/tiny.py"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with one recipe, which is the working folder."""
    (tmp_path / "recipes" / "deep").mkdir(parents=True)
    (tmp_path / "recipes" / "deep" / "tiny.py").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VESTIGE_DATA", str(tmp_path))
    return tmp_path


def test_a_recipe_is_named_by_slug_or_by_its_file(here):
    assert load_recipe("scenes_classifier").name == "scenes_classifier"
    for name in (TINY, f"./{TINY}", here / TINY):
        assert load_recipe(name).name == "tiny"


def test_every_recipe_of_the_package_is_named_by_its_slug():
    for slug in recipe_modules():
        assert load_recipe(slug).name == slug


def test_a_recipe_that_is_not_there_names_the_nearest(here):
    with pytest.raises(InputError, match="did you mean scenes_classifier"):
        load_recipe("scene_classifier")
    for wrong in ("recipes/deep/tinny.py", "recipes/deep/tiny", "something_else_altogether"):
        with pytest.raises(InputError, match="There is no recipe"):
            load_recipe(wrong)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = = 1", "SyntaxError"),
        ("import no_such_module", "no_such_module"),
        ("RECIPE = 3", "defines no RECIPE"),
        ("from vestige.core.errors import UsageError\nraise UsageError('my words')", "my words"),
    ],
)
def test_a_broken_recipe_says_what_is_wrong(here, code, words):
    (here / "broken.py").write_text(code)
    with pytest.raises((InputError, UsageError), match=words):
        load_recipe("broken.py")


def test_an_option_may_not_hide_a_setting():
    with pytest.raises(InputError, match="'steps'"):
        Recipe("r", "", lambda context: None, TrainConfig(), options={"steps": 3})  # type: ignore[arg-type,return-value]


def test_learn_trains_evaluates_saves_and_reports(here, capsys):
    assert run(TINY, device="cpu", data=here) == 0
    out = here / "out/runs/tiny/default/0"
    said = capsys.readouterr().out
    for words in ("60 steps in", "bias: 1.", "to reach: bias close to the target", "Written: out/runs/tiny/default/0"):
        assert words in said
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["evaluation"]["widths"] == [8, 16]
    assert metrics["evaluation"]["data"] == str(here)
    assert metrics["validation"]["bias"] == pytest.approx(1.5, abs=0.3)
    assert float((out / "bias.txt").read_text()) == pytest.approx(metrics["validation"]["bias"])
    # The same command again trains nothing and finds the same.
    log = (out / "log.jsonl").read_bytes()
    assert run(TINY, device="cpu", quiet=True) == 0
    assert (out / "log.jsonl").read_bytes() == log
    again = json.loads((out / "metrics.json").read_text())
    assert again["evaluation"] == metrics["evaluation"]


def test_an_interrupted_run_goes_on_and_fresh_starts_over(here, capsys):
    whole, out = here / "whole", here / "run"
    run(TINY, whole, device="cpu", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, out, set_=["fail_at=35"], device="cpu", quiet=True)
    with pytest.raises(InputError, match="option fail_at=35"):
        run(TINY, out, device="cpu", quiet=True)
    (here / "recipes/deep/tiny.py").write_text(RECIPE.replace("raise KeyboardInterrupt", "pass"))
    run(TINY, out, set_=["fail_at=35"], device="cpu", quiet=True)
    assert [line["loss"] for line in read_log(out)] == [line["loss"] for line in read_log(whole)]
    assert run(TINY, out, set_=["steps=20"], device="cpu", quiet=True, fresh=True) == 0
    assert read_log(out)[-1]["step"] == 20
    assert capsys.readouterr().out == "", "quiet"


def test_seed_and_budget(here):
    losses = {}
    for seed in (None, 0, 1):
        run(TINY, here / str(seed), seed=seed, device="cpu", quiet=True)
        losses[seed] = read_log(here / str(seed))[-1]["loss"]
    assert losses[None] == losses[0] != losses[1]
    run(TINY, here / "b", set_=["steps=1000000"], budget=0.3 / 60, device="cpu", quiet=True)
    metrics = json.loads((here / "b/metrics.json").read_text())
    assert metrics["stopped"] == "budget"
    assert read_log(here / "b")[-1]["lr"] < 0.09, "the schedule follows the time"


def test_settings_are_parsed_by_their_types(here):
    recipe = load_recipe(TINY)
    words = [
        "lr=3e-4",
        "steps=1e3",
        "betas=0.8,0.99",
        "clip=none",
        "ema=0.9",
        "compile=yes",
        "optimizer=sgd",
        "warmup=7",
    ]
    config, options = settings(recipe, [*words, "target=2", "widths=(4, 5, 6)", "name=a=b", "warmup = 0.5"])
    expected = replace(
        recipe.config, lr=3e-4, steps=1000, betas=(0.8, 0.99), clip=None, ema=0.9, compile=True, optimizer="sgd",
        warmup=0.5,
    )  # fmt: skip
    assert config == expected
    assert options == {"target": 2.0, "widths": (4, 5, 6), "name": "a=b", "fail_at": -1}
    assert isinstance(options["target"], float)
    assert settings(recipe, [], budget=2.0)[0].budget_seconds == 120.0
    assert settings(recipe, ["schedule_by=step", "seed=5"], 2.0, 4)[0] == replace(
        recipe.config, budget_seconds=120.0, seed=5
    )


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("step=3", "did you mean steps"), ("targt=3", "did you mean target"), ("qqqqqqq=1", "it has steps, batch_size"),
        ("steps", "write steps=VALUE"), ("steps=many", "steps=many is not a whole number"),
        ("steps=1.5", "whole number"), ("lr=fast", "lr=fast is not a number"), ("compile=maybe", "true or false"),
        ("optimizer=lion", "one of adamw, sgd"), ("betas=0.9", "2 values with commas"), ("clip=x", "a number or none"),
        ("lr=0", "lr is 0.0; it must be above 0"), ("widths=1,x", "some values with commas"), ("lr=nan", "lr is nan"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_with_a_hint(here, item, words):
    with pytest.raises(UsageError, match=words):
        settings(load_recipe(TINY), [item])


def test_wrong_budgets_and_data_are_refused(here):
    with pytest.raises(UsageError, match="above 0 minutes"):
        run(TINY, budget=0.0)
    with pytest.raises(UsageError, match="does not exist"):
        run(TINY, data=here / "none")


def test_variants_are_trained_by_name_and_have_runs_of_their_own(here, capsys):
    arms = 'variants={"method": Variant("The method."), "off": Variant("Without it.", {"target": 0.0}, {"steps": 40})},'
    text = RECIPE.replace("import Job, Recipe", "import Job, Recipe, Variant").replace(
        "    reach=", f"    {arms} reach="
    )
    (here / "arms.py").write_text(text)
    recipe = load_recipe("arms.py")
    assert recipe.default == "method"
    assert run("arms.py", device="cpu", quiet=True, seed=3) == 0
    assert run("arms.py", device="cpu", quiet=True, variant="off") == 0
    one, other = finished("tiny", "method", 3), finished("tiny", "off", 0)
    assert one.figures["bias"] == pytest.approx(1.5, abs=0.4)
    assert other.metrics["options"]["target"] == 0.0
    assert other.metrics["step"] == 40
    assert list_variants("arms.py") == 0
    assert "off: Without it." in capsys.readouterr().out
    with pytest.raises(UsageError, match="it has method, off"):
        run("arms.py", variant="on")
    with pytest.raises(InputError, match="sets 'depth'"):
        replace(recipe, variants={"x": Variant("", {"depth": 3})})


def test_a_recipe_of_several_trainings_keeps_what_is_finished(here):
    text = """
from vestige.engines.parts import figures
from vestige.engines.recipe import Recipe

def perform(ctx):
    first = figures(ctx, "first", lambda: 1)
    if ctx.options["fail"]:
        raise KeyboardInterrupt
    return {"sum": first + figures(ctx, "second", lambda: 2), "updates": 7}

RECIPE = Recipe("parts", "Two parts.", perform=perform, options={"fail": False})
"""
    (here / "parts.py").write_text(text)
    with pytest.raises(Interrupted, match="goes on"):
        run("parts.py", here / "run", set_=["fail=yes"], device="cpu", quiet=True)
    (here / "run/first.json").write_text("10")
    assert run("parts.py", here / "run", device="cpu", quiet=True) == 0
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert metrics["evaluation"] == {"sum": 12}
    assert metrics["step"] == 7


def test_pictures_of_the_user_go_only_to_recipes_that_take_them(here):
    from vestige.core.image_io import save_image

    save_image(here / "mine/a.png", np.zeros((8, 8, 3), np.uint8))
    (here / "takes.py").write_text(RECIPE.replace('"tiny", "A line."', '"takes", "A line."').replace(
        "    reach=", "    takes_pictures=True, reach="
    ))  # fmt: skip
    assert run("takes.py", here / "run", data=here / "mine", device="cpu", quiet=True) == 0
    with pytest.raises(InputError):
        run("takes.py", here / "run", data=here / "recipes", device="cpu", quiet=True)


def test_parse_takes_what_fits_first():
    assert [parse(t, int | float | bool | str | None) for t in ("3", "0.5", "on", "None", "word")] == [
        3, 0.5, True, None, "word",
    ]  # fmt: skip
    assert parse("a", Literal["a", "b"]) == "a"
    assert parse("", tuple[int, ...]) == ()


def test_the_example_recipe_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["steps=12", "scenes=48", "held_out=24", "validate_every=0", "batch_size=16", "log_every=4"]
    assert run("scenes_classifier", tmp_path, set_=words, device="cpu", quiet=True) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["validation"]["accuracy"] <= 1
    lines = read_log(tmp_path)
    assert lines[-1]["loss"] < lines[0]["loss"]
