"""The card of a data set: README.md as Hugging Face reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.exchange.pairs import Layout

SHOWN = 50  # generators
TAGS = {"image": ("text-to-image", "image"), "video": ("text-to-video", "video")}


def escaped(text: str) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!|~" else letter for letter in plain)


def card(counted: Mapping[str, int], *, generators: Sequence[str], layout: Layout) -> str:
    """README.md. `counted`: pairs by choice."""
    medium = layout.medium
    task, modality = TAGS[medium]
    total = sum(counted.values())
    makers = ", ".join(escaped(name) for name in generators[:SHOWN])
    makers += f" and {len(generators) - SHOWN} more" if len(generators) > SHOWN else ""
    columns = {
        ("id",): "of the pair",
        ("prompt",): "what was asked for",
        (f"{medium}_a", f"{medium}_b"): f"the two {modality}s, the files as they were made",
        ("choice",): "a, b or tie",
        ("agreement",): "share of the voters that said so, in [0, 1]",
        ("score",): "log-odds of a over b",
        ("generator_a", "generator_b"): "who made them",
    } | {(f"margin_{name}",): f"how much better a is in {escaped(name)}" for name in layout.dimensions}
    names = {one: escaped(layout.renamed.get(one, one)) for group in columns for one in group}
    meanings = [f"| {', '.join(names[one] for one in group)} | {what} |" for group, what in columns.items()]
    lines = [
        "---",
        f"task_categories:\n- {task}",
        f"tags:\n- preference\n- salon\n- {modality}",
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*.parquet",
        "---",
        f"# {total} preference pairs",
        f"Two {modality}s of one prompt and which of them is better, written by `salon export salon`.",
        f"Choices: a {counted['a']}, b {counted['b']}, tie {counted['tie']}. Generators: {makers or 'unknown'}.",
        "| column | meaning |",
        "|---|---|",
        *meanings,
    ]
    return "\n".join(lines) + "\n"
