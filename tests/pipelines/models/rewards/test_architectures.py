"""Laws of every latent reward model: gradients, batches, conditions, files, and what is left out of the denoiser."""

from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from infra.config import ConfigError
from pipelines.models.exact import trained_names
from pipelines.models.families.base import SIZES
from pipelines.models.families.loaded import stack
from pipelines.models.rewards.drm import DRM
from pipelines.models.rewards.early import EarlyLayers
from pipelines.models.rewards.lrm import LRM
from pipelines.models.rewards.lrm_network import quarters
from pipelines.models.rewards.pixels import PixelReward
from pipelines.models.rewards.reward import WEIGHTS_FILE
from pipelines.models.rewards.unet import DownAndMiddle, drop_up_blocks
from support.tiny import family_at, write_tiny

THREE = ("visual", "motion", "alignment")
MODELS = {
    "drm-sd3": ("sd3", DRM(dropped=1, channels=(64,))),
    "drm-flux": ("flux", DRM(dropped=1, channels=(64,))),
    "drm-qwen": ("qwen-image", DRM(dropped=1, channels=(64,))),
    "drm-wan": ("wan", DRM(dropped=1, channels=(64,))),
    "drm-miniature": ("miniature", DRM(dropped=1, channels=(64,))),
    "drm-sd15": ("sd15", DRM(dropped=1, channels=(64,))),
    "drm-sdxl": ("sdxl", DRM(dropped=0, channels=(64,))),
    "lrm-sd15": ("sd15", LRM(width=16)),
    "lrm-sdxl": ("sdxl", LRM(width=16)),
    "lrm-sd3": ("sd3", LRM(width=16, guidance=1)),
    "lrm-miniature": ("miniature", LRM(width=16, guidance=1)),
    "early-sd3": ("sd3", EarlyLayers(blocks=1, dimensions=THREE)),
    "early-flux": ("flux", EarlyLayers(blocks=1, dimensions=THREE)),
    "early-qwen": ("qwen-image", EarlyLayers(blocks=1, dimensions=THREE)),
    "early-wan": ("wan", EarlyLayers(blocks=1, dimensions=THREE)),
    "pixels-x0-sd15": ("sd15", PixelReward(channels=(64,))),
    "pixels-x0-wan": ("wan", PixelReward(channels=(64,), dimensions=THREE)),
    "pixels-x0-qwen": ("qwen-image", PixelReward(channels=(64,))),
    "pixels-xt-sd3": ("sd3", PixelReward(channels=(64,), shown="x_t")),
    "pixels-xt-miniature": ("miniature", PixelReward(channels=(64,), shown="x_t")),
    "early-miniature": ("miniature", EarlyLayers(blocks=1, dimensions=THREE)),
}
TEXTS = ["a red circle", "two blue squares", "three green stars"]
TIMES = torch.tensor([0.1, 0.5, 0.9])


@pytest.fixture(scope="session")
def backbones(tmp_path_factory):
    """The tiny generator of each family, written once."""
    root = tmp_path_factory.mktemp("backbones")

    @cache
    def of(family):
        return family_at(family, write_tiny(family, root / family))

    return of


@pytest.fixture(scope="session")
def prepared(backbones):
    """Of each model: its generator, config, network, and a batch of three."""

    @cache
    def of(name):
        family, model = MODELS[name]
        backbone = backbones(family)
        torch.manual_seed(0)
        network = model.build(backbone, device="cpu").eval()
        _stir(network)
        return backbone, model, network, inputs(backbone)

    return of


def _stir(network):
    """Output layers that start at zero, as published ones do, answer something."""
    for parameter in network.parameters():
        if parameter.requires_grad and parameter.dim() > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)


def inputs(backbone):
    side = max(32, 2 * backbone.size_multiple) if backbone.has_vae else 24
    shape = backbone.latent_shape(frames=1 if backbone.frame_multiple is None else 5, height=side, width=side)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    encoders = backbone.load(parts="encoders", device="cpu", dtype=torch.float32)
    sizes = torch.tensor([[64, 64, 0, 0], [32, 48, 0, 8], [32, 32, 0, 0]])
    return {"x_t": x, "t": TIMES, "condition": stack(encoders.encode_texts(TEXTS)) | {SIZES: sizes}}


