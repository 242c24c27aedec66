"""Text in pictures, read by published weights: what is drawn is what is found, and nothing else is."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from actors.media import encode_mp4, encode_png
from actors.serving.engine import Question
from infra.store.files import Folder
from pipelines.models.jurors.by_score import ScoreJuror
from pipelines.models.jurors.juror import Case
from pipelines.models.scorers.ocr import Ocr, asked_text, compared
from pipelines.models.scorers.ocr_model import OcrModel
from pipelines.models.scorers.scorer import Sample
from tests.support.places import NOWHERE
from tests.support.tiny_vlm import write_tiny_vlm


def drawn(*lines, size=(128, 112), pixels=30):
    picture = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(pixels)
    for number, line in enumerate(lines):
        draw.text((size[0] // 20, size[1] // 3 + 40 * number), line, fill="navy", font=font)
    return np.asarray(picture)


def sample(pixels, prompt, expectation=""):
    return Sample(encode_png(pixels).bytes, "image", prompt, expectation)


@pytest.fixture(scope="module")
def reader():
    return Ocr().open("cpu", NOWHERE)


def test_rendered_text_is_exact_and_a_wrong_letter_costs_one_letter(reader):
    asked = 'a poster that says "Salon"'
    right, wrong, without = reader.score([sample(drawn(text), asked) for text in ("Salon", "Saloon", "")])
    assert right.tolist() == [1, 1, 1]
    assert wrong.tolist() == pytest.approx([0, 5 / 6, 0])
    assert without.tolist() == [0, 0, 0]


def test_what_is_asked_is_the_expectations_text_or_else_the_quoted_part_of_the_prompt():
    pixels = drawn("")
    assert asked_text(sample(pixels, 'a shop with "OPEN" and “24 h”')) == "OPEN 24 h"
    assert asked_text(sample(pixels, "a dog", json.dumps({"text": ["NO", "DOGS"]}))) == "NO DOGS"
    assert asked_text(sample(pixels, 'a "dog"', json.dumps({"text": "cat"}))) == "cat"
    assert asked_text(sample(pixels, "the dog's bone and the cat's bowl", json.dumps({"objects": []}))) == ""


def test_a_prompt_without_text_and_a_file_that_is_no_picture_have_no_score(reader):
    broken = Sample(b"no picture", "image", 'a sign "Salon"')
    found = reader.score([sample(drawn("Salon"), "a sign"), broken, sample(drawn("Salon"), 'a sign "Salon"')])
    assert np.isnan(found[:2]).all() and found[2].tolist() == [1, 1, 1]


def test_a_picture_of_24_pixels_is_read_without_the_detector():
    picture = Image.new("RGB", (24, 24), "white")
    ImageDraw.Draw(picture).text((1, 6), "cat", fill="black", font=ImageFont.load_default(9))
    (found,) = Ocr(detect=False).open("cpu", NOWHERE).score([sample(np.asarray(picture), 'the word "cat"')])
    assert found.tolist() == [1, 1, 1]


def test_a_clips_score_is_the_mean_of_its_frames():
    clip = encode_mp4(np.stack([drawn("Salon"), drawn("")]), fps=8).bytes
    (found,) = Ocr(detect=False).open("cpu", NOWHERE).score([Sample(clip, "video", 'the text "Salon"')])
    assert found.tolist() == [0.5, 0.5, 0.5]


def test_as_a_juror_it_prefers_the_picture_that_shows_the_word():
    juror = ScoreJuror(name="reader", scorer=Ocr(detect=False)).open("cpu", NOWHERE)
    case = Case('a poster that says "Salon"', drawn("Salad"), drawn("Salon"))
    (opinions,) = juror.judge([case])
    assert [(o.dimension, o.choice) for o in opinions] == [(d, "second") for d in ("exact", "similarity", "words")]


def test_a_model_that_writes_what_it_reads_is_measured_as_a_reader_is(tmp_path):
    weights = Folder(path=str(write_tiny_vlm("qwen2-vl", tmp_path / "vlm")))
    scorer = OcrModel(weights=weights, max_tokens=6, frames=2)
    opened = scorer.open("cpu", NOWHERE)
    opened.engine.ends.extend(range(len(opened.engine.processor.tokenizer)))  # random weights end nowhere by themselves
    opened.engine.model.generation_config.eos_token_id = opened.engine.ends
    pixels, asked = drawn("Salon"), 'a sign "Salon"'
    clip = encode_mp4(np.stack([drawn("Salon"), drawn("")]), fps=8).bytes
    broken = Sample(b"no picture", "image", asked)
    found = opened.score([sample(pixels, asked), sample(pixels, "a sign"), broken, Sample(clip, "video", asked)])
    (said,) = opened.engine.ask([Question((0, scorer.instruction), (pixels,), max_tokens=6)])
    assert found[0].tolist() == pytest.approx(compared(said.text, asked="Salon"))
    assert np.isnan(found[1:3]).all() and np.isfinite(found[3]).all()
    asked_itself = json.dumps({"text": said.text})
    assert opened.score([sample(pixels, "", asked_itself)])[0, 1] == 1.0


def test_a_text_that_is_cut_off_is_no_score(tmp_path):
    weights = Folder(path=str(write_tiny_vlm("qwen2-vl", tmp_path / "vlm")))
    found = OcrModel(weights=weights, max_tokens=2).open("cpu", NOWHERE).score([sample(drawn("Salon"), 'the word "Salon"')])
    assert np.isnan(found).all()
