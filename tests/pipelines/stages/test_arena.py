"""The arena: who plays, and what a rating says of itself."""

from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from infra.config import ConfigError
from pipelines.exchange.pairs import UNKNOWN
from pipelines.stages.arena import Arena
from pipelines.stages.imported import ImportedLabels, ImportedPictures, PairFiles


@dataclass
class Heard:
    """What a stage's context is asked and told."""

    labels: list
    metrics: dict = field(default_factory=dict)
    emitted: dict = field(default_factory=dict)

    def table(self, parent, columns=None):
        return pa.Table.from_pylist(self.labels).select(columns)

    def metric(self, name, value):
        self.metrics[name] = value

    def emit(self, name, rows):
        self.emitted[name] = rows


def label(number, first, second, choice):
    generators = {"generator_a": first, "generator_b": second}
    return {"id": f"pair{number:03d}", "prompt_id": f"prompt{number % 7}", "choice": choice} | generators


def rated(labels, **options):
    stage, heard = Arena(labels=ImportedLabels(pictures=ImportedPictures(source=PairFiles())), **options), Heard(labels)
    return list(stage.run(heard)), heard  # type: ignore[arg-type]


KNOWN = [label(n, "strong", "weak", "a" if n % 5 else "b") for n in range(60)]


def test_pictures_by_nobody_known_do_not_play_and_are_counted():
    strangers = [label(60 + n, UNKNOWN, "weak", "a") for n in range(30)]
    alone, heard = rated(KNOWN)
    beside, counted = rated(KNOWN + strangers)
    assert beside == alone and [row.generator for row in beside] == ["strong", "weak"]
    assert (heard.metrics["unknown_generator"], counted.metrics["unknown_generator"]) == (0, 30)
    assert len(counted.emitted["matches"]) == 60
    with pytest.raises(ConfigError, match="2 generators that are known, got 0"):
        rated(strangers)


def test_the_spread_of_a_strength_over_orders_of_its_matches_is_a_column():
    rows, _ = rated(KNOWN)
    assert all(row.mu_spread is not None and row.mu_spread > 0 for row in rows)
