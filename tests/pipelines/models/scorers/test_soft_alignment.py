"""Soft alignment by a shipped vision-language model, against its own answers."""

import json
import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from actors.media import encode_png
from actors.serving.engine import Question
from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.miniature.jurors import WEIGHTS
from pipelines.miniature.world.draw import draw, sample_scene
from pipelines.miniature.world.grammar import captions
from pipelines.models.scorers.scorer import Sample
from pipelines.models.scorers.soft_alignment import SoftTIFA, VQAScore, YesShare
from tests.support.places import NOWHERE

MODEL = Folder(path=str(WEIGHTS / "idefics3-pointwise"))
ASK = "does this show {caption}?"


@pytest.fixture(scope="module")
def samples():
    generator = np.random.default_rng(4)
    asked = captions(8, split="evaluation", seed=2)
    shown = [draw([sample_scene(caption.expectation, generator=generator)])[0] for caption in asked]
    fitting = [Sample(encode_png(p).bytes, "image", c.text) for c, p in zip(asked, shown, strict=True)]
    other = [Sample(encode_png(p).bytes, "image", c.text) for c, p in zip(asked, shown[1:] + shown[:1], strict=True)]
    return fitting + other


def log_p(samples, words=("yes", "no")):
    """What the model's engine answers when it is asked about one picture after another."""
    from actors.serving.transformers import TransformersEngine

    engine = TransformersEngine().load(MODEL.local, device="cpu")
    asked = []
    for sample in samples:
        picture = np.asarray(Image.open(BytesIO(sample.media)))
        asked.append(Question((0, ASK.replace("{caption}", sample.prompt)), (picture,), words))
    return [answer.log_probabilities for answer in engine.ask(asked)]


def scored(scorer, samples):
    return scorer.open("cpu", NOWHERE).score(samples)[:, 0]


def test_vqascore_is_the_probability_of_yes_and_the_share_is_that_among_yes_and_no(samples):
    answers = log_p(samples)
    plain = scored(VQAScore(weights=MODEL, question=ASK, yes="yes"), samples)
    share = scored(YesShare(weights=MODEL, question=ASK, yes="yes", no="no"), samples)
    assert plain == pytest.approx([math.exp(answer["yes"]) for answer in answers], rel=1e-6)
    odds = [math.exp(answer["yes"] - answer["no"]) for answer in answers]
    assert share == pytest.approx([value / (1 + value) for value in odds], rel=1e-6)
    assert (plain <= share + 1e-9).all()
    half = len(samples) // 2
    assert share[:half].mean() > share[half:].mean() + 0.2  # pictures of other captions are recognised as such


def test_soft_tifa_is_the_mean_over_the_questions_and_needs_some(samples):
    chosen = samples[:2]
    questions = [["is it a?", "yes"], ["is it b?", "no"]]
    with_questions = [Sample(s.media, "image", s.prompt, json.dumps({"questions": questions})) for s in chosen]
    both = scored(SoftTIFA(weights=MODEL, form="{question}"), with_questions)
    single = [
        scored(
            SoftTIFA(weights=MODEL, form="{question}"),
            [Sample(s.media, "image", s.prompt, json.dumps({"questions": [question]})) for s in chosen],
        )
        for question in questions
    ]
    assert both == pytest.approx(np.mean(single, axis=0))
    assert np.isnan(scored(SoftTIFA(weights=MODEL), chosen)).all()


def test_a_broken_picture_has_no_score_and_leaves_the_others_as_they_are(samples):
    scorer = VQAScore(weights=MODEL, question=ASK, yes="yes")
    one, nothing, other = scored(scorer, [samples[0], Sample(b"no picture", "image", "a fox"), samples[1]])
    assert [one, other] == scored(scorer, samples[:2]).tolist() and math.isnan(nothing)


def test_a_question_that_does_not_name_the_caption_is_refused():
    with pytest.raises(ConfigError, match="lacks {caption}"):
        VQAScore(weights=MODEL, question="is it good?")
    with pytest.raises(ConfigError, match="must differ"):
        YesShare(weights=MODEL, yes="no", no="no")
