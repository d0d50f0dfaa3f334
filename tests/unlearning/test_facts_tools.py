"""FIUBench and UnLOK-VQA by the command's functions, on the starter kit's model and facts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import vestige
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import save_image
from vestige.core.work import Work
from vestige.data.starter_facts import SHOWN, people, picture_facts
from vestige.unlearning.tools import fiubench, unlok_vqa

MODEL = Path(vestige.__file__).parent / "weights" / "starter" / "vlm"


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """Pictures and facts as the kit has them; the path of the file of facts."""
    folder = tmp_path_factory.mktemp("facts")
    for person, views in enumerate(people()[0]):
        for view in SHOWN:
            save_image(folder / f"person-{person}-{view}.png", views[view].transpose(1, 2, 0))
    rows = [{"image": f"person-{p}-{v}.png", **row} for p, v, row in picture_facts()]
    (folder / "facts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder / "facts.jsonl"


def work(verb: str, method: str, *paths: Path, **more) -> Work:
    return Work(verb, method, paths or (MODEL,), device="cpu", quiet=True, **more)


def test_a_model_forgets_is_measured_and_attacked(album, tmp_path):
    before = fiubench.measure(work("measure", "fiubench", data=album)).figures
    assert before["EM"] == 1
    assert before["APE"] == 1
    assert before["utility"] > 0.95
    out = tmp_path / "without"
    done = fiubench.erase(work("erase", "fiubench", data=album, out=out, options={"epochs": "12"}))
    assert done.figures["after"] < 0.6
    both = fiubench.measure(work("measure", "fiubench", MODEL, out, data=album)).rows
    assert both[1]["p"] < both[0]["p"]
    assert len(fiubench.attack(work("attack", "fiubench", out, data=album)).rows) == 16


def test_one_fact_is_deleted_and_looked_for(album, tmp_path):
    out = tmp_path / "edited"
    done = unlok_vqa.erase(work("erase", "unlok_vqa", data=album, out=out, options={"fact": "1"}))
    assert done.figures["p of the answer before"] > 0.9
    assert done.figures["after"] < 0.01
    assert done.figures["retained after"] > 0.8
    whole, edited = (
        unlok_vqa.attack(work("attack", "unlok_vqa", path, data=album, options={"fact": "1"})).figures
        for path in (MODEL, out)
    )
    assert whole["attacks that found it"] == whole["attacks"]
    assert edited["attacks that found it"] <= whole["attacks that found it"]
    rows = unlok_vqa.measure(work("measure", "unlok_vqa", MODEL, out, data=album)).rows
    assert rows[1]["rewrite"] > 0


def test_what_does_not_fit_is_said_in_one_sentence(album, tmp_path):
    with pytest.raises(UsageError, match="--forget"):
        fiubench.erase(work("erase", "fiubench", out=tmp_path / "x"))
    with pytest.raises(InputError, match="no vision-language model"):
        fiubench.measure(work("measure", "fiubench", tmp_path, data=album))
    with pytest.raises(InputError, match="is no folder"):
        fiubench.measure(work("measure", "fiubench", album, data=album))
    kept = album.with_name("kept.jsonl")
    kept.write_text("\n".join(line for line in album.read_text().splitlines() if '"forget"' not in line))
    with pytest.raises(InputError, match="forgotten"):
        fiubench.measure(work("measure", "fiubench", data=kept))
    with pytest.raises(UsageError, match="rows 1 to"):
        unlok_vqa.attack(work("attack", "unlok_vqa", data=album, options={"fact": "999"}))
    assert not (tmp_path / "x").exists()


def test_a_model_of_transformers_answers_and_shows_its_layers(tmp_path):
    from tests.unlearning.test_fiubench import llava, rows_file
    from vestige.unlearning.answerers import open_answerer
    from vestige.unlearning.unlok_vqa import lens_logits
    from vestige.unlearning.vlm import read_rows

    model, processor = llava()
    model.save_pretrained(tmp_path / "llava")
    processor.save_pretrained(tmp_path / "llava")
    facts = rows_file(tmp_path, [{"image": f"{i}.png", "question": "who is this ?", "answer": "ada"} for i in (0, 1)])
    rows = read_rows(facts)
    answerer = open_answerer(tmp_path / "llava", rows)
    assert len(answerer.answers(rows, 1)) == 2
    module, samples = answerer.samples(rows)
    with torch.no_grad():
        lens = lens_logits(module, samples.inputs, samples.labels)
        said = module(samples.inputs)
    at = (samples.labels >= 0).int().argmax(1)
    torch.testing.assert_close(lens[-1], said[torch.arange(2), at], atol=1e-4, rtol=1e-4)
    answerer.save(tmp_path / "again")
    assert open_answerer(tmp_path / "again", rows).word(5) == answerer.word(5)
