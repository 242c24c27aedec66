"""What people say of a stage's pairs, wherever they were asked: text and content of the pictures identify a pair.

Ids of imported pairs come from the files they stand in, so they say nothing; a picture that was exported, labelled and
imported again has the bytes that were rendered. Which of the two is called a may differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc

from infra.config import ConfigError
from infra.dag.stage import Context
from pipelines.algorithms.prompting.opinion import OVERALL
from pipelines.stages.pair import PairSamples
from pipelines.stages.sources import Labels, Pictures

TURNED = {"a": "b", "b": "a", "tie": "tie"}
COLUMNS = ["id", "text", "picture_a", "picture_b"]
AT_ONCE = 256


def choices_of_people(context: Context, pairs: PairSamples, truth: Labels) -> dict[str, dict[str, str]]:
    """a, b or tie in terms of `pairs`, by dimension and id of the pair; raises ConfigError where no pair is recognised."""
    labels = context.table(truth, [*COLUMNS, "choice"])
    ours = context.table(pairs, COLUMNS)
    ours = ours.filter(pc.is_in(ours["text"], pc.unique(labels["text"])))
    known: dict[tuple[str, str, str], tuple[str, bool]] = {}
    for name, key in _keys(context, ours, pairs.pictures):
        known[key] = (name, False)
        known.setdefault((key[0], key[2], key[1]), (name, True))
    found: dict[str, dict[str, str]] = defaultdict(dict)
    recognised: dict[str, tuple[str, bool]] = {}
    chosen = dict(zip(labels["id"].to_pylist(), labels["choice"].to_pylist(), strict=True))
    for label, key in _keys(context, labels, truth.shown):
        if key in known:
            name, turned = recognised[label] = known[key]
            found[OVERALL].setdefault(name, TURNED[chosen[label]] if turned else chosen[label])
    if not recognised:
        raise ConfigError(
            f"label: none of the {labels.num_rows} pairs that people labelled is among the pairs; label pairs of this run, "
            "as `salon export` writes them, without changing their texts and pictures"
        )
    for row in context.table(truth, name="dimensions").to_pylist():
        if row["pair_id"] in recognised:
            name, turned = recognised[row["pair_id"]]
            choice = "a" if row["margin"] > 0 else "b" if row["margin"] < 0 else "tie"
            found[row["dimension"]].setdefault(name, TURNED[choice] if turned else choice)
    return dict(found)


def _keys(context: Context, table: pa.Table, pictures: Pictures) -> list[tuple[str, tuple[str, str, str]]]:
    """For each row its id, and its text with the contents of both pictures."""
    columns = [table[name].to_pylist() for name in COLUMNS]
    content = _contents(context, pictures, sorted({*columns[2], *columns[3]}))
    return [(name, (text, content[a], content[b])) for name, text, a, b in zip(*columns, strict=True)]


def _contents(context: Context, pictures: Pictures, ids: Sequence[str]) -> dict[str, str]:
    """A digest of each picture's file."""
    reader, found = context.lookup(pictures), {}
    for start in range(0, len(ids), AT_ONCE):
        part = ids[start : start + AT_ONCE]
        files = reader.take(part, [pictures.medium])[pictures.medium].to_pylist()
        found |= {name: sha256(file["bytes"]).hexdigest() for name, file in zip(part, files, strict=True)}
    return found
