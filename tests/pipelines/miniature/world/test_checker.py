"""The checker on drawings, where the truth is known, and on pictures with a closed form."""

import numpy as np
import pytest

from pipelines.miniature.world.checker import check, detect
from pipelines.miniature.world.draw import Scene, Thing, draw, sample_scene
from pipelines.miniature.world.grammar import Asked, Expectation, captions


@pytest.fixture(scope="module")
def drawings():
    asked = captions(1200, split="train", seed=0)
    generator = np.random.default_rng(0)
    return asked, draw([sample_scene(c.expectation, generator=generator) for c in asked])


def _picture(*things: tuple[str, str, int, int]) -> np.ndarray:
    return draw([Scene(tuple(Thing(s, c, row, column, 3.2, 0.0, 0.0) for s, c, row, column in things), 128.0)])[0]


def test_clean_drawings_pass(drawings):
    asked, pictures = drawings
    checks = [check(p, c.expectation) for p, c in zip(pictures, asked, strict=True)]
    assert np.mean([c.strict for c in checks]) >= 0.99
    assert np.mean([c.quality for c in checks]) >= 0.85


def test_shuffled_captions_fail(drawings):
    asked, pictures = drawings
    order = np.random.default_rng(1).permutation(len(asked))
    assert np.mean([check(pictures[i], asked[j].expectation).strict for i, j in enumerate(order)]) <= 0.06


def test_drawing_needs_only_the_generator():
    asked = captions(12, split="train", seed=0)
    first, again = (
        draw([sample_scene(c.expectation, generator=generator) for c in asked])
        for generator in (np.random.default_rng(5), np.random.default_rng(5))
    )
    assert first.shape == (12, 24, 24, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)


def test_partial_credit_in_closed_form():
    both = Expectation((Asked("circle", "red"), Asked("square", "blue")))
    assert check(_picture(("circle", "red", 0, 0), ("square", "blue", 2, 2)), both).partial == 1.0
    assert check(_picture(("circle", "blue", 0, 0), ("square", "red", 2, 2)), both).partial == 0.5
    assert check(_picture(("circle", "red", 0, 0)), both).partial == 0.5
    extra = _picture(("circle", "red", 0, 0), ("square", "blue", 2, 2), ("cross", "green", 1, 1))
    assert check(extra, both).partial == pytest.approx(1 / 1.5)
    assert not check(extra, both).strict


def test_counts_are_exact():
    three = Expectation((Asked("cross", None, 3),))
    crosses = [("cross", "green", 0, 0), ("cross", "red", 0, 2), ("cross", "blue", 2, 1)]
    assert check(_picture(*crosses), three).strict
    assert check(_picture(*crosses[:2]), three).partial == pytest.approx(2 / 3)
    assert not check(_picture(*crosses, ("cross", "cyan", 1, 1)), three).strict


@pytest.mark.parametrize(
    ("relation", "first", "second"),
    [("left", (1, 0), (1, 2)), ("right", (0, 2), (2, 1)), ("above", (0, 1), (1, 1)), ("below", (2, 0), (0, 2))],
)
def test_relations_hold_one_way_only(relation, first, second):
    asked = Expectation((Asked("circle"), Asked("triangle")), relation)
    right = check(_picture(("circle", "red", *first), ("triangle", "cyan", *second)), asked)
    wrong = check(_picture(("circle", "red", *second), ("triangle", "cyan", *first)), asked)
    assert (right.strict, right.partial) == (True, 1.0)
    assert (wrong.strict, wrong.partial) == (False, pytest.approx(2 / 3))


def test_an_empty_picture_has_no_credit_and_no_quality():
    empty = check(_picture(), Expectation((Asked("circle"),)))
    assert (empty.strict, empty.partial, empty.quality) == (False, 0.0, 0.0)


def test_dirt_lowers_quality_and_noise_shows_nothing():
    clean = _picture(("circle", "red", 1, 1))
    dirty = clean.copy()
    dirty[0:2, 0:3] = (40, 185, 60)
    asked = Expectation((Asked("circle", "red"),))
    assert check(dirty, asked).strict
    assert check(dirty, asked).quality < check(clean, asked).quality
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert not any(found.shape for found in detect(noise)[0])


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="24"):
        check(np.zeros((32, 32, 3), dtype=np.uint8), Expectation((Asked("circle"),)))
