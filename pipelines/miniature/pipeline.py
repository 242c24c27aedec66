"""The miniature's text-to-image pipeline, in diffusers' own terms: a folder, `from_pretrained`, LoRA, a scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.loaders import SD3LoraLoaderMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from PIL import Image
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from infra.config import ConfigError
from infra.store.files import refuse_unsafe
from pipelines.miniature.denoiser import MiniaturePixArt, MiniatureSD3
from pipelines.miniature.text import Embedding, build_tokenizer, encode
from pipelines.miniature.world.draw import SIZE

SHIFT = 3.0  # of the noise schedule, as in Stable Diffusion 3: what is where is decided near t = 0.85


class MiniaturePipeline(DiffusionPipeline, SD3LoraLoaderMixin):
    """Texts to 24x24 pictures by rectified flow, with classifier-free guidance."""

    model_cpu_offload_seq = "text_encoder->transformer"
    _lora_loadable_modules: ClassVar = ["transformer"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        text_encoder: CLIPTextModel,
        transformer: MiniatureSD3 | MiniaturePixArt,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(tokenizer=tokenizer, text_encoder=text_encoder, transformer=transformer, scheduler=scheduler)
        self.text_encoder_2 = None  # asked for by the LoRA loader of the original, which has three encoders

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num_inference_steps: int = 8,
        guidance_scale: float = 2.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[int, float, torch.Tensor], None] | None = None,
    ) -> ImagePipelineOutput:
        """Pictures of the prompts; guidance 1 reads the prompt alone.

        One generator a picture makes a picture independent of its batch; `latents` float[b, 3, 24, 24] is x_1 itself.
        `output_type`: "pil", "np" (uint8[b, 24, 24, 3]) or "pt" (x_0 float[b, 3, 24, 24]).
        """
        if output_type not in ("pil", "np", "pt"):
            raise ConfigError(f"output_type = {output_type!r} is refused; use 'pil', 'np' or 'pt'")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        x = (noise(len(prompts), generator=generator) if latents is None else latents).to(self.transformer.device)
        condition = self.encode(prompts)
        free = self.encode([""])[[0] * len(prompts)] if guidance_scale != 1 else None
        self.scheduler.set_timesteps(sigmas=np.linspace(1, 1 / num_inference_steps, num_inference_steps))
        for step, timestep in enumerate(self.scheduler.timesteps):
            velocity = self.velocity(x, timestep, condition, free=free, guidance_scale=guidance_scale)
            x = self.scheduler.step(velocity, timestep, x, return_dict=False)[0]
            if callback_on_step_end is not None:
                callback_on_step_end(step, float(timestep) / 1000, x)
        if output_type == "pt":
            return ImagePipelineOutput(images=x)  # pyright: ignore[reportArgumentType]
        pictures = to_pictures(x)
        return ImagePipelineOutput(images=pictures if output_type == "np" else [Image.fromarray(p) for p in pictures])

    def encode(self, texts: Sequence[str]) -> Embedding:
        """The texts' embeddings, without gradient."""
        return encode(self.tokenizer, self.text_encoder, texts)

    def velocity(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        condition: Embedding,
        *,
        free: Embedding | None,
        guidance_scale: float,
    ) -> torch.Tensor:
        """float[b, 3, 24, 24] at `timestep` = 1000 t: conditioned, or free + scale (conditioned - free)."""
        times = timestep.to(x).expand(len(x))
        if free is None:
            return self.transformer(x, condition.tokens, condition.pooled, times, return_dict=False)[0]
        tokens, pooled = torch.cat([free.tokens, condition.tokens]), torch.cat([free.pooled, condition.pooled])
        both = self.transformer(torch.cat([x, x]), tokens, pooled, torch.cat([times, times]), return_dict=False)[0]
        unconditioned, conditioned = both.chunk(2)
        return unconditioned + guidance_scale * (conditioned - unconditioned)


def assemble(transformer: MiniatureSD3 | MiniaturePixArt, text_encoder: CLIPTextModel) -> MiniaturePipeline:
    """A pipeline of the world's tokenizer and noise schedule."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    return MiniaturePipeline(build_tokenizer(), text_encoder, transformer, scheduler)


def load_pipeline(folder: Path, *, lora: Path | None = None, device: str = "cpu") -> MiniaturePipeline:
    """A pipeline from a local folder of safetensors, in single precision, with the adapter in `lora` if one is given."""
    refuse_unsafe(folder)
    if next(folder.rglob("*.safetensors"), None) is None:
        raise ConfigError(f"weights folder {folder} holds no .safetensors file; save the pipeline with save_pretrained")
    pipe = MiniaturePipeline.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    pipe.transformer.requires_grad_(False).eval()
    pipe.text_encoder.requires_grad_(False).eval()
    if lora is not None:
        refuse_unsafe(lora)
        pipe.load_lora_weights(str(lora), use_safetensors=True, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def noise(count: int, *, generator: torch.Generator | Sequence[torch.Generator] | None) -> torch.Tensor:
    """x_1 float[count, 3, 24, 24] from N(0, I), drawn on the CPU."""
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(count, 3, SIZE, SIZE, generator=generator)
    if len(generator) != count:
        raise ConfigError(f"{count} prompts but {len(generator)} generators; give one a picture")
    return torch.stack([torch.randn(3, SIZE, SIZE, generator=each) for each in generator])


def to_model(pictures: np.ndarray) -> torch.Tensor:
    """uint8[b, 24, 24, 3] to x_0 float[b, 3, 24, 24] in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def to_pictures(x_0: torch.Tensor) -> np.ndarray:
    """x_0 float[b, 3, 24, 24] to uint8[b, 24, 24, 3], clipped and rounded."""
    levels = x_0.detach().cpu().float().add(1).mul(127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
