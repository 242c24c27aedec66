"""K-wise rankings: both orders, and no ranking is guessed."""

import pytest

from actors.serving.engine import Answer
from infra.config import ConfigError
from pipelines.algorithms.prompting.ranking import Ranking


def test_the_pictures_are_asked_about_in_both_orders():
    forth, back = Ranking().questions("a red {box}", [b"1", b"2", b"3"])
    assert (forth.pictures, back.pictures) == ((b"1", b"2", b"3"), (b"3", b"2", b"1"))
    assert "a red {box}" in forth.parts[-1] and "3 > 2 > 1" in forth.parts[-1]
    assert forth.parts[:-1] == ("Image 1: ", 0, "Image 2: ", 1, "Image 3: ", 2)


def test_ranks_of_both_orders_speak_of_the_same_pictures():
    answers = [Answer("They differ.\nAnswer: 3 > 1 > 2"), Answer("Answer: 1 > 3 > 2")]
    assert Ranking().ranks(answers, count=3) == ((2, 3, 1), (2, 3, 1))


@pytest.mark.parametrize(
    ("text", "ranks"),
    [("Answer: Image 2, Image 3, Image 1.", (3, 1, 2)), ("2 > 1 = 3", (2, 1, 2)), ("**Answer:** 1 = 2 > 3", None)],
)
def test_rankings_are_read_in_the_forms_that_are_stated(text, ranks):
    assert Ranking().read(text, count=3) == (ranks or (1, 1, 3))


@pytest.mark.parametrize("text", ["", "1 > 2", "1 > 2 > 2", "1 > 2 > 4", "1 > 2 > 3 > 4", "the best is 1 > 2 > 3", "2 1 3"])
def test_what_ranks_not_every_picture_once_is_unparsable(text):
    assert Ranking().read(text, count=3) is None
    assert Ranking().ranks([Answer("1 > 2 > 3", ended=False), Answer(text)], count=3) == (None, None)


@pytest.mark.parametrize("count", [1, 9])
def test_a_ranking_is_of_two_to_eight_pictures(count):
    with pytest.raises(ConfigError, match="2 to 8"):
        Ranking().questions("a box", [b""] * count)
