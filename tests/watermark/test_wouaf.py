import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.watermark.learned_toys import learn_bits
from vestige.core.errors import InputError, UsageError
from vestige.core.image_io import encode as encode_file
from vestige.core.runtime import rng
from vestige.core.subjects import ImageSubject
from vestige.engines.diffusion.autoencoders import load_autoencoder
from vestige.engines.marking.model import BitReading, Trial, load_marker, save_marker
from vestige.metrics.bits import match_p_value
from vestige.nn.modulation import EqualisedLinear, bake, chosen_layers, inputs_of, modulated
from vestige.nn.vae import decode, encode, small_vae
from vestige.watermark.users import MOST_USERS, UserRegistry, collision_budget, needed_matches
from vestige.watermark.wouaf import Wouaf, WouafNet, modulated_layers

KEY = b"a key for tests only"


def attending(widths=(8, 16), size=16):
    torch.manual_seed(0)
    plain = small_vae(size, widths, 4)
    return type(plain).from_config({**plain.config, "mid_block_add_attention": True}).eval()


def small(bits=8, size=16, **options):
    vae = attending(size=size)
    torch.manual_seed(1)
    return WouafNet(bits, size, vae=vae, **{"depth": 18, "reader_width": 0.125, "width": 16} | options)


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def word(*ones, bits=8):
    row = torch.zeros(1, bits)
    row[0, list(ones)] = 1
    return row


# modulation -----------------------------------------------------------------------------------------------------------


def test_an_equalised_layer_is_a_linear_one_whose_pace_is_set_apart():
    layer = EqualisedLinear(64, 3, bias=1.0, multiplier=0.01)
    x = torch.randn(5, 64)
    torch.testing.assert_close(layer(x), x @ (layer.weight * 0.01 / 8).T + 1)
    assert float(layer.weight.detach().std()) == pytest.approx(100, rel=0.2)
    assert float(layer(torch.randn(2000, 64)).detach().std()) == pytest.approx(1, rel=0.3)


@pytest.mark.parametrize("layer", [torch.nn.Conv2d(4, 3, 3, padding=1), torch.nn.Linear(4, 3)])
def test_every_sample_sees_its_own_scaled_weights(layer):
    x = torch.randn(2, 4, 5, 5) if isinstance(layer, torch.nn.Conv2d) else torch.randn(2, 7, 4)
    rows = torch.randn(2, 4)
    with modulated({"a": layer}, {"a": rows}):
        together = layer(x)
    for i in range(2):
        own = copy.deepcopy(layer)
        bake({"a": own}, {"a": rows[i : i + 1]})
        torch.testing.assert_close(own(x[i : i + 1]), together[i : i + 1])
    assert not torch.allclose(layer(x), together)  # the hooks are gone


def test_modulation_refuses_what_it_cannot_scale():
    grouped = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(UsageError, match="Grouped"):
        chosen_layers(grouped, lambda name: True)
    with pytest.raises(UsageError, match="no layer"):
        chosen_layers(grouped, lambda name: False)
    layer = torch.nn.Linear(4, 2)
    with pytest.raises(UsageError, match="one vector"):
        bake({"a": layer}, {"a": torch.ones(2, 4)})


def test_all_convolutions_of_residual_blocks_and_the_projections_are_modulated():
    vae = attending((8, 16))
    layers = modulated_layers(vae)
    blocks = [name for name, m in vae.decoder.named_modules() if type(m).__name__ == "ResnetBlock2D"]
    wanted = {f"{b}.{c}" for b in blocks for c in ("conv1", "conv2")}
    wanted |= {f"mid_block.attentions.0.{p}" for p in ("to_q", "to_k", "to_v")}
    assert set(layers) == wanted
    assert inputs_of(layers["mid_block.attentions.0.to_q"]) == 16


# the network ----------------------------------------------------------------------------------------------------------


def test_with_zero_affine_weights_the_decoder_is_the_original(pictures):
    vae = attending()
    net = small()
    latents = encode(vae, pictures * 2 - 1)
    plain = decode(vae, latents) / 2 + 0.5
    assert not torch.allclose(net.decode(latents, word(0)), plain, atol=1e-3)
    with torch.no_grad():
        for affine in net.affine.values():
            affine.weight.zero_()
    torch.testing.assert_close(net.decode(latents, word(0)), plain, atol=0, rtol=0)
    torch.testing.assert_close(net.encode(pictures), latents)


