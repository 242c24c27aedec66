"""Buckets: what becomes of pictures and clips of any shape before they are encoded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.identity import key_of
from pipelines.stages.encode import Buckets, Encoders, decode
from support.pair_files import mp4
from support.tiny import family_at, write_tiny

SIZES = st.integers(16, 3000)


@given(SIZES, SIZES)
def test_a_picture_comes_to_a_bucket_of_its_own_orientation(height, width):
    buckets = Buckets(area=512 * 512, multiple=64)
    found = buckets.shape(height, width)
    assert found in buckets.shapes()
    assert found[0] % 64 == found[1] % 64 == 0
    assert (found[0] - found[1]) * (height - width) >= 0
    assert 0.75 < found[0] * found[1] / 512**2 < 1.3


@given(SIZES, SIZES)
def test_turning_a_picture_turns_its_bucket(height, width):
    buckets = Buckets(area=1024 * 1024, multiple=64)
    upright, lying = buckets.shape(height, width), buckets.shape(width, height)
    assert np.log(upright[0] / upright[1]) == pytest.approx(np.log(lying[1] / lying[0]))


def test_a_picture_of_a_buckets_shape_is_left_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    assert np.array_equal(Buckets(area=32 * 32, multiple=32).fit(pixels), pixels)


def test_a_larger_picture_is_scaled_to_cover_and_cropped_in_the_middle():
    pixels = np.zeros((1, 64, 80, 3), dtype=np.uint8)
    pixels[:, :, :8], pixels[:, :, -8:] = 255, 255  # what the crop takes off: 8 of 80 columns a side
    found = Buckets(area=32 * 32, multiple=32, ratio=1.2).fit(pixels)
    assert found.shape == (1, 32, 32, 3)
    assert found[:, :, 2:-2].max() < 40


def test_a_clip_is_cut_to_the_longest_length_it_fills():
    buckets = Buckets(area=32 * 32, multiple=32, frames=(5, 9, 17))
    assert [buckets.length(frames) for frames in (5, 8, 9, 16, 400)] == [5, 5, 9, 9, 17]
    with pytest.raises(ValueError, match="4 frames is shorter than the shortest bucket of 5"):
        buckets.length(4)
    assert buckets.fit(np.zeros((7, 32, 32, 3), dtype=np.uint8)).shape == (5, 32, 32, 3)


def test_a_clip_is_decoded_whole():
    assert decode(mp4(32, 48, frames=6), clip=True).shape == (6, 32, 48, 3)


def test_encoders_are_the_same_under_another_denoiser_and_others_under_another_vae(tmp_path):
    from safetensors.torch import load_file, save_file

    folders = [write_tiny("sd15", tmp_path / name) for name in ("one", "tuned", "other")]
    for folder, part in zip(folders[1:], ("unet", "vae"), strict=True):
        path = next((folder / part).glob("*.safetensors"))
        weights = load_file(path)
        name = sorted(weights)[0]
        save_file(weights | {name: weights[name] + 1}, path)
    one, tuned, other = (Encoders(family=family_at("sd15", folder)) for folder in folders)
    assert key_of(one) == key_of(tuned) != key_of(other)
    assert one.family.vae_identity() == tuned.family.vae_identity() != other.family.vae_identity()
