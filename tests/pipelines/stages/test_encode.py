"""Buckets: what becomes of pictures and clips of any shape before they are encoded."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.media import decode, decode_at, encode_png, measures
from infra.identity import key_of
from pipelines.stages.encode import Encoder, Encoders
from pipelines.training.buckets import Buckets
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
    assert np.array_equal(Buckets(area=32 * 32, multiple=32).fit(pixels, height=32, width=32), pixels)


def test_a_larger_picture_is_scaled_to_cover_and_cropped_in_the_middle():
    pixels = np.zeros((1, 64, 80, 3), dtype=np.uint8)
    pixels[:, :, :8], pixels[:, :, -8:] = 255, 255  # what the crop takes off: 8 of 80 columns a side
    found = Buckets(area=32 * 32, multiple=32, ratio=1.2).fit(pixels, height=32, width=32)
    assert found.shape == (1, 32, 32, 3)
    assert found[:, :, 2:-2].max() < 40


@given(SIZES, SIZES, SIZES, SIZES)
def test_the_shape_of_a_pair_does_not_depend_on_which_member_is_first(one, two, three, four):
    first, second = np.array([[one, two]]), np.array([[three, four]])
    for buckets in (Buckets(area=480 * 832, multiple=16), Buckets(multiple=16, own=True)):
        assert np.array_equal(buckets.shapes_of(first, second), buckets.shapes_of(second, first))


def test_a_pairs_bucket_lies_at_the_geometric_mean_of_its_aspect_ratios():
    buckets = Buckets(area=512 * 512, multiple=64, ratio=4.0)
    wide, tall = np.array([[500, 1000]]), np.array([[1000, 500]])
    assert buckets.shapes_of(wide, tall).tolist() == [[512, 512]]


@pytest.mark.parametrize(
    ("size", "kept"), [((720, 1280), (720, 1280)), ((1024, 1024), (1024, 1024)), ((725, 1287), (720, 1280))]
)
def test_own_shapes_are_cropped_to_multiples_and_never_resized(size, kept):
    """ViPO resizes nothing: Wan's multiple of 16 leaves 720p and 1024 x 1024 whole."""
    buckets = Buckets(multiple=16, own=True)
    assert buckets.shape(*size) == kept
    pixels = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    found = buckets.fit(pixels, height=kept[0], width=kept[1])
    top, left = (size[0] - kept[0]) // 2, (size[1] - kept[1]) // 2
    assert np.array_equal(found, pixels[:, top : top + kept[0], left : left + kept[1]])


def test_wans_own_size_is_a_bucket_of_its_area():
    assert Buckets(area=480 * 832, multiple=16).shape(480, 832) == (480, 832)


def test_a_clip_is_cut_to_the_longest_length_it_fills():
    buckets = Buckets(frames=(5, 9, 17))
    assert buckets.lengths(np.array([4, 5, 8, 9, 16, 400])).tolist() == [0, 5, 5, 9, 9, 17]


def test_a_clip_of_another_rate_is_resampled_to_the_same_span():
    """Five seconds at 24 frames per second are 80 frames at 16: the same 5 seconds, not a slow motion."""
    buckets = Buckets(frames=(81, 33), rate=16.0)
    assert buckets.shown(np.array([120, 121, 80, 50]), np.array([24.0, 24.0, 16.0, np.nan])).tolist() == [80, 81, 80, 50]
    assert buckets.times(33, fps=24.0)[-1] == 2.0


def grey(frames, *, rate):
    """A clip whose brightness says the number of the frame: 4 levels per frame."""
    import io

    import av

    out = io.BytesIO()
    with av.open(out, mode="w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 32, 32, "yuv420p", 10_000_000
        for number in range(frames):
            pixels = np.full((32, 32, 3), 4 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def test_frames_are_taken_by_their_time_stamps():
    found = decode_at(grey(48, rate=24), times=Buckets(rate=16.0).times(17, fps=24.0))
    shown = np.round(found.mean((1, 2, 3)) / 4).tolist()
    assert shown == [math.floor(number / 16 * 24 + 1e-9) for number in range(17)]


def test_only_the_frames_that_are_used_are_kept():
    """A minute of video of which nine frames are used: some megabytes, not a gigabyte."""
    import tracemalloc

    data = mp4(64, 64, frames=600)
    tracemalloc.start()
    assert decode_at(data, times=[number / 8 for number in range(9)]).shape == (9, 64, 64, 3)
    assert tracemalloc.get_traced_memory()[1] < 600 * 64 * 64 * 3 / 4
    tracemalloc.stop()


def test_a_picture_of_too_many_pixels_is_refused_with_the_remedy():
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(out, format="PNG")
    for read in (decode, measures):
        with pytest.raises(ValueError, match="13000 x 13000 are 169 million pixels; at most 64 million .* make it smaller"):
            read(out.getvalue(), clip=False)


def test_a_clip_is_decoded_whole():
    assert decode(mp4(32, 48, frames=6), clip=True).shape == (6, 32, 48, 3)


@pytest.mark.parametrize(("flipped", "left"), [(False, 19), (True, 20)])
def test_a_latent_keeps_the_size_of_its_picture_and_the_corner_of_its_crop(tmp_path, flipped, left):
    write_tiny("sdxl", tmp_path)
    buckets = Buckets(area=32 * 32, multiple=32, ratio=1)
    encoder = Encoder(Encoders(family=family_at("sdxl", tmp_path)), None, medium="image", buckets=buckets, dtype="float32")
    encoder.open("cpu", None)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 142, 3), dtype=np.uint8)
    row = {"id": "0", "kind": "latent", "source": "s", "text": "", "frames": 1, "height": 32, "width": 32}
    found = encoder._latent(row | {"flipped": flipped}, {"image": {"bytes": encode_png(pixels).bytes}})
    assert (found.original_height, found.original_width) == (64, 142)
    assert (found.crop_top, found.crop_left) == (0, left)  # resized to 32 x 71: 19 columns go on the left, 20 on the right


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
