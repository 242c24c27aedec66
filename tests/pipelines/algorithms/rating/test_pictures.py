"""Scores of pictures from margins of pairs."""

import numpy as np
import pytest

from pipelines.algorithms.rating.pictures import picture_scores


def test_exact_margins_give_back_the_scores_of_every_connected_set():
    truth = np.array([2.0, -1.0, -1.0, 5.0, -5.0, 0.0])
    first, second = np.array([0, 1, 0, 3]), np.array([1, 2, 2, 4])
    found = picture_scores(first, second=second, margin=truth[first] - truth[second], pictures=6)
    assert found[:5] == pytest.approx(truth[:5])
    assert np.isnan(found[5])  # compared with nothing


def test_contradicting_margins_are_averaged():
    found = picture_scores(np.array([0, 0]), second=np.array([1, 1]), margin=np.array([1.0, 3.0]), pictures=2)
    assert found == pytest.approx([1.0, -1.0])
