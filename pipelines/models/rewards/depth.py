"""How many blocks the denoiser of a generator has: its config says it without torch, when a recipe is built."""

from __future__ import annotations

import json
from typing import Any

from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.models.families.base import Family

COUNTS = {"transformer_blocks": "num_layers", "blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}
"""The setting that says how long a list of blocks is."""


def denoiser_config(backbone: Family) -> dict[str, Any] | None:
    """config.json of the denoiser; None where the weights do not lie in a folder yet."""
    if not isinstance(backbone.weights, Folder):
        return None
    path = backbone.weights.local / backbone.part / "config.json"
    return json.loads(path.read_text()) if path.is_file() else None


def refuse_shallow(backbone: Family, *, wanted: int, what: str, remedy: str) -> None:
    """Raises ConfigError where a transformer's blocks, counted by its config, are fewer than `wanted`."""
    config = denoiser_config(backbone)
    if config is None or not backbone.block_lists:
        return
    depth = sum(config[COUNTS[name]] for name in backbone.block_lists)
    if depth < wanted:
        raise ConfigError(f"{what} needs a denoiser of at least {wanted} blocks, {backbone.folder} has {depth}; {remedy}")
