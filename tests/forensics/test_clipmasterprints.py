"""CLIPMasterPrints: mined pictures stay in their box, the best is kept, and rates count what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.bench.forensics.masterprints import lettered
from vestige.core.errors import UsageError
from vestige.forensics.clipmasterprints import (
    ClipMasterPrints,
    GapShift,
    LeastMatch,
    MasterPrintNet,
    fooling_rate,
    mine,
)
from vestige.nn.image_text import ImageText, cosines, small_clip
from vestige.nn.text import build_tokenizer, token_ids

CAPTIONS = ["a red ball", "a blue cup", "a green tree", "a black car"]


@pytest.fixture(scope="module")
def model() -> ImageText:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(CAPTIONS, 8)
    return ImageText(small_clip(tokenizer, size=16, patch=8, width=32, depth=1), tokenizer).requires_grad_(False)


def start(n: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 16, 16), generator=torch.Generator().manual_seed(1)) / 255


def least(model: ImageText, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return cosines(model.images(images), model.texts(CAPTIONS)).amin(1)


def test_pgd_stays_in_the_box_and_on_eight_bits(model: ImageText) -> None:
    found = mine(model, [CAPTIONS] * 2, start=start(), steps=25, epsilon=15 / 255)
    levels = found * 255
    assert (levels - levels.round()).abs().max() < 1e-3
    assert (found - start()).abs().max() <= 15 / 255 + 1e-6
    assert (least(model, found) > least(model, start())).all()


def test_more_steps_never_lose_what_was_found(model: ImageText) -> None:
    reached = [least(model, mine(model, CAPTIONS, "sgd", steps=steps, seed=3))[0].item() for steps in (1, 8, 30)]
    assert reached == sorted(reached)
    again = mine(model, CAPTIONS, "sgd", steps=8, seed=3)
    torch.testing.assert_close(again, mine(model, CAPTIONS, "sgd", steps=8, seed=3), atol=0, rtol=0)


def test_evolution_asks_only_for_similarities(model: ImageText) -> None:
    def squares(z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(z.view(-1, 3, 2, 2)).repeat_interleave(8, 2).repeat_interleave(8, 3)

    first = torch.zeros(1, 12)
    found = mine(model, [CAPTIONS], "lve", start=first, generator=squares, steps=120)
    assert found.shape == (1, 3, 16, 16)
    assert least(model, found) > least(model, squares(first))


def test_the_smooth_aim_lies_below_the_minimum_and_reaches_all_models(model: ImageText) -> None:
    aim = LeastMatch([model, model], [CAPTIONS] * 2)
    scores = aim(start(), torch.arange(2), 0)
    assert (scores.loss <= scores.margin).all()
    assert aim.similarities(start(), torch.arange(2)).shape == (2, 8)


def test_the_fooling_rate_is_the_rank_of_an_identical_picture() -> None:
    own = [np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.6])]
    assert fooling_rate([0.4, 0.6], own) == 4 / 6  # of every caption all but the picture itself
    with pytest.raises(UsageError):
        fooling_rate([0.4], own)


def test_no_share_of_the_gap_changes_nothing_and_all_of_it_joins_the_means(model: ImageText) -> None:
    none, full = (GapShift(model, s).fit(start(8), CAPTIONS) for s in (0.0, 0.5))
    with torch.no_grad():
        torch.testing.assert_close(none.images(start()), model.images(start()))
        torch.testing.assert_close(none.texts(CAPTIONS), model.texts(CAPTIONS))
        torch.testing.assert_close(full.images(start(8)).mean(0), full.texts(CAPTIONS).mean(0))


def test_captions_train_the_small_model() -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(CAPTIONS, 8)
    net = ImageText(small_clip(tokenizer, size=16, patch=8, width=32, depth=1), tokenizer)
    ids, images = token_ids(tokenizer, CAPTIONS), start(4)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        loss = net.loss(images, ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert net.loss(images[:1].expand(2, -1, -1, -1), ids[:1].expand(2, -1)).item() == pytest.approx(
        np.log(2), rel=1e-3
    )


def test_the_system_attacks_and_examines(model: ImageText) -> None:
    torch.manual_seed(0)
    system = ClipMasterPrints(model, CAPTIONS, network=MasterPrintNet((8,)), steps=4, epsilon=4 / 255)
    found = system.attack(start())
    assert (found - start()).abs().max() <= 4 / 255 + 1e-6
    assert system.score(torch.rand(2, 3, 40, 48)).shape == (2,)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(UsageError, match="captions"):
        ClipMasterPrints().attack(start())
    with pytest.raises(UsageError, match="network"):
        ClipMasterPrints().score(start())
    with pytest.raises(UsageError, match="distinct"):
        LeastMatch([], [CAPTIONS])


def test_mining_needs_a_start(model: ImageText) -> None:
    with pytest.raises(UsageError, match="start"):
        mine(model, CAPTIONS)
    with pytest.raises(UsageError, match="generator"):
        mine(model, CAPTIONS, "lve", start=torch.zeros(1, 4))


def test_letters_are_drawn_for_words_that_tell_captions_apart() -> None:
    images = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    drawn = lettered(images, CAPTIONS)
    assert drawn.shape == images.shape
    assert drawn[0].amax() > 0.7  # white on black, black on white
    assert drawn[1].amin() < 0.3
    assert (images == torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])).all()
    assert torch.equal(lettered(images, ["a ball", "a ball"]), images)  # no word differs
    assert not torch.equal(drawn, lettered(images, ["a pink heart", "a yellow fish"]))
