"""The shipped jury: what its members are and what they see."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from infra.identity import key_of
from pipelines.miniature.jurors import WEIGHTS, shipped
from pipelines.miniature.making.juror_scenes import fit, fitting_sketch, paint, sketch_for
from pipelines.miniature.world.grammar import captions
from pipelines.models.jurors.juror import Case
from tests.support.places import NOWHERE


def test_there_are_three_jurors_with_weights_of_their_own():
    jury = shipped()
    assert len({juror.name for juror in jury}) == len({key_of(juror) for juror in jury}) == 3
    assert sum((WEIGHTS / juror.name / "model.safetensors").stat().st_size for juror in jury) < 5.5e6


def test_naming_the_jury_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from pipelines.miniature.jurors import shipped; shipped();"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'vllm', 'ray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _pairs(count):
    """Captions with a picture that fits and one that clearly does not."""
    generator = np.random.default_rng(11)
    requests = []
    for place, caption in enumerate(captions(count, split="evaluation", seed=4)):
        other = captions(count, split="train", seed=4)[place - 1]
        good = replace(fitting_sketch(caption, generator=generator), blur=0.0)
        bad = sketch_for(caption, other=other, generator=generator)
        if fit(good, caption.expectation) - fit(bad, caption.expectation) > 0.25:
            first, second = paint([good, bad], generator=generator)
            requests.append((caption.text, first, second))
    return requests


@pytest.mark.parametrize("model", shipped(), ids=lambda model: model.name)
def test_a_juror_prefers_the_picture_that_fits_in_both_orders(model):
    requests = _pairs(120)
    juror = model.open("cpu", NOWHERE)
    forth = juror.judge([Case(*request) for request in requests])
    back = juror.judge([Case(text, second, first) for text, first, second in requests])
    margin = np.array([a.score - b.score for (a,), (b,) in zip(forth, back, strict=True) if None not in (a.score, b.score)])
    assert len(requests) > 30
    assert len(margin) > 0.9 * len(requests)
    assert np.mean(margin > 0) > 0.8
