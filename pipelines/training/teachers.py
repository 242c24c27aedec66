"""What taught a model: the jurors, scorers and labels behind its weights, read off the DAG.

A measure is held out for a tuned generator exactly when nothing that judges in it stands behind the generator's weights.
Nobody declares that. A juror is the same juror under another name and with another question, since its weights are compared
too; a reward model carries the jurors of the labels it learned from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from infra.config import Config
from infra.dag.stage import Stage
from infra.identity import fields, key_of
from infra.store.files import Folder
from pipelines.models.families.base import Family
from pipelines.models.jurors.juror import Juror
from pipelines.models.rewards.trained import TrainedLatentReward
from pipelines.models.scorers.scorer import Scorer
from pipelines.models.weights import Hub
from pipelines.schemas.votes import Preference


def teachers_of(generator: Config) -> frozenset[str]:
    """Keys of everything that judges behind a generator's weights; empty for weights that no stage made.

    That is every scorer and juror with the weights it names, and every stage of preferences, a jury's or people's.
    """
    found: set[str] = set()
    _collect(generator, found, set(), judging=False)
    return frozenset(found)


def judges_in(measures: Iterable[Config]) -> frozenset[str]:
    """Keys of the scorers or jurors of a measure, with their weights, and of everything that judges behind them."""
    found: set[str] = set()
    for measure in measures:
        found.add(_key(measure))
        _collect(measure, found, set(), judging=True)
    return frozenset(found)


def _key(judge: Config) -> str:
    """What a scorer or juror is, whatever it is called."""
    return key_of({"class": type(judge).__name__} | {k: v for k, v in fields(judge).items() if k != "name"})


def _collect(value: Any, found: set[str], visited: set[int], *, judging: bool) -> None:
    """Walks the object tree; `judging`: inside a juror or scorer, whose weights are its own until a stage begins."""
    if isinstance(value, list | tuple):
        for item in value:
            _collect(item, found, visited, judging=judging)
    elif isinstance(value, dict):
        _collect(list(value.values()), found, visited, judging=judging)
    elif isinstance(value, Stage):
        if id(value) not in visited:  # parents are shared: without this the walk grows with the number of paths
            visited.add(id(value))
            if value.row is Preference:
                found.add(value.key)
            _descend(value, found, visited, judging=False)
    elif isinstance(value, Config):
        if judging and isinstance(value, Folder | Hub):
            found.add(key_of(value))
        # What steers the sampling of a generator has taught it, too.
        judge = isinstance(value, Juror | Scorer | TrainedLatentReward)
        if judge:
            found.add(_key(value))
        # A trained scorer names the generator it stands on; that generator's weights judge nothing.
        inside = (judging or judge) and not isinstance(value, Family)
        _descend(value, found, visited, judging=inside)


def _descend(config: Config, found: set[str], visited: set[int], *, judging: bool) -> None:
    for name, field in type(config).model_fields.items():
        if not field.exclude:
            _collect(getattr(config, name), found, visited, judging=judging)
