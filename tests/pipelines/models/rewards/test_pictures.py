"""Decoded noised latents: what a perfect generator predicts, what a scorer is shown, and what it cannot give."""

import numpy as np
import pytest
import torch

from actors.media import decode
from infra.config import ConfigError
from pipelines.models.families.loaded import stack
from pipelines.models.families.pixels import to_pixels
from pipelines.models.rewards.pictures import NoisedPictures
from pipelines.models.rewards.scored_pixels import ScoredPixels
from support.tiny import family_at, write_tiny

TEXTS = ["a red circle", "two blue squares"]
TIMES = torch.tensor([0.2, 0.7])


class Brightness:
    """Two numbers of a sample: its mean level, and the length of its prompt."""

    def score(self, samples):
        files = [decode(sample.media, clip=sample.medium == "video") for sample in samples]
        return np.array([[pixels.mean() / 255, len(sample.prompt)] for pixels, sample in zip(files, samples, strict=True)])


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    backbone = family_at("miniature", write_tiny("miniature", tmp_path_factory.mktemp("tiny")))
    encoders = backbone.load(parts="encoders", device="cpu", dtype=torch.float32)
    x = 0.5 * torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    return backbone, {"x_t": x, "t": TIMES, "condition": stack(encoders.encode_texts(TEXTS))}


def shown(backbone, batch, kind):
    pictures = NoisedPictures(backbone, shown=kind, device="cpu")
    return pictures, pictures.frames(batch["x_t"], t=batch["t"], condition=batch["condition"])


def test_predicted_pictures_are_a_step_of_the_generator_to_time_0(miniature):
    backbone, batch = miniature
    pictures, found = shown(backbone, batch, "x_0")
    loaded = pictures.generator
    with torch.no_grad():
        sample = loaded.path.sample(batch["x_t"], noise=batch["x_t"], t=TIMES)
        velocity = loaded.predict(loaded.model, sample, condition=batch["condition"])
    expected = batch["x_t"] - TIMES.view(-1, 1, 1, 1) * velocity
    torch.testing.assert_close(found.detach()[:, :, 0], expected)
    assert torch.equal(shown(backbone, batch, "x_t")[1][:, :, 0], batch["x_t"])


def test_a_scorer_is_shown_the_decoded_latents_and_their_prompts(miniature):
    backbone, batch = miniature
    pictures, frames = shown(backbone, batch, "x_t")
    scores = ScoredPixels(pictures, Brightness(), TEXTS)(**batch)
    expected = to_pixels(frames).reshape(2, -1).mean(1) / 255
    assert scores[:, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert scores[:, 1].tolist() == [len(text) for text in TEXTS]


def test_a_scorers_missing_gradient_and_missing_texts_are_refused(miniature):
    backbone, batch = miniature
    pictures, _ = shown(backbone, batch, "x_t")
    with pytest.raises(ConfigError, match="kind pixels"):
        ScoredPixels(pictures, Brightness(), TEXTS)(**batch | {"x_t": batch["x_t"].clone().requires_grad_()})
    with pytest.raises(ConfigError, match="2 latents but 1 texts"):
        ScoredPixels(pictures, Brightness(), TEXTS[:1])(**batch)


def test_a_clip_is_shown_as_a_clip(tmp_path):
    backbone = family_at("wan", write_tiny("wan", tmp_path / "wan"))
    shape = backbone.latent_shape(frames=5, height=32, width=32)
    encoders = backbone.load(parts="encoders", device="cpu", dtype=torch.float32)
    batch = {"x_t": torch.zeros(2, *shape), "t": TIMES, "condition": stack(encoders.encode_texts(TEXTS))}
    pictures, frames = shown(backbone, batch, "x_t")
    assert frames.shape == (2, 3, 5, 32, 32)
    assert ScoredPixels(pictures, Brightness(), TEXTS)(**batch).shape == (2, 2)
