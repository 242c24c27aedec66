"""The scorers that look with a CLIP, against transformers' own processor and forward pass on the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from actors.media import decode, encode_mp4, encode_png
from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.models.scorers.aesthetic import Aesthetic
from pipelines.models.scorers.clip_score import ClipScore
from pipelines.models.scorers.hps import HPSv2
from pipelines.models.scorers.linear_head import NAMES
from pipelines.models.scorers.pickscore import PickScore
from pipelines.models.scorers.pixels import DEVIATION, MEAN, middle_square, whole_in_square
from pipelines.models.scorers.scorer import Sample
from pipelines.models.weights import Hub
from tests.support.places import NOWHERE
from tests.support.tiny import clip_tokenizer
from tests.support.tiny_scorers import SIZE, picture, write_clip

PROMPTS = ["a red fox", "two cats on a mat " + 30 * "and a hat ", "a red fox", "blue"]
SHAPES = [(48, 40), (32, 32), (40, 91), (63, 33)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"), seed=2)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    generator = torch.Generator().manual_seed(5)
    widths = (24, 1024, 128, 64, 16, 1)
    tensors = {}
    for name, place in zip(NAMES, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], strict=True):
        shape = (widths[place + 1], widths[place]) if name.endswith("weight") else (widths[place + 1],)
        tensors[name] = torch.randn(shape, generator=generator) / widths[place] ** 0.5
    save_file(tensors, folder / "model.safetensors")
    return folder


def samples():
    shapes = enumerate(zip(PROMPTS, SHAPES, strict=True))
    return [Sample(encode_png(picture(n, height=h, width=w)).bytes, "image", prompt) for n, (prompt, (h, w)) in shapes]


def features(folder, sample):
    """(picture, text) as transformers' own processor and model give them for one sample, unit vectors."""
    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    shown = processor(Image.fromarray(decode(sample.media, clip=False)[0]), return_tensors="pt")
    read = clip_tokenizer()([sample.prompt], padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        found = model(**shown, **read)
    return found.image_embeds[0], found.text_embeds[0], model.logit_scale.exp()


def scored(scorer, chosen=None):
    return scorer.open("cpu", NOWHERE).score(samples() if chosen is None else chosen)


def test_clip_score_and_pickscore_are_functions_of_the_cosine_that_transformers_computes(folder):
    weights = Folder(path=str(folder))
    cosines, scales = [], []
    for sample in samples():
        image, text, scale = features(folder, sample)
        cosines.append((image @ text).item())
        scales.append(scale.item())
    assert len(set(np.round(cosines, 3))) == 4 and min(cosines) < 0 < max(cosines)
    clip = scored(ClipScore(weights=weights))[:, 0]
    assert clip == pytest.approx([100 * max(cosine, 0) for cosine in cosines], abs=1e-3)
    pick = scored(PickScore(weights=weights))[:, 0]
    assert pick == pytest.approx([scale * cosine for scale, cosine in zip(scales, cosines, strict=True)], abs=1e-3)


def test_a_negative_cosine_has_the_clip_score_zero_and_a_negative_pickscore():
    assert ClipScore(weights=Hub(repo="a/b", holds="model")).of_cosine(-0.2, scale=100) == 0
    assert PickScore(weights=Hub(repo="a/b", holds="model")).of_cosine(-0.2, scale=100) == -20


def test_hps_is_the_plain_cosine_of_the_whole_picture(folder):
    found = scored(HPSv2(weights=Folder(path=str(folder))))[:, 0]
    square = samples()[1]  # nothing is cut off or added
    image, text, _ = features(folder, square)
    assert found[1] == pytest.approx(float(image @ text), abs=1e-5)
    pick = scored(PickScore(weights=Folder(path=str(folder))))[:, 0] / np.exp(4.6)
    assert abs(found[2] - pick[2]) > 1e-3  # this one is twice as wide as high


def test_the_aesthetic_score_is_the_linear_head_on_the_unit_embedding(folder, head):
    found = scored(Aesthetic(weights=Folder(path=str(folder)), head=Folder(path=str(head))))[:, 0]
    weights = load_file(head / "model.safetensors")
    for sample, score in zip(samples(), found, strict=True):
        value = features(folder, sample)[0]
        for number in (0, 2, 4, 6, 7):
            value = weights[f"layers.{number}.weight"] @ value + weights[f"layers.{number}.bias"]
        assert score == pytest.approx(float(value), abs=1e-4)


@pytest.mark.parametrize("kind", [ClipScore, PickScore, HPSv2])
def test_the_same_sample_alone_in_company_and_in_another_order_has_the_same_bits(folder, kind):
    scorer, given = kind(weights=Folder(path=str(folder)), batch_size=3), samples()
    together = scored(scorer, given)
    assert (scored(scorer, given[::-1])[::-1] == together).all()
    assert all((scored(scorer, [sample]) == together[place]).all() for place, sample in enumerate(given))


def test_a_clips_score_is_the_mean_of_frames_and_a_broken_file_has_none(folder):
    clip = np.stack([picture(n, height=32, width=32) for n in range(5)])
    encoded = encode_mp4(clip, fps=4).bytes
    scorer = PickScore(weights=Folder(path=str(folder)), frames=3)
    broken = Sample(b"\0\0\0\x20ftypisom", "video", "a fox")
    whole, nothing = scored(scorer, [Sample(encoded, "video", "a fox"), broken])
    shown = decode(encoded, clip=True)[[0, 2, 4]]
    singly = scored(scorer, [Sample(encode_png(frame).bytes, "image", "a fox") for frame in shown])
    assert whole == pytest.approx(singly.mean(0), abs=1e-6) and np.isnan(nothing).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_middle_square_is_what_transformers_own_processor_makes(shape):
    pixels = picture(1, height=shape[0], width=shape[1])
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    wanted = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
    assert np.abs(middle_square(pixels, size=SIZE) - wanted).max() < 1e-5


def test_the_whole_picture_lies_between_black_bars():
    found = whole_in_square(np.full((10, 40, 3), 255, dtype=np.uint8), size=32)
    black, white = -MEAN / DEVIATION, (1 - MEAN) / DEVIATION
    assert found.shape == (3, 32, 32)
    assert found[:, 11, 5] == pytest.approx(black) and found[:, 12, 5] == pytest.approx(white)
    assert found[:, 19, 31] == pytest.approx(white) and found[:, 20, 31] == pytest.approx(black)


def test_the_tokenizer_may_lie_elsewhere(folder, tmp_path):
    write_clip(tmp_path / "bare", seed=2)
    for file in (tmp_path / "bare").glob("*token*"):
        file.unlink()
    bare = Folder(path=str(tmp_path / "bare"))
    beside = scored(PickScore(weights=bare, tokenizer=Folder(path=str(folder))))
    assert (beside == scored(PickScore(weights=Folder(path=str(folder))))).all()


def test_pickles_cut_files_and_strange_files_are_refused(folder, tmp_path):
    def copy(name):
        return write_clip(tmp_path / name)

    pickled = copy("pickled")
    (pickled / "pytorch_model.bin").write_bytes(b"")
    cut, strange = copy("cut"), copy("strange")
    tensors = load_file(cut / "model.safetensors")
    save_file({"more": torch.zeros(1), **tensors}, strange / "model.safetensors", {"format": "pt"})
    del tensors["visual_projection.weight"]
    save_file(tensors, cut / "model.safetensors", {"format": "pt"})
    for bad, reason in ((pickled, "unpickling"), (cut, "lacks 'visual_projection.weight'"), (strange, "holds 'more'")):
        with pytest.raises(ConfigError, match=reason):
            ClipScore(weights=Folder(path=str(bad))).open("cpu", NOWHERE)
    with pytest.raises(ConfigError, match="no such folder|holds no"):
        ClipScore(weights=Folder(path=str(tmp_path / "nowhere"))).open("cpu", NOWHERE)


def test_a_head_of_another_width_and_a_repository_of_a_pipeline_are_refused(folder, head, tmp_path):
    tensors = load_file(head / "model.safetensors")
    save_file({**tensors, "layers.0.weight": torch.zeros(1024, 25)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="another size"):
        Aesthetic(weights=Folder(path=str(folder)), head=Folder(path=str(tmp_path))).open("cpu", NOWHERE)
    with pytest.raises(ConfigError, match="holds = 'model'"):
        PickScore(weights=Hub(repo="yuvalkirstain/PickScore_v1"))
