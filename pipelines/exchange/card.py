"""The card of a data set: README.md as Hugging Face reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.exchange.pairs import Layout

MOST_NAMED = 50  # generators that the card lists by name
TAGS = {"image": ("text-to-image", "image"), "video": ("text-to-video", "video")}


def escaped(text: str) -> str:
    """The text on one line, escaped so that Markdown and HTML show it unchanged."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!|~" else letter for letter in plain)


def card(counted: Mapping[str, int], *, generators: Sequence[str], layout: Layout) -> str:
    """The text of README.md; `counted` holds the number of pairs by choice."""
    medium = layout.medium
    task, modality = TAGS[medium]
    total = sum(counted.values())
    makers = ", ".join(escaped(name) for name in generators[:MOST_NAMED])
    makers += f" and {len(generators) - MOST_NAMED} more" if len(generators) > MOST_NAMED else ""
    columns = {
        ("id",): "id of the pair",
        ("prompt",): "the prompt",
        (f"{medium}_a", f"{medium}_b"): f"the two {modality}s, the files as they were made",
        ("choice",): "a, b or tie",
        ("agreement",): "share of the voters who made this choice, in [0, 1]",
        ("score",): "log-odds of a over b",
        ("generator_a", "generator_b"): "generators of the two",
    } | {(f"margin_{name}",): f"by how much a is better than b in {escaped(name)}" for name in layout.dimensions}
    columns |= {("subset",): "part of the data set"} if layout.subsets else {}
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
