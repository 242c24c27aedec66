"""What is trained of a generator (low-rank additions to some layers, or every parameter), and where training begins."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from infra.config import Config, ConfigError
from infra.lazy import lazy
from infra.store.files import refuse_unsafe
from pipelines.models.comfyui import A, B
from pipelines.models.families.base import Family

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")

LORA_FILE = "pytorch_lora_weights.safetensors"
MOST_NAMED = 24  # layers named in an error


class LoRA(Config):
    """Low-rank additions to some layers (Hu et al., 2021): W + alpha / rank * B A."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(32, ge=1)
    """Rank of each addition."""
    alpha: float = Field(64.0, gt=0)
    """Scale: an addition is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Names, or ends of names, of the layers that get one; empty: the projections of the family's attention."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of an addition's inputs that is set to zero while training."""

    def targets_of(self, family: Family) -> tuple[str, ...]:
        """The targets, or the family's own where none are given."""
        return self.targets or family.lora_targets


class Full(Config):
    """Every parameter of the denoiser."""

    kind: Literal["full"] = "full"


Adapter = Annotated[LoRA | Full, Field(discriminator="kind")]
"""What of the policy is trained: the type of an option."""


@dataclass(frozen=True)
class Start:
    """What an earlier run left: the policy begins there, and it is the reference."""

    folder: Path
    """Folder of its export."""
    adapter: LoRA | Full
    """The adapter that it trained."""


def peft_config(adapter: LoRA, *, targets: tuple[str, ...]) -> Any:
    """peft's settings of it, in the order in which the targets are given."""
    from peft import LoraConfig

    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # pyright: ignore[reportArgumentType]
        target_modules=list(targets),
        lora_dropout=adapter.dropout,
        init_lora_weights="gaussian",
    )


def refuse_unmatched(model: nn.Module, targets: tuple[str, ...]) -> None:
    """ConfigError for a target that no linear or convolutional layer's name ends in: peft minds only if none match."""
    layers = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = sorted({re.sub(r"^.*(?:blocks|attentions|resnets)\.\d+\.", "", name) for name in layers})
            shown = ", ".join(known[:MOST_NAMED]) + (
                f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
            )
            raise ConfigError(f"LoRA target {target!r} matches no layer of {type(model).__name__}; it has {shown}")


def refuse_other(adapter: LoRA, before: LoRA, *, family: Family) -> None:
    """A policy that goes on from a LoRA is one adapter, so rank, alpha and targets must be the start's."""
    for name, given, stored in (
        ("rank", adapter.rank, before.rank),
        ("alpha", adapter.alpha, before.alpha),
        ("targets", sorted(adapter.targets_of(family)), sorted(before.targets_of(family))),
    ):
        if given != stored:
            raise ConfigError(
                f"adapter.{name} = {given} but the start's LoRA has {stored}; give the same, or train in full from it"
            )


def read_lora(folder: Path, adapter: LoRA, *, part: str) -> dict[str, torch.Tensor]:
    """The layers of an exported LoRA by name; ConfigError where the file says another rank or alpha than the settings."""
    from safetensors import safe_open

    refuse_unsafe(folder)
    path = folder / LORA_FILE
    if not path.is_file():
        raise ConfigError(f"the start's folder {folder} has no {LORA_FILE}; give the export of a run that trained a LoRA")
    with safe_open(path, framework="pt") as file:
        layers = {key.removeprefix(f"{part}."): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        stored = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    for name, given, said in (
        ("rank", adapter.rank, stored.get(f"{part}.r")),
        ("alpha", adapter.alpha, stored.get(f"{part}.lora_alpha")),
    ):
        if given != said:
            raise ConfigError(f"{path} has {name} {said}, its run's settings say {given}; one of them is of another run")
    if not all(key.endswith((A, B)) for key in layers):
        raise ConfigError(f"{path} holds more than low-rank additions to the {part}; give a LoRA that `tune` exported")
    return layers
