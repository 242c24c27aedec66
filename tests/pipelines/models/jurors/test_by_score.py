"""A scorer as a juror: the higher score is better, whatever is shown first, and within the threshold neither is."""

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from actors.media import encode_png
from pipelines.miniature.scorers import Checker
from pipelines.miniature.world.draw import draw, sample_scene
from pipelines.miniature.world.grammar import captions
from pipelines.models.jurors.by_score import ScoreJuror
from pipelines.models.jurors.juror import Case
from pipelines.models.scorers.scorer import Scorer
from tests.support.places import NOWHERE

CAPTIONS = captions(12, split="evaluation", seed=0)
ASKED = {caption.text: caption.expectation.to_json() for caption in CAPTIONS}


class CheckerOfCaptions(Scorer):
    """The miniature's checker, which looks up what a caption asks for."""

    convention: ClassVar = Checker.convention
    name: str = "checker"

    @property
    def dimensions(self) -> tuple[str, ...]:
        return Checker().dimensions

    def open(self, device: str, places: Any) -> Any:
        opened = Checker().open(device, places)

        class Asking:
            def score(self, samples):
                return opened.score([replace(sample, expectation=ASKED[sample.prompt]) for sample in samples])

        return Asking()


def perfect(caption):
    return encode_png(draw([sample_scene(caption.expectation, generator=np.random.default_rng(3))])[0]).bytes


def said(cases, **options):
    return ScoreJuror(name="checker", scorer=CheckerOfCaptions(), **options).open("cpu", NOWHERE).judge(cases)


def test_the_picture_that_shows_what_was_asked_for_is_better_in_both_orders():
    blank = encode_png(np.full((24, 24, 3), 128, dtype=np.uint8)).bytes
    pairs = [(caption.text, perfect(caption), blank) for caption in CAPTIONS]
    forth = said([Case(*pair) for pair in pairs])
    back = said([Case(text, second, first) for text, first, second in pairs])
    for one, other in zip(forth, back, strict=True):
        assert [opinion.dimension for opinion in one] == ["strict", "partial", "quality"]
        assert (one[0].choice, one[0].score, other[0].choice, other[0].score) == ("first", 1.0, "second", -1.0)


def test_a_difference_within_the_threshold_is_a_tie():
    blank = encode_png(np.full((24, 24, 3), 128, dtype=np.uint8)).bytes
    case = Case(CAPTIONS[0].text, perfect(CAPTIONS[0]), blank)
    ((strict, *_),) = said([case], tie_within=1.0)
    assert (strict.choice, strict.score) == ("tie", 1.0)
    ((same, *_),) = said([replace(case, second=case.first)])
    assert (same.choice, same.score) == ("tie", 0.0)
