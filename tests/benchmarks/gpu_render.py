"""`python -m tests.benchmarks.gpu_render`: pictures of models of published sizes, with random weights, on a GPU.

Pictures per second, peak memory and model-FLOPs utilisation of SD3.5-medium and FLUX.2 [klein] 4B in diffusers' own
pipelines, at one megapixel, with guidance (two denoiser calls per step) and the VAE's decoding, for several pictures per
batch. Texts are random embeddings of the published length: Salon encodes a prompt once for all its pictures. Results go
to `results/render-DEVICE.json`. Needs torch and diffusers alone. `--tiny` runs the same code in seconds on a CPU.

`salon plan` reckons no memory of rendering; beside the peak stands what the weights take (`weights_gib`).
Measured nowhere yet: no GPU was at hand when this was written. Only `--tiny` has run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import gpu
from tests.benchmarks.gpu_tune import MEDIUM, TINY
from tests.benchmarks.measure import Result

FORMULA = (
    "per picture: steps x 2 denoiser passes and one decoding; 2 m n k of every matrix product and convolution, attention "
    "as its two products (4 s^2 d), counted by torch.utils.flop_counter on tensors without numbers"
)
BATCHES = (1, 2, 4, 8)
STEPS, CALLS = 28, 3
GUIDANCE = 4.5

VAE = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 16, "layers_per_block": 2,
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "use_quant_conv": False, "use_post_quant_conv": False,
    "scaling_factor": 1.5305, "shift_factor": 0.0609,
}  # fmt: skip
"""stabilityai/stable-diffusion-3.5-medium, vae/config.json."""
KLEIN = {
    "in_channels": 128, "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680,
    "guidance_embeds": False,
}  # fmt: skip
"""black-forest-labs/FLUX.2-klein-base-4B, transformer/config.json; its VAE has the default config of its class."""
SMALL = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
TINY_KLEIN = KLEIN | {
    "in_channels": 16, "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16,
    "joint_attention_dim": 96, "timestep_guidance_channels": 16, "axes_dims_rope": (4, 4, 4, 4),
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """What a pipeline is built from, and what it is given."""

    pipeline: str
    denoiser: str
    config: dict[str, Any]
    vae: str
    vae_config: dict[str, Any]
    side: int
    """Of a square picture, in pixels."""
    text: int
    """Tokens of a text."""


SIZES = {
    "sd3.5-medium": Size(
        "StableDiffusion3Pipeline", "SD3Transformer2DModel", MEDIUM, "AutoencoderKL", VAE, side=1024, text=333
    ),
    "flux.2-klein-4b": Size(
        "Flux2KleinPipeline", "Flux2Transformer2DModel", KLEIN, "AutoencoderKLFlux2", {}, side=1024, text=512
    ),
}
TINIES = {
    "sd3.5-medium": Size(
        "StableDiffusion3Pipeline", "SD3Transformer2DModel", TINY, "AutoencoderKL", VAE | SMALL, side=64, text=7
    ),
    "flux.2-klein-4b": Size(
        "Flux2KleinPipeline",
        "Flux2Transformer2DModel",
        TINY_KLEIN,
        "AutoencoderKLFlux2",
        SMALL | {"latent_channels": 4},
        side=64,
        text=7,
    ),
}


def build(size: Size, *, device: torch.device) -> Any:
    """A pipeline with random weights, without text encoders."""
    import diffusers

    with gpu.made_on(device):
        denoiser = getattr(diffusers, size.denoiser)(**size.config)
        vae = getattr(diffusers, size.vae)(**size.vae_config)
    flux = size.pipeline == "Flux2KleinPipeline"
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=flux)
    kind = getattr(diffusers, size.pipeline)
    numbers = ("",) if flux else ("", "_2", "_3")
    absent: dict[str, Any] = {f"{part}{number}": None for part in ("text_encoder", "tokenizer") for number in numbers}
    made = kind(transformer=denoiser.eval(), vae=vae.eval(), scheduler=scheduler, **absent)
    made.set_progress_bar_config(disable=True)
    return made


def texts(size: Size, batch: int, *, device: torch.device) -> dict[str, torch.Tensor]:
    """Random embeddings of so many texts and of as many negative ones."""
    generator = gpu.seed(device)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=generator, device=device, dtype=torch.bfloat16)

    width = size.config["joint_attention_dim"]
    found = {name: random(size.text, width) for name in ("prompt_embeds", "negative_prompt_embeds")}
    if "pooled_projection_dim" in size.config:
        pooled = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        found |= {name: random(size.config["pooled_projection_dim"]) for name in pooled}
    return found


def denoiser_inputs(size: Size) -> dict[str, torch.Tensor]:
    """What the denoiser is given for one picture, but for the numbers."""
    side = size.side // 8
    text = torch.empty(1, size.text, size.config["joint_attention_dim"])
    if size.pipeline == "StableDiffusion3Pipeline":
        pooled = torch.empty(1, size.config["pooled_projection_dim"])
        latent = torch.empty(1, size.config["in_channels"], side, side)
        return {
            "hidden_states": latent,
            "encoder_hidden_states": text,
            "pooled_projections": pooled,
            "timestep": torch.ones(1),
        }
    tokens = (side // 2) ** 2  # a token is two latents along each side
    return {
        "hidden_states": torch.empty(1, tokens, size.config["in_channels"]),
        "encoder_hidden_states": text,
        "timestep": torch.ones(1),
        "img_ids": torch.zeros(tokens, 4),
        "txt_ids": torch.zeros(size.text, 4),
    }


def flops_of(size: Size, *, steps: int) -> float:
    """Operations of one picture; see FORMULA."""
    import diffusers

    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        denoiser = getattr(diffusers, size.denoiser)(**size.config)
        vae = getattr(diffusers, size.vae)(**size.vae_config)
        with FlopCounterMode(display=False) as denoised:
            denoiser(**denoiser_inputs(size), return_dict=False)
        with FlopCounterMode(display=False) as decoded:
            vae.decode(torch.empty(1, vae.config["latent_channels"], size.side // 8, size.side // 8), return_dict=False)
    return 2 * steps * denoised.get_total_flops() + decoded.get_total_flops()


def drawing(size: Size, batch: int, *, steps: int, device: torch.device) -> Callable[[], Any]:
    """A call that makes a batch of pictures, float[batch, 3, side, side] in [0, 1]."""
    made, given = build(size, device=device), texts(size, batch, device=device)
    options = {"height": size.side, "width": size.side, "num_inference_steps": steps, "guidance_scale": GUIDANCE}
    generator = gpu.seed(device)
    return lambda: made(**given, **options, output_type="pt", generator=generator).images


def results(*, tiny: bool, batches: Sequence[int], peak: float | None, steps: int = STEPS, calls: int = CALLS) -> dict:
    """Every model at every batch on this machine's device, with what it ran under."""
    device = gpu.device_of(tiny=tiny)
    peak = gpu.peak_of(gpu.name_of(device)) if peak is None else peak
    rows = []
    for name, size in (TINIES if tiny else SIZES).items():
        flops, weights = flops_of(size, steps=steps), weights_of(size)
        for batch in batches:

            def seconds(size: Size = size, batch: int = batch) -> float:
                return gpu.seconds_of(drawing(size, batch, steps=steps, device=device), device=device, calls=calls)

            row = {"model": name, "side": size.side, "steps": steps, "text_tokens": size.text, "batch": batch}
            row |= {"weights_gib": weights} | gpu.measured(seconds, device=device)
            if not row["out_of_memory"]:
                row["pictures_per_second"] = batch / row["seconds"]
                row |= gpu.utilisation(batch * flops, seconds=row["seconds"], peak=peak)
            print(json.dumps(row), flush=True)
            rows.append(row)
    said = gpu.about(device, peak=peak, packages=("torch", "diffusers"), formula=FORMULA)
    return said | {"sizes": "tiny" if tiny else "published, random weights", "guidance": GUIDANCE, "rows": rows}


