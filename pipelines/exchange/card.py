"""The card of a data set: README.md as Hugging Face reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHOWN = 50  # generators
TAGS = {"image": ("text-to-image", "image"), "video": ("text-to-video", "video")}


def escaped(text: str) -> str:
    """Text that Markdown and HTML leave as it is, on one line."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!|~" else letter for letter in plain)


def card(
    counted: Mapping[str, int],
    *,
    generators: Sequence[str],
    dimensions: Sequence[str],
    medium: str,
    renamed: Mapping[str, str],
) -> str:
    """README.md. `counted`: pairs by choice; `renamed`: what the files call a column."""
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
    } | {(f"margin_{name}",): f"how much better a is in {escaped(name)}" for name in dimensions}
    meanings = [
        f"| {', '.join(escaped(renamed.get(name, name)) for name in names)} | {what} |" for names, what in columns.items()
    ]
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
