"""`python -m tests.benchmarks.gpu_tune`: DPO steps of a model of SD3.5-medium's size, with random weights, on a GPU.

Pairs a second, peak memory and model-FLOPs utilisation for LoRA and full training, with and without checkpointing, for
several pairs per step; what does not fit is reported as such. Results go to `results/tune-DEVICE.json`, with versions.
Needs torch, diffusers and peft alone; where Salon is installed, `reckoned_gib` is what `salon plan` says of the same step.
`--tiny` runs the same code in seconds on a CPU, for the tests.

Measured nowhere yet: no GPU was at hand when this was written. Only `--tiny` has run.

A step is Salon's: winner and loser in one forward pass, the reference's in another (the disabled adapter, or a frozen copy
in the trained weights' precision), trained weights in fp32 under bf16 autocast as in `actors.training.engines.torch`, AdamW
fused. Latents and conditions are random and on the device: they are cached in training, too.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from tests.benchmarks import gpu
from tests.benchmarks.measure import Result
from tests.benchmarks.sd3_flops import Flops, sd3_flops

MEDIUM = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
    "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048, "pos_embed_max_size": 384, "qk_norm": "rms_norm",
    "dual_attention_layers": tuple(range(13)),
}  # fmt: skip
"""stabilityai/stable-diffusion-3.5-medium, transformer/config.json."""
TINY = MEDIUM | {
    "sample_size": 16, "num_layers": 3, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 48,
    "caption_projection_dim": 32, "pooled_projection_dim": 24, "pos_embed_max_size": 16, "dual_attention_layers": (0, 1),
}  # fmt: skip
TEXT = {"medium": 333, "tiny": 7}  # tokens: CLIP's 77 and T5's 256
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
RANK, BETA = 32, 500.0
STEPS = 6
PAIRS = (1, 2, 4, 8)
FORMULA = "per pair: tests/benchmarks/sd3_flops.py, of both members: policy forward and backward, reference forward"


def build(config: dict[str, Any], *, adapter: str, checkpointing: bool, device: torch.device) -> tuple[Any, Any]:
    """A model with random weights, made on the device, and the frozen copy that full training needs."""
    from diffusers import SD3Transformer2DModel
    from peft import LoraConfig

    with gpu.made_on(device):
        model: Any = SD3Transformer2DModel(**config)
    model.requires_grad_(False)
    if adapter == "lora":
        model.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS))
    else:
        model.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    frozen = copy.deepcopy(model).requires_grad_(False) if adapter == "full" else None
    if checkpointing:
        model.enable_gradient_checkpointing()
    return model.train(), frozen


def stepper(model: Any, frozen: Any, config: dict[str, Any], *, pairs: int, text: int, device: torch.device) -> Callable:
    """One DPO step on random pairs; the loss as a tensor."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    side = config["sample_size"]
    generator = gpu.seed(device)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    data = random(2 * pairs, config["in_channels"], side, side)
    tokens = random(pairs, text, config["joint_attention_dim"]).repeat(2, 1, 1)
    pooled = random(pairs, config["pooled_projection_dim"]).repeat(2, 1)

    def error(denoiser: Any, x: torch.Tensor, t: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            answer = denoiser(x, tokens, pooled, 1000 * t, return_dict=False)[0]
        return (answer.float() - target).square().flatten(1).mean(1)

    def step() -> torch.Tensor:
        noise = random(*data[:pairs].shape).repeat(2, 1, 1, 1)
        t = torch.rand(pairs, generator=generator, device=device).repeat(2)
        times = t.view(-1, 1, 1, 1)
        x, target = (1 - times) * data + times * noise, noise - data
        with torch.no_grad():
            if frozen is None:
                model.disable_adapters()
            reference = error(model if frozen is None else frozen, x, t, target)
            if frozen is None:
                model.enable_adapters()
        won, lost = (error(model, x, t, target) - reference).chunk(2)
        loss = -functional.logsigmoid(-0.5 * BETA * (won - lost)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def measure(
    config: dict[str, Any],
    *,
    adapter: str,
    checkpointing: bool,
    pairs: int,
    text: int,
    device: torch.device,
    peak: float | None,
    steps: int,
) -> dict[str, Any]:
    """One row of the results; `out_of_memory` and nothing else where it does not fit. `peak`: FLOPs a second, if known."""
    row: dict[str, Any] = {"adapter": adapter, "checkpointing": checkpointing, "pairs": pairs}

    def seconds() -> float:
        model, frozen = build(config, adapter=adapter, checkpointing=checkpointing, device=device)
        step = stepper(model, frozen, config, pairs=pairs, text=text, device=device)
        return gpu.seconds_of(lambda: _finite(step()), device=device, calls=steps)

    row |= gpu.measured(seconds, device=device)
    if row["out_of_memory"]:
        return row
    side = config["sample_size"]
    flops: Flops = sd3_flops(config, height=side, width=side, text=text, rank=RANK)
    row |= {"pairs_per_second": pairs / row["seconds"], "reckoned_gib": None}
    if config is MEDIUM:
        row["reckoned_gib"] = reckoned(adapter=adapter, checkpointing=checkpointing, pairs=pairs)
    return row | gpu.utilisation(2 * pairs * flops.step(adapter=adapter), seconds=row["seconds"], peak=peak)


def _finite(loss: torch.Tensor) -> None:
    value = loss.item()
    assert value == value, "the loss is no number"


def reckoned(*, adapter: str, checkpointing: bool, pairs: int) -> float | None:
    """GiB that `salon plan` reckons for a step of SD3.5-medium at one megapixel; None where Salon is not installed."""
    try:
        from pipelines.models.memory import rank_memory
        from pipelines.models.sizes import ARCHITECTURES
    except ImportError:
        return None
    side = 8 * MEDIUM["sample_size"]
    return rank_memory(
        ARCHITECTURES["sd3.5-medium"],
        adapter="lora" if adapter == "lora" else "full",
        rank=RANK,
        targets=TARGETS,
        zero=0,
        workers=1,
        offload="none",
        bf16=True,
        ema=False,
        reference="adapter" if adapter == "lora" else "copy",
        checkpointing=checkpointing,
        micro_batch=pairs,
        height=side,
        width=side,
    ).total


def results(*, tiny: bool, pairs: Sequence[int], peak: float | None, steps: int = STEPS) -> dict[str, Any]:
    """Every variant on this machine's device, with what it ran under."""
    device = gpu.device_of(tiny=tiny)
    config, text = (TINY, TEXT["tiny"]) if tiny else (MEDIUM, TEXT["medium"])
    peak = gpu.peak_of(gpu.name_of(device)) if peak is None else peak
    rows = []
    for adapter in ("lora", "full"):
        for checkpointing in (False, True):
            for count in pairs:
                given: dict[str, Any] = {"text": text, "device": device, "peak": peak, "steps": steps}
                row = measure(config, adapter=adapter, checkpointing=checkpointing, pairs=count, **given)
                print(json.dumps(row), flush=True)
                rows.append(row)
    return gpu.about(device, peak=peak, packages=("torch", "diffusers", "peft"), formula=FORMULA) | {
        "model": "tiny" if tiny else "stable-diffusion-3.5-medium, random weights",
        "latent": config["sample_size"],
        "text_tokens": text,
        "rank": RANK,
        "rows": rows,
    }


def run() -> list[Result]:
    """Best rate of each adapter, beside no bar; nothing on a machine without a CUDA device."""
    if not torch.cuda.is_available():
        print("gpu_tune: there is no CUDA device here, so nothing is measured")
        return []
    found = results(tiny=False, pairs=PAIRS, peak=None)
    gpu.write(found, gpu.RESULTS, kind="tune")
    fit = [row for row in found["rows"] if not row["out_of_memory"]]
    best = {row["adapter"]: row for row in sorted(fit, key=lambda row: row["pairs_per_second"])}
    return [
        Result(f"gpu_tune: pairs per second, {kind}", row["pairs_per_second"], ">= 0", row) for kind, row in best.items()
    ]


def main(arguments: list[str]) -> int:
    """Exit status 2 where there is no CUDA device and `--tiny` is not given."""
    given = gpu.parsed("gpu_tune", arguments, batch=PAIRS, unit="pairs")
    if given is None:
        return 2
    print(gpu.write(results(tiny=given.tiny, pairs=given.batch, peak=given.peak), given.out, kind="tune"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
