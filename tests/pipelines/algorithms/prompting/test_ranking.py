"""K-wise rankings: every picture once, and no ranking is guessed."""

import pytest

from actors.serving.engine import Answer
from infra.config import ConfigError
from pipelines.algorithms.pairing.covering import covering_sets
from pipelines.algorithms.prompting.ranking import Ranking


def test_the_pictures_are_numbered_as_they_are_shown():
    question = Ranking().question("a red {box}", [b"1", b"2", b"3"])
    assert question.pictures == (b"1", b"2", b"3") and not question.answers
    assert "a red {box}" in question.parts[-1] and "3 > 2 > 1" in question.parts[-1]
    assert question.parts[:-1] == ("Image 1: ", 0, "Image 2: ", 1, "Image 3: ", 2)


def test_a_ranking_of_two_is_a_comparison():
    said = {text: Ranking().opinions([Answer(f"Answer: {text}")])[0].choice for text in ("1 > 2", "2 > 1", "1 = 2", "1")}
    assert said == {"1 > 2": "first", "2 > 1": "second", "1 = 2": "tie", "1": "unparsable"}


@pytest.mark.parametrize(
    ("text", "ranks"),
    [("Answer: Image 2, Image 3, Image 1.", (3, 1, 2)), ("2 > 1 = 3", (2, 1, 2)), ("**Answer:** 1 = 2 > 3", (1, 1, 3))],
)
def test_rankings_are_read_in_the_forms_that_are_stated(text, ranks):
    assert Ranking().ranks(Answer(text), count=3) == ranks


@pytest.mark.parametrize("text", ["", "1 > 2", "1 > 2 > 2", "1 > 2 > 4", "1 > 2 > 3 > 4", "the best is 1 > 2 > 3", "2 1 3"])
def test_what_ranks_not_every_picture_once_is_unparsable(text):
    assert Ranking().ranks(Answer(text), count=3) is None
    assert Ranking().ranks(Answer("1 > 2 > 3", ended=False), count=3) is None


@pytest.mark.parametrize("count", [1, 9])
def test_a_ranking_is_of_two_to_eight_pictures(count):
    with pytest.raises(ConfigError, match="2 to 8"):
        Ranking().question("a box", [b""] * count)


@pytest.mark.parametrize("most", [2, 3, 4, 8])
def test_every_pair_lies_in_a_set_and_no_set_is_larger_than_allowed(most):
    pairs = [(f"p{i}", f"p{j}") for i in range(10) for j in range(i) if (i * j) % 3 != 1]
    sets = covering_sets(pairs, most=most)
    assert all(any(set(pair) <= set(chosen) for chosen in sets) for pair in pairs)
    assert all(2 <= len(chosen) <= most for chosen in sets)
    assert covering_sets(pairs[::-1], most=most) == sets
    if most == 2:
        assert len(sets) == len(pairs)
