"""Pipeline folders: ours run in diffusers, diffusers' run in ours, and unsafe or damaged ones are refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from vestige.core.errors import InputError, UsageError
from vestige.engines.diffusion.inversion import invert
from vestige.engines.diffusion.latent import decode_latents, encode_images, latent_mask
from vestige.engines.diffusion.pipeline import (
    DiffusersPipeline,
    TextToImage,
    diffusers_scheduler,
    load_pipeline,
    save_pipeline,
)
from vestige.engines.diffusion.schedules import continuous_vp, cosine, flow, grid, scaled_linear
from vestige.nn.text import build_tokenizer, text_encoder, token_ids, unknown_words
from vestige.nn.unet import text_unet
from vestige.nn.vae import identity_vae, small_vae

CAPTIONS = ["a photo of a red ball on grass", "a blue cup in neon style, on sand"]


def tiny(space: str = "pixel", table=None, prediction: str = "v") -> TextToImage:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(CAPTIONS, 16)
    vae = identity_vae() if space == "pixel" else small_vae(16, (16, 16), 4)
    if space == "latent":
        vae.register_to_config(scaling_factor=0.7)
    unet = text_unet(*((16, 3) if space == "pixel" else (8, 4)), "tiny", 32)
    return TextToImage(unet, vae, text_encoder(tokenizer, 32, 1, 2), tokenizer, table or cosine(), prediction).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("pipelines") / "ours", tiny())


def run_diffusers(path, latents: torch.Tensor, steps: int = 2) -> torch.Tensor:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        CAPTIONS, num_inference_steps=steps, guidance_scale=3.0, latents=latents.clone(), output_type="np"
    ).images
    return torch.from_numpy(made).permute(0, 3, 1, 2)


@pytest.mark.parametrize("space", ["pixel", "latent"])
def test_diffusers_draws_the_same_picture_from_our_folder(space, tmp_path):
    model = tiny(space, scaled_linear() if space == "latent" else None, "eps" if space == "latent" else "v")
    path = save_pipeline(tmp_path / "model", model)
    latents = torch.randn(2, *model.latent_shape(), generator=torch.Generator().manual_seed(1))
    ours = load_pipeline(path).sample(CAPTIONS, steps=2, method="ddim", latents=latents)
    assert ours.shape == (2, 3, 16, 16)
    assert float(ours.std()) > 0.01
    assert float((run_diffusers(path, latents) - ours).abs().max()) < 1e-4


def test_flow_models_keep_their_schedule(tmp_path):
    path = save_pipeline(tmp_path / "flow", tiny(table=flow(shift=2.0), prediction="flow"))
    loaded = load_pipeline(path)
    assert isinstance(loaded, TextToImage)
    assert loaded.prediction == "flow"
    assert torch.allclose(loaded.table.sigma, flow(shift=2.0).sigma)
    assert torch.isfinite(run_diffusers(path, torch.randn(2, 3, 16, 16))).all()


def test_saving_again_replaces_the_folder_and_leaves_nothing_behind(folder, tmp_path):
    path = tmp_path / "again"
    save_pipeline(path, tiny())
    changed = tiny()
    with torch.no_grad():
        changed.unet.conv_out.bias.fill_(0.5)
    save_pipeline(path, changed)
    assert load_pipeline(path).unet.conv_out.bias[0].item() == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["again"]
    (tmp_path / "notes").mkdir()
    with pytest.raises(InputError, match="no pipeline folder"):
        save_pipeline(tmp_path / "notes", changed)


def diffusers_folder(path, dtype=torch.float32):
    """A Stable Diffusion folder made with diffusers and transformers alone, with CLIP's own tokenizer class."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = [chr(c) for c in range(97, 123)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    path.mkdir(parents=True)
    (path / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(path / "vocab.json"), str(path / "merges.txt"), model_max_length=32)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=32, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
        attention_head_dim=2, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(16, 16), norm_num_groups=8, latent_channels=4, scaling_factor=0.5,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae, text, tokenizer, unet,
        DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1,
                      clip_sample=False, set_alpha_to_one=True),
        None, None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(path / "sd", safe_serialization=True)
    return path / "sd"


def test_a_folder_made_by_diffusers_gives_the_same_pictures_here(tmp_path):
    path = diffusers_folder(tmp_path / "made")
    model = load_pipeline(path)
    assert isinstance(model, TextToImage)
    assert model.prediction == "eps"
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = model.sample(CAPTIONS, steps=4, method="ddim", latents=latents, spacing="leading")
    assert float((run_diffusers(path, latents, 4) - ours).abs().max()) < 1e-4


def test_other_pipeline_classes_run_through_diffusers(tmp_path):
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler, UNet2DConditionModel

    model = tiny("latent")
    config = {k: v for k, v in model.unet.config.items() if not k.startswith("_")}
    unet = UNet2DConditionModel(**{**config, "time_cond_proj_dim": 8})
    LatentConsistencyModelPipeline(
        model.vae, model.text_encoder, model.tokenizer, unet, LCMScheduler(), None, None, requires_safety_checker=False
    ).save_pretrained(tmp_path / "lcm")
    loaded = load_pipeline(tmp_path / "lcm")
    assert isinstance(loaded, DiffusersPipeline)
    images = loaded.sample(CAPTIONS, steps=2, guidance=2.0)
    assert images.shape == (2, 3, 16, 16)
    assert torch.equal(images, loaded.sample(CAPTIONS, steps=2, guidance=2.0))


