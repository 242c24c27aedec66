"""Training pictures of jurors: the truth follows from the scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.miniature.making.juror_scenes import Blot, Sketch, contents, fit, fitting_sketch, paint, sketch_for
from pipelines.miniature.world.checker import check
from pipelines.miniature.world.grammar import Asked, Expectation, captions

CIRCLE, SQUARE, RED, BLUE = 0, 1, 0, 2
PAIR = Expectation((Asked("circle", "red"), Asked("square", "blue")))
RIGHT = Sketch((Blot(0, CIRCLE, RED), Blot(8, SQUARE, BLUE)))


def test_what_is_asked_and_nothing_else_fits_fully():
    assert fit(RIGHT, PAIR) == 1


@pytest.mark.parametrize(
    "blots",
    [
        RIGHT.blots[:1],
        (*RIGHT.blots, Blot(4, CIRCLE, BLUE)),
        (Blot(0, CIRCLE, BLUE), Blot(8, SQUARE, RED)),
        (replace(RIGHT.blots[0], strength=0.4), RIGHT.blots[1]),
        (replace(RIGHT.blots[0], shape_mix=0.5, other_shape=SQUARE), RIGHT.blots[1]),
    ],
    ids=["missing", "extra", "exchanged colours", "faint", "between shapes"],
)
def test_every_fault_costs_some_but_not_all_of_the_fit(blots):
    assert 0 < fit(Sketch(blots), PAIR) < 0.9


def test_the_wrong_side_costs_more_than_half():
    asked = Expectation((Asked("circle"), Asked("square")), "left")
    left, right = Sketch((Blot(0, CIRCLE, 0), Blot(1, SQUARE, 0))), Sketch((Blot(1, CIRCLE, 0), Blot(0, SQUARE, 0)))
    assert fit(left, asked) == 1
    assert fit(right, asked) < 0.5


def test_an_empty_picture_fits_nothing():
    assert fit(Sketch(()), PAIR) == 0
    assert contents([Sketch(())]).sum() == 0


def test_clean_fitting_pictures_pass_the_exact_checker():
    generator = np.random.default_rng(0)
    asked = captions(60, split="train", seed=0)
    clean = [replace(fitting_sketch(c, generator=generator), blur=0.0, grain=0.0, stain=0.0) for c in asked]
    whole = [n for n, s in enumerate(clean) if all(b == Blot(b.cell, b.shape, b.colour) for b in s.blots)]
    pictures = paint(clean, generator=generator)
    passed = [check(pictures[n], asked[n].expectation).strict for n in whole if fit(clean[n], asked[n].expectation) == 1]
    assert len(passed) > 20
    assert np.mean(passed) > 0.95


def test_a_generator_of_one_seed_draws_one_set_of_pictures():
    asked = captions(12, split="train", seed=0)

    def drawn():
        generator = np.random.default_rng(5)
        return paint([sketch_for(c, other=asked[0], generator=generator) for c in asked], generator=generator)

    assert np.array_equal(drawn(), drawn())
    assert drawn().shape == (12, 24, 24, 3)
