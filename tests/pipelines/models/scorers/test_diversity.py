"""Diversity: a measure of a group, of which every sample has its share."""

from itertools import combinations

import numpy as np
import pytest

from actors.media import encode_png
from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.models.jurors.by_score import ScoreJuror
from pipelines.models.scorers.diversity import Diversity
from pipelines.models.scorers.scorer import Sample
from tests.support.places import NOWHERE
from tests.support.tiny_scorers import picture, write_clip


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return Diversity(weights=Folder(path=str(write_clip(tmp_path_factory.mktemp("clip"), seed=2))))


def grouped(files):
    return [Sample(f, "image", "a fox", "", tuple(o for o in files if o is not f)) for f in files]


def test_the_mean_over_a_prompts_samples_is_the_mean_distance_of_its_pairs(scorer):
    files = [encode_png(picture(n)).bytes for n in range(4)]
    opened = scorer.open("cpu", NOWHERE)
    pairs = [opened.score(grouped(list(pair)))[0, 0] for pair in combinations(files, 2)]
    assert opened.score(grouped(files)).mean() == pytest.approx(np.mean(pairs)) and min(pairs) > 1e-4


def test_equal_samples_have_none_and_a_sample_alone_or_broken_has_no_value(scorer):
    one, broken = encode_png(picture(1)).bytes, b"no picture"
    given = [
        Sample(one, "image", "a fox", "", (bytes(one),)),
        Sample(one, "image", "a fox"),
        Sample(broken, "image", "a fox", "", (one,)),
        Sample(one, "image", "a fox", "", (broken, one)),
    ]
    found = scorer.open("cpu", NOWHERE).score(given)[:, 0]
    assert found[[0, 3]] == pytest.approx([0, 0], abs=1e-6) and np.isnan(found[[1, 2]]).all()


def test_it_is_no_juror(scorer):
    with pytest.raises(ConfigError, match="group of samples"):
        ScoreJuror(name="diverse", scorer=scorer)