def test_baked_and_hooked_models_agree(pictures):
    net = small().eval()
    bits = (torch.rand(4, 8, generator=torch.Generator().manual_seed(5)) < 0.5).float()
    latents = net.encode(pictures)
    hooked = net.decode(latents, bits)
    for i in range(4):
        baked = net.stamped(bits[i : i + 1])
        assert not baked.decoder._forward_pre_hooks
        torch.testing.assert_close(decode(baked, latents[i : i + 1]) / 2 + 0.5, hooked[i : i + 1], atol=1e-5, rtol=0)
    assert float((hooked[0] - net.decode(latents, 1 - bits)[0]).detach().abs().max()) > 1e-3


def test_only_decoder_mapping_affine_layers_and_reader_learn(pictures):
    net = small()
    bits = torch.ones(4, 8)
    masks = torch.ones(4, 1, 16, 16, dtype=torch.bool)
    marked = net.embed(pictures, bits)
    trial = Trial(pictures, bits, masks, marked, marked, masks, net.read(marked), torch.zeros(()))
    net.objective(trial, lambda name: 1.0)["loss"].backward()
    for part in (net.vae.decoder, net.mapping, net.affine, net.reader):
        assert all(p.grad is not None for p in part.parameters())
    assert all(p.grad is None for p in net.vae.encoder.parameters())


def test_fidelity_counts_from_the_start_and_fully_in_its_stage(pictures):
    net = small(pixels=7.0, first=0.1)
    masks = torch.ones(4, 1, 16, 16, dtype=torch.bool)
    reading = BitReading(torch.zeros(4, 8))
    trial = Trial(pictures, torch.ones(4, 8), masks, pictures * 0.9, pictures, masks, reading, torch.zeros(()))
    early, late = (net.objective(trial, lambda name, v=v: v) for v in (0.0, 1.0))
    assert float(early["message"]) == pytest.approx(np.log(2), rel=1e-5)
    assert float(late["loss"] - late["message"]) == pytest.approx(float(late["image"]), rel=1e-5)
    assert float(early["loss"] - early["message"]) == pytest.approx(0.1 * float(late["image"]), rel=1e-4)
    assert float(late["image"]) > 7 * float((0.1 * pictures).square().mean())


def test_bits_are_learned(pictures):
    assert learn_bits(small(4, width=32), pictures[:1], 150, 3e-3) == 1.0


def test_the_mapping_keeps_the_energy_of_its_input():
    torch.manual_seed(0)
    net = small(width=512)
    with torch.no_grad():
        inside = torch.randn(256, 8)
        for layer in net.mapping:
            inside = layer(inside)
    # Each layer keeps the mean square but for (1 + 0.2²): without the gain of √2 a quarter would be left.
    assert 0.8 < float(inside.square().mean()) < 1.5


def test_the_papers_sizes_build():
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        )  # fmt: skip
        net = WouafNet(vae=vae)
    assert len(net.affine) == 2 * (2 + 4 * 3) + 3
    assert net.reader.fc.out_features == 32
    with pytest.raises(UsageError, match="multiple"):
        small(size=17)


# weights --------------------------------------------------------------------------------------------------------------


def test_weights_come_back_with_their_autoencoder(tmp_path, pictures):
    net = small().eval()
    save_marker(tmp_path / "w.safetensors", net, "wouaf", {"seed": 3})
    found, facts = load_marker(tmp_path / "w.safetensors", "wouaf", Wouaf.build)
    assert facts["seed"] == 3
    torch.testing.assert_close(found.embed(pictures, word(1)), net.embed(pictures, word(1)))
    system = Wouaf(tmp_path / "w.safetensors")
    assert system.bits == 8


@pytest.mark.parametrize(
    "change",
    [
        {"block_out_channels": [8, 10**9]}, {"block_out_channels": "many"}, {"latent_channels": 10**6},
        {"down_block_types": ["NoSuchBlock"] * 2}, {"norm_num_groups": 7},
    ],
)  # fmt: skip
def test_damaged_configurations_are_refused(change):
    config = {**small().settings["vae"], **change}
    with pytest.raises(UsageError, match="autoencoder"):
        WouafNet(8, 16, vae=config, depth=18, reader_width=0.125)