def weights_of(size: Size) -> float:
    """GiB of denoiser and VAE in bfloat16."""
    import diffusers

    with torch.device("meta"):
        models = (getattr(diffusers, size.denoiser)(**size.config), getattr(diffusers, size.vae)(**size.vae_config))
    return sum(2 * parameter.numel() for model in models for parameter in model.parameters()) / 2**30


def run() -> list[Result]:
    """The best rate of each model, beside no bar; nothing on a machine without a CUDA device."""
    if not torch.cuda.is_available():
        print("gpu_render: there is no CUDA device here, so nothing is measured")
        return []
    found = results(tiny=False, batches=BATCHES, peak=None)
    gpu.write(found, gpu.RESULTS, kind="render")
    fit = [row for row in found["rows"] if not row["out_of_memory"]]
    best = {row["model"]: row for row in sorted(fit, key=lambda row: row["pictures_per_second"])}
    return [
        Result(f"gpu_render: pictures per second, {name}", row["pictures_per_second"], ">= 0", row)
        for name, row in best.items()
    ]


def main(arguments: list[str]) -> int:
    """Exit status 2 where there is no CUDA device and `--tiny` is not given."""
    given = gpu.parsed("gpu_render", arguments, batch=BATCHES, unit="pictures")
    if given is None:
        return 2
    short = {"steps": 2, "calls": 1} if given.tiny else {}
    found = results(tiny=given.tiny, batches=given.batch, peak=given.peak, **short)
    print(gpu.write(found, given.out, kind="render"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
