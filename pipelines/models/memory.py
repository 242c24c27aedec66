"""What a rank of a tuning run needs of a GPU's memory, reckoned from published sizes before any weights are at hand.

Exact: parameter counts and the layers a LoRA can change; `tests/pipelines/models/test_memory.py` builds each model from
its published config and compares. By rule: what an engine keeps of each parameter. An estimate: activations, measured as
the values that torch's autograd keeps of one picture (diffusers 0.42, bfloat16, attention in linear memory); the test
measures again at another size and allows a tenth. A LoRA in fp32 under autocast (plain torch) keeps up to a fifth more,
for each of its layers casts its input; training in fp32 keeps up to a third fewer values. Left out: CUDA's own context
(about 0.5 GiB), the allocator's fragments, previews, and the one layer of a quantised base that is unpacked at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from infra.config import ConfigError
from pipelines.models.families.base import Family
from pipelines.models.quantised import NF4_BYTES, BasePrecision

GIB = 2**30
BF16, FP32 = 2, 4  # bytes
MOST_LIVE = 10**9  # parameters that DeepSpeed's ZeRO 3 gathers at a time (stage3_max_live_parameters)
BUCKET = 5 * 10**8  # gradients that DeepSpeed collects before it sends them off (reduce_bucket_size)
MEMBERS = 2  # a pair's winner and loser go through the denoiser in one batch


@dataclass(frozen=True)
class Kept:
    """Values that the backward pass of one picture keeps, for each of its tokens."""

    full: int
    """Every parameter trained, nothing recomputed."""
    lora: int
    """A LoRA of rank 32 on the attention's projections, nothing recomputed."""
    recomputed: int
    """With checkpointing: what goes into the blocks, what lies outside them, and the largest block being recomputed."""


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one forward pass of a picture of n tokens: per_token n + per_pair n^2.

    Fitted to what torch's counter finds at 512 and 1024 pixels (clips of 9 frames); it was within 2 percent at 768, and
    within 8 at 1536.
    """

    per_token: float
    """Products with weights."""
    per_pair: float
    """Products of attention, which have no weights."""


@dataclass(frozen=True)
class Architecture:
    """A published denoiser's size."""

    family: type[Family]
    parameters: int
    """Parameters of the denoiser alone."""
    linear: int
    """Those of them that a quantised base keeps in four bits: weights of linear layers, but for what stays in float32."""
    operations: Operations
    layers: Mapping[str, int]
    """Inputs plus outputs of the layers of a name, summed over the blocks; a LoRA adds rank times as many parameters."""
    kept: Kept
    patch: int = 1
    """Latent values per side of a token; 1 for a U-Net, whose tokens are its latents."""
    vae: int = 8
    """Pixels per latent value, along each side."""
    frames: int = 1
    """Frames per latent frame, after the first."""
    text_tokens: int = 0
    """Tokens of the text that pass through the blocks beside the picture's, of the longest text where lengths differ; 0 if
    the blocks only attend to the text."""

    def tokens(self, *, height: int, width: int, frames: int) -> int:
        """Tokens of a picture of height x width pixels, or of a clip of that many frames, with its text."""
        side = self.vae * self.patch
        latent_frames = 1 + math.ceil((frames - 1) / self.frames)
        return math.ceil(height / side) * math.ceil(width / side) * latent_frames + self.text_tokens

    def lora_parameters(self, targets: Sequence[str], *, rank: int) -> int:
        """Parameters of a LoRA on the layers whose names end in a target; ConfigError for a target that none ends in.

        A target that names blocks ("blocks.0.attn1.to_q") is counted in all of them: an upper bound.
        """
        chosen: set[str] = set()
        for target in targets:
            found = {name for name in self.layers if _ends(name, target) or _ends(target, name)}
            if not found:
                known = ", ".join(sorted(self.layers))
                raise ConfigError(f"LoRA target {target!r} matches no layer of {self.family.name}; it has {known}")
            chosen |= found
        return rank * sum(self.layers[name] for name in chosen)


@dataclass(frozen=True)
class Memory:
    """GiB a rank needs of its GPU, and of the host's memory for what is offloaded."""

    parameters: float
    gradients: float
    optimizer: float
    reference: float
    ema: float
    activations: float
    host: float

    @property
    def total(self) -> float:
        """GiB of the GPU's memory in all."""
        return self.parameters + self.gradients + self.optimizer + self.reference + self.ema + self.activations


