"""The juror and its transformers engine: order, independence of the batch, attributable failures."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from actors.serving.transformers import TransformersEngine
from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.algorithms.prompting.pointwise import Pointwise
from pipelines.miniature.jurors import shipped
from pipelines.miniature.making.juror_scenes import paint, sketch_for
from pipelines.miniature.world.grammar import captions


@pytest.fixture(scope="module")
def requests():
    generator = np.random.default_rng(3)
    asked = captions(24, split="evaluation", seed=1)
    sketches = [sketch_for(c, other=asked[0], generator=generator) for c in asked for _ in range(2)]
    pictures = paint(sketches, generator=generator)
    return [(c.text, pictures[2 * i], pictures[2 * i + 1]) for i, c in enumerate(asked)]


def _scores(verdicts):
    return np.array([np.nan if verdict.score is None else verdict.score for verdict in verdicts])


@pytest.mark.parametrize("model", shipped(), ids=lambda model: model.name)
def test_a_verdict_does_not_depend_on_the_rest_of_the_batch(model, requests):
    juror = model.juror()
    together = juror.judge(requests)
    alone = [juror.judge([request])[0] for request in requests]
    assert [v.choice for v in together] == [v.choice for v in alone]
    np.testing.assert_allclose(_scores(together), _scores(alone), atol=2e-4)


def test_png_bytes_and_pixels_are_the_same_picture(requests):
    def encoded(picture):
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        return buffer.getvalue()

    juror = shipped()[0].juror()
    as_bytes = [(text, encoded(first), encoded(second)) for text, first, second in requests[:6]]
    assert juror.judge(as_bytes) == juror.judge(requests[:6])


def test_a_picture_that_cannot_be_read_raises_and_the_others_are_judged_without_it(requests):
    juror = shipped()[0].juror()
    broken = (requests[0][0], b"no picture", requests[0][2])
    with pytest.raises(OSError):
        juror.judge([requests[1], broken])
    with pytest.raises(OSError):
        juror.judge([broken])
    assert len(juror.judge([requests[1]])) == 1


def test_an_answer_that_is_not_one_token_is_refused(requests):
    model = shipped()[0]
    juror = model.model_copy(update={"questionnaire": Pointwise(yes="certainly")}).juror()
    with pytest.raises(ConfigError, match="certainly"):
        juror.judge(requests[:1])


def test_weights_that_run_code_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="safetensors"):
        TransformersEngine(weights=Folder(path=str(tmp_path))).load()
