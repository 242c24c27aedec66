"""Models of the transformers library, read strictly: safetensors only, and every tensor that the model has, no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.config import ConfigError
from infra.store.files import refuse_unsafe
from pipelines.models.weights import Hub, Weights

BUFFERS = ("position_ids",)
"""Tensors of old files that hold no weights: 0, 1, 2, ..."""


def refuse_pipeline(weights: Weights | None, *, scorer: str) -> None:
    """Raises ConfigError for a repository of the Hub that is declared to hold a generator."""
    if isinstance(weights, Hub) and weights.holds != "model":
        raise ConfigError(f"scorer {scorer}: {weights.repo} is to hold a pipeline; give holds = 'model'")


def load_model(kind: Any, folder: Path, *, dtype: Any, device: str) -> Any:
    """A model of class `kind` for inference; raises ConfigError unless the folder's file fills it exactly.

    The library itself fills what a file lacks with random numbers and goes on.
    """
    refuse_unsafe(folder)
    try:
        model, report = kind.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{folder} holds no {kind.__name__} that could be read: {reason}") from error
    missing = sorted(report["missing_keys"])
    unexpected = sorted(key for key in report["unexpected_keys"] if not key.endswith(BUFFERS))
    if missing or unexpected:
        problems = [f"lacks {missing[0]!r} ({len(missing)} missing)"] if missing else []
        problems += [f"holds {unexpected[0]!r}, which has no place ({len(unexpected)} unexpected)"] if unexpected else []
        raise ConfigError(f"{folder} {' and '.join(problems)}; it is no {kind.__name__}, or was cut: write it again")
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder; no code of the folder is run."""
    from transformers import AutoTokenizer

    refuse_unsafe(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{folder} holds no tokenizer that could be read: {reason}; name one that does") from error
