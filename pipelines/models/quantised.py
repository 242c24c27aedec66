"""A frozen base in four bits: NF4 with double quantisation (Dettmers et al., 2023, QLoRA), by bitsandbytes.

A weight is one of 16 levels, placed so that each is used equally often by normal values, times the largest magnitude of
its block of 64. These scales are kept in eight bits, with one float32 for each 256 of them. The layers are those that
diffusers itself quantises: every linear one, but for modules that the model keeps in float32. Convolutions, norms, biases
and embeddings stay as they are, and so does a LoRA, which is trained in float32 beside the base.

The weights are read whole on the CPU and quantised layer by layer on their way to the device, so a GPU never holds more
than the quantised ones. This works on a CPU, too, where diffusers' own loader asks for a GPU.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.adapter import Full, LoRA

if TYPE_CHECKING:
    import torch
    from torch import nn
else:
    torch = lazy("torch")

BasePrecision = Literal["unquantised", "nf4"]
"""How the frozen weights under a LoRA are kept: as they are loaded, or in four bits."""

BLOCK, SCALES = 64, 256
"""Weights that share a scale; scales that share one of their own."""
NF4_BYTES = 4 / 8 + 1 / BLOCK + 4 / (BLOCK * SCALES)
"""Bytes of a quantised weight with its share of the scales: 0.516."""
PACKAGE, OLDEST = "bitsandbytes", (0, 50)
"""This version computes NF4 on a CPU as well; older ones were not tried."""


def require_quantiser(base: BasePrecision) -> None:
    """Raises ConfigError where a base is to be quantised and bitsandbytes is not installed, or too old."""
    if base == "unquantised":
        return
    remedy = f'pip install "salon[nf4]" (bitsandbytes >= {".".join(map(str, OLDEST))}), or leave --base-precision out'
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise ConfigError(f"--base-precision {base} needs bitsandbytes, which is not installed: {remedy}") from error
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        raise ConfigError(f"--base-precision {base} needs a newer bitsandbytes than {version}: {remedy}")


def require_frozen(base: BasePrecision, adapter: LoRA | Full | None) -> None:
    """Raises ConfigError where all weights of a quantised base are to be trained: a level has no gradient."""
    if base != "unquantised" and isinstance(adapter, Full):
        raise ConfigError(
            f"base precision {base}: quantised weights are frozen and cannot be trained in full; train a LoRA "
            "(--adapter lora), or leave --base-precision out"
        )


def quantise(model: nn.Module, *, device: torch.device | str, dtype: torch.dtype) -> None:
    """Quantises the linear layers of a model that lies on the CPU, and moves it to the device.

    dtype: in which the quantised layers multiply, that of the weights as they were loaded.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit
    from diffusers import BitsAndBytesConfig
    from diffusers.quantizers.bitsandbytes import replace_with_bnb_linear

    before = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    given: Any = model
    kept = list(given._keep_in_fp32_modules or ())
    replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=config)
    for name in list(before):
        layer, old = model.get_submodule(name), before.pop(name)
        if isinstance(layer, Linear4bit):
            empty: Any = layer.weight
            packed: Any = Params4bit(old.weight.data, **{**empty.__dict__, "requires_grad": False})
            layer.weight = packed.to(device)  # here it is quantised
            layer.bias = old.bias
    given.is_loaded_in_4bit = True  # by this peft knows which kind of LoRA such layers take
    model.to(device)
