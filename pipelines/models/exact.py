"""Weights are read strictly: a file holds exactly the tensors that it has to fill, no fewer and no more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from infra.config import ConfigError
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")


def refuse_unequal(given: Collection[str], *, wanted: Collection[str], source: str) -> None:
    """Raises ConfigError unless the two sets of names are equal; it names one missing and one unexpected tensor."""
    missing, unexpected = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or unexpected:
        problems = [f"lacks {missing[0]!r} ({len(missing)} missing)"] if missing else []
        problems += [f"holds {unexpected[0]!r}, which has no place ({len(unexpected)} unexpected)"] if unexpected else []
        raise ConfigError(f"{source} {' and '.join(problems)}; it belongs to another model, or was cut: write it again")


def load_exactly(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], *, names: Collection[str] | None = None, source: str
) -> None:
    """Fills the tensors of `names` (every entry of the state dict by default); all other tensors keep their values.

    `source` says in an error what was read. Raises ConfigError for missing or unexpected names and for other shapes.
    """
    own = module.state_dict()
    refuse_unequal(tensors, wanted=own if names is None else names, source=source)
    for name, value in tensors.items():
        if value.shape != own[name].shape:
            shapes = f"{list(value.shape)}, the model {list(own[name].shape)}"
            raise ConfigError(f"{source} has {name!r} of shape {shapes}; it belongs to a model of another size")
    module.load_state_dict(dict(tensors), strict=False)


def trained_names(module: nn.Module) -> list[str]:
    """Names of the parameters that require a gradient."""
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]