def scored(network, batch):
    return network(batch["x_t"], t=batch["t"], condition=batch["condition"])


def rows(batch, order):
    return {
        "x_t": batch["x_t"][order],
        "t": batch["t"][order],
        "condition": {name: value[order] for name, value in batch["condition"].items()},
    }


@pytest.mark.parametrize("name", MODELS)
def test_the_score_has_a_gradient_in_the_latents_and_in_everything_that_is_trained(prepared, name):
    _, model, network, batch = prepared(name)
    x = batch["x_t"].clone().requires_grad_()
    scores = scored(network, batch | {"x_t": x})
    assert scores.shape == (3, len(model.dimensions))
    scores.sum().backward()
    assert x.grad is not None and x.grad.flatten(1).abs().amax(1).min() > 0
    assert [key for key, value in network.named_parameters() if value.requires_grad and value.grad is None] == []
    network.zero_grad()


@pytest.mark.parametrize("name", MODELS)
def test_a_score_is_of_its_own_latent_time_and_text(prepared, name):
    _, _, network, batch = prepared(name)
    with torch.no_grad():
        scores = scored(network, batch)
        order = [2, 0, 1]
        torch.testing.assert_close(scored(network, rows(batch, order)), scores[order], rtol=1e-4, atol=1e-5)
        other = {key: value if key == SIZES else value.flip(0) for key, value in batch["condition"].items()}
        texts = scored(network, batch | {"condition": other})
        times = scored(network, batch | {"t": TIMES.flip(0)})
    told = (texts,) if name.startswith("pixels-xt") else (texts, times)  # a decoded x_t says nothing of its time
    for changed in told:  # the middle one keeps its text and its time
        assert ((changed - scores).abs().amax(1) > 1e-7)[[0, 2]].all()
        torch.testing.assert_close(changed[1], scores[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_saved_is_what_was_trained_and_scores_the_same(prepared, tmp_path, name):
    backbone, model, network, batch = prepared(name)
    trained = {key: value for key, value in network.named_parameters() if value.requires_grad}
    model.save(trained, tmp_path, backbone=backbone)
    assert set(load_file(tmp_path / WEIGHTS_FILE)) == set(trained_names(network))
    again = model.loaded(tmp_path, backbone=backbone, device="cpu")
    assert not again.training and not trained_names(again)
    state = again.state_dict()
    assert set(state) == set(network.state_dict())
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    with torch.no_grad():  # tensors at other addresses may be summed in another order
        torch.testing.assert_close(scored(again, batch), scored(network, batch), rtol=1e-5, atol=1e-6)


def test_blocks_that_are_dropped_are_in_no_state(prepared):
    for name, gone in {
        "drm-sd3": "transformer_blocks.1.", "early-qwen": "transformer_blocks.1.", "drm-wan": "blocks.1.",
        "early-flux": "single_transformer_blocks.", "drm-flux": "single_transformer_blocks.", "drm-sd15": "up_blocks.1.",
        "lrm-sdxl": "up_blocks.", "early-miniature": "transformer_blocks.1.",
    }.items():  # fmt: skip
        names = set(prepared(name)[2].state_dict())
        assert any(key.startswith("denoiser.") for key in names)
        assert not [key for key in names if key.startswith(f"denoiser.{gone}")], name


def test_untrained_drm_with_no_block_dropped_reads_the_generators_own_prediction(backbones):
    backbone = backbones("sd3")
    network = DRM(dropped=0, channels=(64,)).build(backbone, device="cpu").eval()
    seen = {}
    network.convolutions.register_forward_pre_hook(lambda module, given: seen.update(map=given[0]))
    batch = inputs(backbone)
    with torch.no_grad():
        scored(network, batch)
        loaded = backbone.load(parts="denoiser", device="cpu", dtype=torch.float32)
        sample = loaded.path.sample(batch["x_t"], noise=batch["x_t"], t=TIMES)
        own = loaded.predict(loaded.model, sample, condition=batch["condition"])
    torch.testing.assert_close(seen["map"], own)


def test_early_layers_do_not_depend_on_later_ones(backbones, prepared):
    backbone, _, network, batch = prepared("early-sd3")
    loaded = backbone.load(parts="denoiser", device="cpu", dtype=torch.float32)
    kept = []
    loaded.model.transformer_blocks[0].register_forward_hook(lambda module, given, streams: kept.append(streams[1]))
    with torch.no_grad():
        sample = loaded.path.sample(batch["x_t"], noise=batch["x_t"], t=TIMES)
        loaded.predict(loaded.model, sample, condition=batch["condition"])
        torch.testing.assert_close(network.head(kept[0].mean(1)), scored(network, batch))


def test_lrm_guides_the_middle_block_as_classifier_free_guidance_does(backbones):
    backbone = backbones("sd15")
    batch = inputs(backbone)
    plain, guided = (LRM(width=16, guidance=scale).build(backbone, device="cpu") for scale in (1, 7.5))
    free = backbone.load(parts="encoders", device="cpu", dtype=torch.float32).unconditional()
    empty = {name: value.expand(3, *value.shape) for name, value in free.items()}
    call = {"x_t": batch["x_t"], "t": TIMES}
    with torch.no_grad():
        with_text = plain.features(**call, condition=batch["condition"])
        without = plain.features(**call, condition=empty)
        found = guided.features(**call, condition=batch["condition"])
    middle = 32  # the width of the middle block, whose feature is the last
    torch.testing.assert_close(found[:, :-middle], with_text[:, :-middle])
    expected = without + 7.5 * (with_text - without)
    torch.testing.assert_close(found[:, -middle:], expected[:, -middle:], rtol=1e-3, atol=1e-5)


def test_the_pooled_text_of_sd15_is_clips_own(backbones):
    loaded = backbones("sd15").load(parts="encoders", device="cpu", dtype=torch.float32)
    pipeline = loaded.pipeline
    for text in ["", *TEXTS, "long " * 90]:
        ids = pipeline.tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.no_grad():
            torch.testing.assert_close(
                loaded.encode_texts([text])[0]["pooled"], pipeline.text_encoder(ids).pooler_output[0]
            )


def test_lrm_starts_at_clips_scale_and_stays_within_it(prepared):
    _, _, network, batch = prepared("lrm-sd15")
    assert network.logit_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-4)
    with torch.no_grad():
        assert scored(network, batch).abs().max() <= 1 / 0.07 + 1e-3


def test_sd15_has_4800_features_and_sd3s_24_blocks_are_read_at_quarters(backbones):
    loaded = backbones("sd15").load(parts="denoiser", device="cpu", dtype=torch.float32)
    maps = DownAndMiddle(loaded)
    assert maps.widths == (16, 32, 32)  # the tiny one's; a block's width each, and the middle block's
    assert sum((320, 640, 1280, 1280, 1280)) == 4800
    assert quarters(24) == (5, 11, 17, 23)
    assert quarters(2) == (0, 1)


def test_a_u_net_may_lose_all_of_its_up_blocks(backbones):
    for dropped, width in ((0, 4), (1, 32), (2, 32)):
        loaded = backbones("sd15").load(parts="denoiser", device="cpu", dtype=torch.float32)
        assert drop_up_blocks(loaded, dropped=dropped) == width


@pytest.mark.parametrize(
    ("family", "model", "remedy"),
    [
        ("sd3", DRM(), "lower `dropped`"),
        ("sd15", DRM(), "lower `dropped`"),
        ("z-image", DRM(), "choose a generator of SD3"),
        ("sd15", EarlyLayers(), "DRM or LRM for a U-Net"),
        ("flux", EarlyLayers(), "lower `blocks`"),
        ("hunyuanvideo", EarlyLayers(), "choose a generator of SD3"),
        ("wan", LRM(), "DRM or early layers"),
        ("sd3", LRM(), "give guidance 1"),
        ("sd15", LRM(dimensions=THREE), "give one"),
        ("hunyuanvideo", PixelReward(), "choose a generator of SD1.5"),
        ("wan-i2v", PixelReward(), "give shown = 'x_t'"),
    ],
)
def test_a_generator_without_a_place_for_the_model_is_refused_with_the_remedy(backbones, family, model, remedy):
    with pytest.raises(ConfigError, match=remedy):
        model.refuse(backbones(family))


def test_head_channels_that_make_no_groups_are_refused():
    for channels in (48, 32):
        with pytest.raises(ValueError, match="multiples of 32"):
            DRM(channels=(channels,))
