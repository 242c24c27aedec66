"""`python -m tests.benchmarks.gpu_tune`: DPO steps of a model of SD3.5-medium's size, with random weights, on a GPU.

Pairs a second, peak memory and model-FLOPs utilisation for LoRA and full training, with and without checkpointing, for
several pairs per step; what does not fit is reported as such. Results go to `results/DEVICE.json`, with versions.
Needs torch, diffusers and peft alone. `--tiny` runs the same code in seconds on a CPU, for the tests.

Measured nowhere yet: no GPU was at hand when this was written. Only `--tiny` has run.

A step is Salon's: winner and loser in one forward pass, the reference's in another (the disabled adapter, or a frozen bf16
copy), trained weights in fp32 under bf16 autocast as in `actors.training.engines.torch`, AdamW fused. Latents and
conditions are random and on the device: they are cached in training, too.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.metadata
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from tests.benchmarks.measure import Result
from tests.benchmarks.sd3_flops import Flops, sd3_flops

RESULTS = Path(__file__).parent / "results"
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
WARM_UP, STEPS = 2, 6
PAIRS = (1, 2, 4, 8)
# Dense bf16 products a second of a device by a part of its name, from its maker's data sheets; the first that fits.
PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


def build(config: dict[str, Any], *, adapter: str, checkpointing: bool, device: torch.device) -> tuple[Any, Any]:
    """A model with random weights, made on the device, and the frozen copy that full training needs."""
    from diffusers import SD3Transformer2DModel
    from peft import LoraConfig

    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            torch.manual_seed(0)
            model: Any = SD3Transformer2DModel(**config)
    finally:
        torch.set_default_dtype(usual)
    model.requires_grad_(False)
    frozen = copy.deepcopy(model) if adapter == "full" else None
    if adapter == "lora":
        model.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS))
    else:
        model.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if checkpointing:
        model.enable_gradient_checkpointing()
    return model.train(), frozen


def stepper(model: Any, frozen: Any, config: dict[str, Any], *, pairs: int, text: int, device: torch.device) -> Callable:
    """One DPO step on random pairs; the loss as a tensor."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    side = config["sample_size"]
    generator = torch.Generator(device).manual_seed(0)

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
    cuda = device.type == "cuda"
    if cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        seconds = _seconds(config, adapter, checkpointing, pairs=pairs, text=text, device=device, steps=steps)
    except torch.OutOfMemoryError:
        return row | {"out_of_memory": True}
    side = config["sample_size"]
    flops: Flops = sd3_flops(config, height=side, width=side, text=text, rank=RANK)
    rate = 2 * pairs * flops.step(adapter=adapter) / seconds
    return row | {
        "out_of_memory": False,
        "seconds": seconds,
        "pairs_per_second": pairs / seconds,
        "peak_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30 if cuda else None,
        "model_tflops_per_second": rate / 1e12,
        "model_flops_utilisation": None if peak is None else rate / peak,
    }


def _seconds(
    config: dict[str, Any], adapter: str, checkpointing: bool, *, pairs: int, text: int, device: torch.device, steps: int
) -> float:
    """The median step; a function of its own, so that an error leaves nothing in memory."""
    model, frozen = build(config, adapter=adapter, checkpointing=checkpointing, device=device)
    step = stepper(model, frozen, config, pairs=pairs, text=text, device=device)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        times = []
        for _ in range(WARM_UP + steps):
            started = time.perf_counter()
            loss = step().item()  # waits for the device
            times.append(time.perf_counter() - started)
            assert loss == loss, "the loss is no number"
    return statistics.median(times[WARM_UP:])


def peak_of(name: str) -> float | None:
    """Dense bf16 FLOPs a second of a device called so; None for one that is not in the table."""
    return next((value for part, value in PEAKS.items() if part.lower() in name.lower()), None)


def results(*, tiny: bool, pairs: tuple[int, ...], peak: float | None, steps: int = STEPS) -> dict[str, Any]:
    """Every variant on this machine's device, with what it ran under."""
    device = torch.device("cuda") if torch.cuda.is_available() and not tiny else torch.device("cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"
    config, text = (TINY, TEXT["tiny"]) if tiny else (MEDIUM, TEXT["medium"])
    peak = peak_of(name) if peak is None else peak
    rows = []
    for adapter in ("lora", "full"):
        for checkpointing in (False, True):
            for count in pairs:
                given: dict[str, Any] = {"text": text, "device": device, "peak": peak, "steps": steps}
                row = measure(config, adapter=adapter, checkpointing=checkpointing, pairs=count, **given)
                print(json.dumps(row), flush=True)
                rows.append(row)
    packages = {package: importlib.metadata.version(package) for package in ("torch", "diffusers", "peft")}
    return {
        "device": name,
        "model": "tiny" if tiny else "stable-diffusion-3.5-medium, random weights",
        "latent": config["sample_size"],
        "text_tokens": text,
        "rank": RANK,
        "peak_tflops": None if peak is None else peak / 1e12,
        "versions": packages | {"python": platform.python_version(), "cuda": torch.version.cuda},
        "rows": rows,
    }


def run() -> list[Result]:
    """Best utilisation of each adapter, beside no bar; nothing on a machine without a CUDA device."""
    if not torch.cuda.is_available():
        print("gpu_tune: there is no CUDA device here, so nothing is measured")
        return []
    found = results(tiny=False, pairs=PAIRS, peak=None)
    write(found, RESULTS)
    best = {}
    for row in found["rows"]:
        if not row["out_of_memory"] and row["pairs_per_second"] > best.get(row["adapter"], row)["pairs_per_second"] - 1e-9:
            best[row["adapter"]] = row
    return [
        Result(f"gpu_tune: pairs per second, {kind}", row["pairs_per_second"], ">= 0", row) for kind, row in best.items()
    ]


def write(found: dict[str, Any], folder: Path) -> Path:
    """One file a device."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', found['device'])}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def main(arguments: list[str]) -> int:
    """Exit status 2 where there is no CUDA device and `--tiny` is not given."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu_tune")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, to see that it works")
    parser.add_argument("--pairs", type=int, nargs="+", default=list(PAIRS), help="pairs per step")
    parser.add_argument("--peak-tflops", type=float, help="dense bf16 TFLOPs a second of a device that is not in the table")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    if not given.tiny and not torch.cuda.is_available():
        print("gpu_tune: no CUDA device; run it where there is one, or with --tiny to see that it works", file=sys.stderr)
        return 2
    peak = None if given.peak_tflops is None else given.peak_tflops * 1e12
    print(write(results(tiny=given.tiny, pairs=tuple(given.pairs), peak=peak), given.out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