def rank_memory(
    architecture: Architecture,
    *,
    adapter: Literal["lora", "full"],
    rank: int,
    targets: Sequence[str],
    zero: Literal[0, 1, 2, 3],
    workers: int,
    offload: Literal["none", "optimizer", "all"],
    bf16: bool,
    ema: bool,
    factored: bool = False,
    reference: Literal["none", "adapter", "copy"],
    checkpointing: bool,
    base_precision: BasePrecision = "unquantised",
    micro_batch: int,
    height: int,
    width: int,
    frames: int = 1,
) -> Memory:
    """Memory of a rank. `zero` 0 is plain torch; `micro_batch` counts pairs; `rank` and `targets` matter to a LoRA only.

    With P parameters of the denoiser, T of them trained (all, or the LoRA's), N workers, w bytes per weight (2 in bf16, 4
    otherwise; plain torch keeps what it trains in 4 and casts a copy of 2 for the forward pass):
    * parameters: w P for full training, w (P + T) with a LoRA (.516 bytes per weight of a linear layer in nf4);
      divided by N at ZeRO 3, or off the GPU with offload "all", plus the at most 10^9 gathered at a time.
    * gradients: w T (plain torch: 4 T), divided by N from ZeRO 2 on; off the GPU with its optimizer, but for a bucket.
    * optimizer: Adam's moments, 8 T (`factored`: 0), and DeepSpeed's fp32 masters, 4 T; divided by N, or off the GPU.
    * reference: w P for a copy, which every rank holds whole; 0 for the disabled adapter or cached errors.
    * ema: 4 T; it lies where the masters lie: DeepSpeed divides it by N, and it is offloaded with them.
    * activations: 2 members x pairs x tokens x values kept per token x w.
    """
    whole, lora = architecture.parameters, adapter == "lora"
    values = architecture.tokens(height=height, width=width, frames=frames)
    values *= _kept_values(architecture, lora=lora, checkpointing=checkpointing)
    trained = architecture.lora_parameters(targets, rank=rank) if lora else whole
    base = _base_bytes(architecture, base_precision, weight=BF16 if bf16 else FP32) if lora else 0.0
    weight, stored, gradient, masters = _bytes_per_weight(zero=zero, bf16=bf16, factored=factored)
    parameters, beside = _parameters(
        base + trained * stored,
        gathered=min(whole, MOST_LIVE) * weight,
        share=workers if zero == 3 else 1,
        off=zero == 3 and offload == "all",
    )
    gradients = trained * gradient / (workers if zero >= 2 else 1)
    optimizer = trained * masters / (workers if zero else 1)
    average = trained * FP32 / (workers if zero else 1) if ema else 0.0
    if zero and offload != "none":
        beside += optimizer + average + (gradients if zero >= 2 else 0.0)
        optimizer = average = 0.0
        gradients = min(gradients, BUCKET * gradient) if zero >= 2 else gradients
    return Memory(
        parameters=parameters / GIB,
        gradients=gradients / GIB,
        optimizer=optimizer / GIB,
        reference=(base or whole * (weight if zero else FP32)) / GIB if reference == "copy" else 0.0,
        ema=average / GIB,
        activations=MEMBERS * micro_batch * values * weight / GIB,
        host=beside / GIB,
    )


def _bytes_per_weight(*, zero: int, bf16: bool, factored: bool) -> tuple[int, int, int, int]:
    """Bytes per weight: as computed with, of a trained parameter, of its gradient, of its optimizer states and masters."""
    weight = BF16 if bf16 else FP32
    if zero:
        return weight, weight, weight, 3 * FP32
    return weight, FP32 + (BF16 if bf16 else 0), FP32, 0 if factored else 2 * FP32


def _base_bytes(architecture: Architecture, base: BasePrecision, *, weight: int) -> float:
    """Bytes of the frozen weights under a LoRA."""
    four = architecture.linear if base == "nf4" else 0
    return four * NF4_BYTES + (architecture.parameters - four) * weight


def _kept_values(architecture: Architecture, *, lora: bool, checkpointing: bool) -> int:
    """Values that one token of one picture keeps for the backward pass."""
    kept = architecture.kept
    return kept.recomputed if checkpointing else kept.lora if lora else kept.full


def _parameters(size: float, *, gathered: float, share: int, off: bool) -> tuple[float, float]:
    """Bytes on the GPU and beside it, of `size` bytes divided by `share`, and what is gathered where a rank holds less."""
    if off:
        return min(gathered, size), size / share
    own = size / share
    return own + (min(gathered, size - own) if share > 1 else 0.0), 0.0


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
