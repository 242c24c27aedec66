"""A vision-language model as a juror: order, independence of the batch, failures of one case alone."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from actors.serving.engine import Answer, Question
from actors.serving.transformers import TransformersEngine
from infra.config import ConfigError
from pipelines.algorithms.prompting.pointwise import Pointwise
from pipelines.miniature.jurors import WEIGHTS, shipped
from pipelines.miniature.making.juror_scenes import paint, sketch_for
from pipelines.miniature.world.grammar import captions
from pipelines.models.jurors.juror import Case
from tests.support.places import NOWHERE


@pytest.fixture(scope="module")
def cases():
    generator = np.random.default_rng(3)
    asked = captions(24, split="evaluation", seed=1)
    sketches = [sketch_for(c, other=asked[0], generator=generator) for c in asked for _ in range(2)]
    pictures = paint(sketches, generator=generator)
    return [Case(c.text, pictures[2 * i], pictures[2 * i + 1]) for i, c in enumerate(asked)]


def opened(model=None):
    return (model or shipped()[0]).open("cpu", NOWHERE)


@pytest.mark.parametrize("model", shipped(), ids=lambda model: model.name)
def test_the_same_question_alone_in_company_and_in_another_order_has_the_same_bits(model, cases):
    engine = model.engine.load(model.weights.local, device="cpu")
    questions = [q for c in cases for q in model.questionnaire.questions(c.prompt, first=c.first, second=c.second)]
    together = engine.ask(questions)
    assert engine.ask(questions[::-1])[::-1] == together
    for chosen in ([0], [5], [1, 7, 3]):
        assert engine.ask([questions[i] for i in chosen]) == [together[i] for i in chosen]


def test_png_bytes_and_pixels_are_the_same_picture(cases):
    def encoded(picture):
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        return buffer.getvalue()

    as_bytes = [Case(c.prompt, encoded(c.first), encoded(c.second)) for c in cases[:6]]
    assert opened().judge(as_bytes) == opened().judge(cases[:6])


def test_a_picture_that_cannot_be_read_is_the_fault_of_its_own_case_alone(cases):
    broken = Case(cases[0].prompt, b"no picture", cases[0].second)
    before, failed, after = opened().judge([cases[1], broken, cases[2]])
    assert isinstance(failed, OSError)
    assert [before, after] == opened().judge(cases[1:3])


def test_a_picture_is_graded_alone(cases):
    ((alone,),) = opened().judge([Case(cases[0].prompt, cases[0].first, None)])
    assert alone.choice in (None, "unparsable") and alone.grade is None


def test_free_text_begins_with_the_most_likely_token(cases):
    engine = TransformersEngine().load(WEIGHTS / "idefics3-pointwise", device="cpu")
    parts, pictures = (0, f"does this show {cases[0].prompt}?"), (cases[0].first,)
    (chosen,) = engine.ask([Question(parts, pictures, ("yes", "no"))])
    (written,) = engine.ask([Question(parts, pictures, max_tokens=3)])
    assert isinstance(written, Answer) and written.text.startswith(chosen.text) and not written.log_probabilities


def test_an_answer_that_is_not_one_token_is_refused(cases):
    model = shipped()[0].model_copy(update={"questionnaire": Pointwise(yes="certainly")})
    with pytest.raises(ConfigError, match="certainly"):
        opened(model).judge(cases[:1])


def test_weights_that_run_code_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="safetensors"):
        TransformersEngine().load(tmp_path, device="cpu")
