"""Diversity within a prompt is a mean over pairs."""

import math

import numpy as np
import pytest

from pipelines.algorithms.metrics.diversity import mean_diversity, mean_pairwise_distance, pixel_distances


def test_it_is_the_mean_over_all_pairs_of_a_prompt():
    distances = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 6.0], [2.0, 6.0, 0.0]])
    assert mean_pairwise_distance(distances) == 3.0


def test_equal_pictures_have_none_and_unknown_ones_are_left_out():
    pictures = np.stack([np.zeros((2, 2)), np.zeros((2, 2)), np.full((2, 2), 4.0)])
    distances = pixel_distances(pictures)
    assert distances[0, 1] == 0.0
    assert distances[0, 2] == 4.0
    distances[2] = distances[:, 2] = math.nan
    assert mean_pairwise_distance(distances) == 0.0
    assert math.isnan(mean_pairwise_distance(np.zeros((1, 1))))
    assert mean_diversity([np.zeros((1, 1)), np.array([[0.0, 2.0], [2.0, 0.0]])]) == pytest.approx(2.0)