def test_missing_weights_are_not_made_up(folder, tmp_path):
    path = tmp_path / "bad"
    shutil.copytree(folder, path)
    config = json.loads((path / "unet" / "config.json").read_text())
    (path / "unet" / "config.json").write_text(json.dumps({**config, "transformer_layers_per_block": 2}))
    with pytest.raises(InputError, match="lacks weights"):
        load_pipeline(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "model_index.json").unlink(), "does not exist"),
        (lambda p: (p / "model_index.json").write_text("[1, 2]"), "does not have"),
        (lambda p: shutil.rmtree(p / "unet"), "no folder unet"),
        (lambda p: (p / "unet" / "modeling.py").write_text("raise SystemExit"), "holds code"),
        (lambda p: next((p / "vae").glob("*.safetensors")).write_bytes(b"\x08\0\0\0\0\0\0\0{}"), "damaged"),
        (lambda p: next((p / "vae").glob("*.safetensors")).rename(p / "vae" / "weights.bin"), "pickled"),
        (lambda p: next((p / "vae").glob("*.safetensors")).unlink(), "cannot be loaded"),
    ],
)  # fmt: skip
def test_unsafe_and_damaged_folders_are_refused(folder, tmp_path, change, message):
    path = tmp_path / "bad"
    shutil.copytree(folder, path)
    change(path)
    with pytest.raises(InputError, match=message):
        load_pipeline(path)


def test_classes_from_elsewhere_are_refused(folder, tmp_path):
    path = tmp_path / "bad"
    shutil.copytree(folder, path)
    index = json.loads((path / "model_index.json").read_text())
    for entry in (["os", "system"], ["my_module", "UNet"], ["diffusers", "a.b"]):
        (path / "model_index.json").write_text(json.dumps({**index, "unet": entry}))
        with pytest.raises(InputError, match="only diffusers and transformers"):
            load_pipeline(path)
    with pytest.raises(InputError, match="no folder"):
        load_pipeline(tmp_path / "missing")


def test_sampling_is_deterministic_and_independent_of_the_batch_size():
    model = tiny()
    prompts = CAPTIONS * 2
    whole = model.sample(prompts, steps=3, seed=5)
    assert torch.allclose(whole, model.sample(prompts, steps=3, seed=5, batch=1), atol=1e-5)
    assert not torch.allclose(whole, model.sample(prompts, steps=3, seed=6), atol=1e-2)
    assert torch.allclose(
        model.sample(CAPTIONS[0], steps=3, guidance=1.0),
        model.sample(CAPTIONS[0], steps=3, guidance=1.0, negative="a cup"),
    )


def test_bad_requests_are_refused():
    model = tiny()
    with pytest.raises(UsageError, match="at least one prompt"):
        model.sample([])
    with pytest.raises(UsageError, match="multiple of"):
        model.sample(["a ball"], size=15)
    assert model.sample(["a ball"], steps=1, size=(16, 32)).shape == (1, 3, 16, 32)


def test_training_learns_text_and_picture_together():
    model, g = tiny(), torch.Generator().manual_seed(0)
    images = torch.stack([torch.ones(3, 16, 16), torch.zeros(3, 16, 16)])
    ids = token_ids(model.tokenizer, CAPTIONS)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    first = None
    for _ in range(30):
        loss = model.loss(model.encode(images.repeat(2, 1, 1, 1)), ids.repeat(2, 1), g)
        first = loss.item() if first is None else first
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert model.text_encoder.get_input_embeddings().weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.vae.parameters())
    assert loss.item() < first / 2
    made = model.sample(CAPTIONS, steps=8, guidance=2.0)
    assert float(made[0].mean()) > float(made[1].mean()) + 0.15


def test_identity_autoencoder_and_inversion():
    model = tiny()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float((model.decode(model.encode(images)) - images).abs().max()) < 1e-4
    levels = grid(model.table, 20)
    denoiser = model.denoiser(CAPTIONS)
    latents = invert(denoiser, model.encode(images), levels, fixed_point=1)
    assert latents.shape == images.shape
    assert torch.isfinite(latents).all()


def test_latents_of_many_pictures_and_masks():
    vae = small_vae(16, (16, 16), 4)
    images = torch.rand(5, 3, 16, 16)
    latents = encode_images(vae, images, batch=2)
    assert latents.shape == (5, 4, 8, 8)
    assert decode_latents(vae, latents, batch=2).shape == images.shape
    drawn = encode_images(vae, images, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(drawn, latents)
    with pytest.raises(UsageError, match="multiples of 2"):
        encode_images(vae, torch.rand(1, 3, 15, 16))
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 3, 5] = True
    assert np.argwhere(latent_mask(mask, 2)[0, 0].numpy()).tolist() == [[1, 2]]


def test_tokenizer_survives_saving_and_knows_its_words(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    ids = token_ids(tokenizer, ["A RED ball, on Sand", "", "a red ball " * 20])
    assert ids.shape == (3, 16)
    ours = build_tokenizer(CAPTIONS, 16)
    assert torch.equal(ids, token_ids(ours, ["A RED ball, on Sand", "", "a red ball " * 20]))
    assert ids[1, 0] == tokenizer.bos_token_id
    assert ids[1, 1] == tokenizer.eos_token_id
    assert unknown_words(tokenizer, "a green ball!") == ["green", "!"]


def test_schedulers_for_diffusers_match_the_table():
    assert type(diffusers_scheduler(cosine(), "v", "dpm++")).__name__ == "DPMSolverMultistepScheduler"
    with pytest.raises(UsageError, match="no schedule"):
        diffusers_scheduler(continuous_vp(100), "eps")
