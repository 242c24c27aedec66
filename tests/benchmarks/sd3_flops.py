"""Floating-point operations of SD3's joint transformer, by formula from its architecture; only matrix products count.

A multiplication and an addition are two. `tests/benchmarks/test_sd3_flops.py` compares with what torch counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TIME_WIDTH = 256  # of the sinusoids a timestep is turned into


@dataclass(frozen=True)
class Flops:
    """Of one forward pass of one picture."""

    weights: float
    """Products with weights."""
    scores: float
    """Products of attention, which have no weights."""
    lora: float
    """Products with low-rank additions."""

    @property
    def forward(self) -> float:
        """Without the additions: the reference's pass."""
        return self.weights + self.scores

    def step(self, *, adapter: str) -> float:
        """Policy forward and backward and the reference's forward, of one picture; what is recomputed does not count.

        A backward pass repeats a product for its input, and again for its weight where that is trained. In attention both
        factors get a gradient.
        """
        if adapter == "lora":
            return self.forward + self.lora + (self.weights + 2 * self.scores + 2 * self.lora) + self.forward
        return 3 * self.forward + self.forward


def sd3_flops(config: dict[str, Any], *, height: int, width: int, text: int, rank: int = 0) -> Flops:
    """`height`, `width` of the latent; `text`: tokens of the text; `rank`: of a LoRA on all projections of attention."""
    patch, layers = config["patch_size"], config["num_layers"]
    inner = config["num_attention_heads"] * config["attention_head_dim"]
    image = (height // patch) * (width // patch)
    dual = sum(layer < layers for layer in config.get("dual_attention_layers", ()))
    last = layers - 1  # the last block's text goes nowhere, so it has no output and no feed-forward
    pixels = patch * patch
    outside = image * pixels * (config["in_channels"] + config["out_channels"]) * inner
    outside += text * config["joint_attention_dim"] * config["caption_projection_dim"]
    outside += inner * (TIME_WIDTH + inner + config["pooled_projection_dim"] + inner)  # time and pooled text
    outside += 2 * inner * inner  # the last norm's scale and shift
    modulation = (6 * layers + 3 * dual + 6 * last + 2) * inner * inner
    projected = image * 4 * (layers + dual) + text * (3 * layers + last)
    feed = 8 * (image * layers + text * last)
    scores = 2 * inner * (layers * (image + text) ** 2 + dual * image**2)
    return Flops(
        weights=2.0 * (outside + modulation + (projected + feed) * inner * inner),
        scores=2.0 * scores,
        lora=2.0 * projected * rank * 2 * inner,
    )
