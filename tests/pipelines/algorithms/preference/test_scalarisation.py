"""Several dimensions of quality as one label."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from pipelines.algorithms.preference.scalarisation import Linear, Single, scalar_margins, scale_of

WORDS = {"a": 1.0, "tie": 0.0, "b": -1.0}
LABELS = {"visual": ["a", "a", "b", "tie"], "motion": ["b", "a", "b", "tie"], "text": ["tie", "tie", "a", "tie"]}
FLIPPED = {"a": "b", "b": "a", "tie": "tie"}


def margins(columns):
    return {name: np.array([WORDS[word] for word in words]) for name, words in columns.items()}


def labels(**weights):
    return scalar_margins(margins(LABELS), scalarisation=Linear(weights=weights))


def test_the_lead_is_the_weighted_mean_of_the_margins():
    given = {"visual": np.array([1.0, 2.0]), "text": np.array([5.0, 5.0])}
    once, twice = (scalar_margins(given, scalarisation=Linear(weights={"visual": k, "text": 3 * k})) for k in (1, 2))
    assert once.lead.tolist() == twice.lead.tolist() == pytest.approx([4.0, 4.25])


def test_all_weight_on_one_dimension_is_that_dimension():
    one = scalar_margins(margins(LABELS), scalarisation=Single(dimension="visual"))
    other = labels(visual=1, motion=0)
    assert one.choices == other.choices == LABELS["visual"]
    assert one.agreement.tolist() == [1.0] * 4


def test_a_balance_of_weights_is_a_tie():
    assert labels(visual=1, motion=1).choices == ["tie", "a", "b", "tie"]
    assert labels(visual=0.1, motion=0.1, text=0.2).choices[2] == "tie"


def test_the_heavier_dimension_decides_and_the_agreement_is_its_share():
    found = labels(visual=3, motion=1)
    assert found.choices == ["a", "a", "b", "tie"]
    assert found.lead.tolist() == pytest.approx([0.5, 1.0, -1.0, 0.0])
    assert found.agreement.tolist() == pytest.approx([0.75, 1.0, 1.0, 1.0])


@given(
    rows=st.lists(st.tuples(*[st.sampled_from(["a", "b", "tie"])] * 3), min_size=1),
    weights=st.tuples(*[st.integers(0, 5)] * 3),
)
def test_exchanging_a_and_b_everywhere_exchanges_the_label(rows, weights):
    if not sum(weights):
        return
    rule = Linear(weights=dict(zip(LABELS, weights, strict=True)))
    columns = {name: [row[place] for row in rows] for place, name in enumerate(LABELS)}
    found = scalar_margins(margins(columns), scalarisation=rule)
    exchanged = {name: [FLIPPED[word] for word in words] for name, words in columns.items()}
    turned = scalar_margins(margins(exchanged), scalarisation=rule)
    assert turned.choices == [FLIPPED[word] for word in found.choices]
    assert turned.agreement.tolist() == found.agreement.tolist()


def test_margins_of_scores_are_scaled_to_the_deviation_of_one_score_and_words_are_left_as_they_are():
    generator = np.random.default_rng(0)
    first, second = generator.normal(scale=3.0, size=(2, 100_000))
    assert scale_of(first - second) == pytest.approx(3.0, rel=0.01)
    assert scale_of(np.array([1.0, 0.0, -1.0])) == scale_of(np.array([])) == 1.0


@pytest.mark.parametrize("weights", [{"visual": -1.0, "text": 2.0}, {"visual": float("nan")}, {"visual": 0.0}, {}])
def test_weights_that_turn_a_preference_round_or_weigh_nothing_are_refused(weights):
    with pytest.raises(ConfigError, match="Linear"):
        Linear(weights=weights)


def test_a_dimension_nobody_scored_is_named():
    with pytest.raises(ConfigError, match=r"'beauty'.*motion, text, visual"):
        scalar_margins(margins(LABELS), scalarisation=Single(dimension="beauty"))