def test_without_weights_the_training_is_named():
    missing = Wouaf("nowhere/wouaf.safetensors")
    with pytest.raises(InputError, match="vestige learn wouaf"):
        missing.stamp(np.ones(16))


# the system -----------------------------------------------------------------------------------------------------------


class Oracle(WouafNet):
    """A network whose reader says what the mean of eight rows is: bright for one, dark for zero."""

    def __init__(self):
        super().__init__(8, 16, vae=attending(), depth=18, reader_width=0.125, width=16)

    def read(self, images, masks=None):
        return BitReading(images.mean((1, 3)).unflatten(1, (8, -1)).mean(2) - 0.5)


def striped(bits, height=16, width=16):
    return np.broadcast_to(np.repeat(bits, height // 8)[None, :, None], (3, height, width)).astype(np.float32)


def test_pictures_are_given_to_their_users():
    users = UserRegistry(8, KEY)
    for name in ("ada", "bob", "eve"):
        users.register(name)
    system = Wouaf(network=Oracle(), users=users)
    images = np.stack([striped(users[name]) for name in ("bob", "eve")])
    found = system.attribute(images)
    assert [a.user for a in found] == ["bob", "eve"]
    assert all(a.matches == 8 for a in found)
    assert found[0].p_value == pytest.approx(1 - (1 - 2**-8) ** 3)
    large = system.attribute(striped(users["ada"], 64, 48)[None])
    assert large[0].user == "ada"
    with pytest.raises(UsageError, match="registry"):
        Wouaf(network=Oracle()).attribute(images)
    with pytest.raises(UsageError, match="16 bits"):
        Wouaf(network=Oracle(), users=UserRegistry(16, KEY))


def test_findings_keep_their_rate():
    users = UserRegistry(8, KEY)
    bits = users.register("ada")
    system = Wouaf(network=Oracle(), users=users, rate=0.01)
    as_file = lambda b: ImageSubject(  # noqa: E731
        encode_file((striped(b).transpose(1, 2, 0) * 255).astype(np.uint8), "PNG"), "x"
    )
    found = system.find(as_file(bits))
    assert found.flagged
    assert found.details["user"] == "ada"
    assert "ada" in found.summary
    json.dumps(found.to_dict(), allow_nan=False)
    almost = bits.copy()
    almost[0] ^= True
    clear = system.find(as_file(almost))
    assert not clear.flagged  # 9/256 > 0.01
    assert clear.applies
    assert clear.score < clear.threshold


def test_find_says_what_is_missing():
    subject = ImageSubject(encode_file(np.zeros((40, 40, 3), np.uint8), "PNG"), "black")
    users = UserRegistry(8, KEY)
    assert "registry" in Wouaf().find(subject).why_not
    assert "registry" in Wouaf(network=Oracle(), users=users).find(subject).why_not
    users.register("ada")
    assert "vestige learn" in Wouaf("nowhere.safetensors", users=users).find(subject).why_not
    tiny = ImageSubject(encode_file(np.zeros((3, 5, 3), np.uint8), "PNG"), "tiny")
    assert "smaller" in Wouaf(network=Oracle(), users=users).find(tiny).why_not


def test_a_stamped_decoder_is_plain_and_belongs_to_its_model(pictures):
    net = small().eval()
    system = Wouaf(network=net)
    vae = attending()
    bits = np.array([1, 0, 0, 1, 1, 0, 1, 0], bool)
    stamped = system.stamp(bits, vae)
    assert type(stamped) is type(vae)
    assert stamped.state_dict().keys() == vae.state_dict().keys()
    latents = encode(vae, pictures * 2 - 1)
    want = net.decode(latents, torch.from_numpy(bits[None].astype(np.float32)))
    torch.testing.assert_close(decode(stamped, latents) / 2 + 0.5, want, atol=1e-5, rtol=0)
    stranger = attending()
    with torch.no_grad():
        stranger.encoder.conv_in.weight.add_(0.1)
    with pytest.raises(UsageError, match="other latents"):
        system.stamp(bits, stranger)
    for wrong in (bits[:4], np.full(8, 0.5)):
        with pytest.raises(UsageError, match="8 bits"):
            system.stamp(wrong)


@pytest.mark.parametrize("pipeline", [False, True])
def test_folders_are_stamped_whole(tmp_path, pictures, pipeline):
    source = tmp_path / "model"
    vae = attending()
    vae.save_pretrained(source / "vae" if pipeline else source)
    (source / "README.md").write_text("about")
    system = Wouaf(network=small().eval())
    out = system.stamp_folder(source, tmp_path / "user", np.ones(8))
    assert (out / "README.md").read_text() == "about"
    latents = encode(vae, pictures * 2 - 1)
    made = decode(load_autoencoder(out), latents)
    torch.testing.assert_close(made, decode(system.stamp(np.ones(8)), latents))
    with pytest.raises(InputError, match="exists"):
        system.stamp_folder(source, out, np.ones(8))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "user"]


def test_unreadable_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no diffusers folder"):
        load_autoencoder(tmp_path)
    attending().save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(InputError, match="no readable autoencoder"):
        load_autoencoder(tmp_path)


# users ----------------------------------------------------------------------------------------------------------------


def test_fingerprints_differ_and_come_back(tmp_path):
    users = UserRegistry(8, KEY)
    rows = [users.register(f"user {i}") for i in range(100)]
    assert len({r.tobytes() for r in rows}) == 100
    np.testing.assert_array_equal(UserRegistry(8, KEY).register("user 0"), rows[0])
    assert not np.array_equal(UserRegistry(64, b"another").register("a"), UserRegistry(64, KEY).register("a"))
    users.save(tmp_path / "users.json")
    assert KEY.decode() not in (tmp_path / "users.json").read_text()
    again = UserRegistry.load(tmp_path / "users.json", KEY)
    np.testing.assert_array_equal(again["user 57"], rows[57])
    for wrong in ("", "user 1"):
        with pytest.raises(UsageError, match="taken"):
            users.register(wrong)
    with pytest.raises(UsageError, match="no user"):
        users["nobody"]


def test_a_registry_has_room_for_half_of_the_words():
    users = UserRegistry(8, KEY)
    for i in range(128):
        users.register(str(i))
    with pytest.raises(UsageError, match="tell apart"):
        users.register("one more")
    assert MOST_USERS > 128


@pytest.mark.parametrize(
    "text", ['{"bits": 8}', '{"bits": 8, "users": {"a": "012"}}', '{"bits": 1, "users": {}}', "[]"]
)
def test_damaged_registries_are_refused(tmp_path, text):
    (tmp_path / "users.json").write_text(text)
    with pytest.raises(InputError, match="registry"):
        UserRegistry.load(tmp_path / "users.json", KEY)


@settings(max_examples=25, deadline=None)
@given(bits=st.integers(8, 64), errors=st.integers(0, 5), rate=st.floats(1e-6, 0.5))
def test_budget_and_threshold_keep_the_rate(bits, errors, rate):
    most = collision_budget(bits, errors, rate)
    single = float(match_p_value(bits - errors, bits))
    if most:
        assert -np.expm1(most * np.log1p(-single)) <= rate * (1 + 1e-9)
    if most < 10**9:
        assert -np.expm1((most + 1) * np.log1p(-single)) > rate * (1 - 1e-9)
    needed = needed_matches(bits, 50, rate)
    assert needed == bits + 1 or -np.expm1(50 * np.log1p(-float(match_p_value(needed, bits)))) <= rate


def test_the_rate_of_false_attribution_is_the_stated_one():
    draws = rng(0, "pictures")
    alarms = []
    for trial in range(300):
        users = UserRegistry(16, trial.to_bytes(2, "little"))
        for i in range(5):
            users.register(str(i))
        # A reader that always says nearly the same about plain pictures.
        read = np.arange(16) % 2 == 0
        read[draws.integers(16)] ^= True
        alarms.append(users.attribute(read[None])[0].p_value <= 0.2)
    assert 0.03 < np.mean(alarms) <= 0.27
