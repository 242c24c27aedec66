"""The model card of a tuned generator: what it was made from, how, and what was measured. Markdown, every text escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.schemas.curves import Curve, ends, last_step

CARD = "README.md"


@dataclass(frozen=True)
class Ancestor:
    """One step of what led to a model, the oldest first."""

    name: str
    """Kind of the source: a stage, a data set or a base model."""
    key: str
    """Identity of the source: the key of a stage, a hash of the content, or a revision on the Hub."""
    note: str = ""
    """What it contributed, in a few words."""


@dataclass(frozen=True)
class Use:
    """How the weights are loaded."""

    pipeline: str
    """The pipeline's class with its module: "diffusers.StableDiffusion3Pipeline"."""
    base: str
    """Hub id or folder of the base model."""
    lora: bool
    """Whether the card's folder holds an adapter for `base`; else it holds the whole pipeline."""
    video: bool = False


def model_card(
    title: str,
    *,
    use: Use,
    lineage: Sequence[Ancestor],
    settings: Mapping[str, object],
    scores: Sequence[Mapping[str, object]],
) -> str:
    """README.md of a tuned model, with the head that model hubs read.

    `settings`: plain JSON data. `scores`: rows of one table; a column that a row lacks stays empty.
    """
    what = "LoRA adapter" if use.lora else "whole pipeline"
    parts = [
        _head(use),
        f"# {escape(title)}",
        f"A preference-tuned {what} for {escape(use.base)}, made by Salon.",
        "## Use",
        _fenced(_snippet(use), language="python"),
        "## Lineage",
        _table([{"made from": each.name, "identity": each.key, "contributed": each.note} for each in lineage]),
        "## Settings",
        _fenced(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False), language="json"),
        "## Scores",
        _table(scores) if scores else "None were measured.",
    ]
    return "\n\n".join(parts) + "\n"


def summary(curve: Sequence[Curve]) -> list[dict[str, object]]:
    """Means over the first and the last tenth of a training's steps, one row per metric that was measured in both."""
    steps = last_step(curve)
    return [
        {"training metric": metric, "first tenth": first, "last tenth": last, "steps": steps}
        for metric, (first, last) in ends(curve).items()
        if first is not None and last is not None
    ]


def escape(text: str) -> str:
    """Text that markdown shows as it is: one line, no link, no markup, no table's bar, no HTML."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$-])", r"\\\1", line)


def _head(use: Use) -> str:
    kind = "text-to-video" if use.video else "text-to-image"
    tags = [kind, "preference-optimization", *(["lora"] if use.lora else [])]
    # JSON's strings are YAML's, so nothing in a name can end the head or start a field.
    fields = {"library_name": "diffusers", "base_model": use.base, "pipeline_tag": kind, "tags": tags}
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in fields.items()), "---"])


def _snippet(use: Use) -> str:
    module, _, name = use.pipeline.rpartition(".")
    lines = [f"from {module} import {name}", "", "folder = ...  # the folder of this card"]
    if use.lora:
        lines += [f"pipe = {name}.from_pretrained({json.dumps(use.base)})", "pipe.load_lora_weights(folder)"]
    else:
        lines += [f"pipe = {name}.from_pretrained(folder)"]
    return "\n".join(lines)


def _fenced(text: str, *, language: str) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    head = [escape(name) for name in lines[0]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, lines[1], *cells])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
