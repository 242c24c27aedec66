"""A generator loaded for training: texts and pictures in, predictions out, in its own pipeline's conventions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.families.base import Condition, Family
from pipelines.models.families.pixels import from_pixels, refuse_shape, to_pixels
from pipelines.models.families.schedule import noise_path, time_shift

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.algorithms.diffusion.path import PathSample
else:
    torch = lazy("torch")


@dataclass(frozen=True)
class DenoiserCall:
    """The inputs of one call of a denoiser."""

    x: torch.Tensor
    """Noised latents float[b, *latent]."""
    timesteps: torch.Tensor
    """float[b] in [0, 1000)."""
    condition: Condition
    """What the denoiser reads beside x: named tensors, batched along dimension 0."""
    guidance: float = 1.0
    """Guidance scale given to a guidance-distilled denoiser (FLUX.1-dev)."""


class LoadedFamily(ABC):
    """A family's pipeline in memory. What was not asked for at loading is None in `pipeline`."""

    patch: ClassVar[int] = 2
    """Latents a token of the denoiser, along each side; 1 where tokens do not shift times."""
    unguided: ClassVar[float] = 1.0
    """The guidance scale at which the condition alone is read."""

    def __init__(self, family: Family, *, pipeline: Any, dtype: torch.dtype) -> None:
        self.family = family
        self.pipeline = pipeline
        self.dtype = dtype
        """Data type of the models as they were loaded, and of encoded latents and conditions."""
        self._first: torch.dtype | None = None
        self._dtype = dtype
        self.path = noise_path(pipeline.scheduler)
        """How data is noised and what the denoiser is told and asked, by the pipeline's own scheduler."""

    @property
    def model(self) -> nn.Module:
        """The denoiser, as diffusers made it."""
        model = getattr(self.pipeline, self.family.part)
        if model is None:
            raise ConfigError(f"{self.family.folder} was loaded without its denoiser; load parts 'denoiser' or 'all'")
        return model

    @property
    def distilled(self) -> bool:
        """Whether one prediction is guided already, and no second one is made: guidance is an input, or has no effect."""
        return False

    def guided(self, conditioned: torch.Tensor, unconditioned: torch.Tensor, *, guidance: float) -> torch.Tensor:
        """Classifier-free guidance as the pipeline applies it, on predictions float[b, *latent]."""
        return unconditioned + guidance * (conditioned - unconditioned)

    def finished(self, x: torch.Tensor, condition: Condition) -> torch.Tensor:
        """What sampling returns of its last latents float[b, *latent]: they themselves by default."""
        del condition
        return x

    def time_shift(self, latent_shape: Sequence[int]) -> float:
        """The shift that the pipeline's scheduler gives training times for latents [..., h, w]; 1 for diffusion."""
        if self.path.prediction != "flow":
            return 1.0
        return time_shift(self.pipeline.scheduler.config, tokens=self.tokens(latent_shape))

    def tokens(self, latent_shape: Sequence[int]) -> int:
        """Tokens of one frame of a latent [..., h, w]."""
        return (latent_shape[-2] // self.patch) * (latent_shape[-1] // self.patch)

    def encode_texts(self, texts: Sequence[str]) -> list[Condition]:
        """One condition a text, without its batch dimension, on the CPU, in the encoders' dtype.

        Texts pass one by one, so that a condition depends on its text alone, to the last bit.
        """
        with torch.no_grad():
            found = [self.encode_text(text) for text in texts]
        return [{name: value[0].to("cpu", self.dtype) for name, value in each.items()} for each in found]

    def unconditional(self) -> Condition:
        """The condition of no text, as the pipeline's own guidance takes it; unbatched, on the CPU."""
        return self.encode_texts([""])[0]

    def encode_pixels(self, pixels: np.ndarray) -> torch.Tensor:
        """Latents x_0 of uint8[b, f, h, w, 3], on the CPU: float[b, c, h', w'], of clips float[b, c, f', h', w'].

        The posterior's mean, scaled and shifted as the pipeline does. All b are encoded as one
        batch; another batch size may change the last bits.
        Raises ConfigError for a size or number of frames that the family does not take.
        """
        refuse_shape(pixels, family=self.family)
        with torch.no_grad():
            return self.encode_frames(from_pixels(pixels)).to("cpu", self.dtype)

    def encode_media(self, pixels: np.ndarray) -> Condition:
        """What training reads of a picture or clip uint8[f, h, w, 3]: its `latent`, and what is read of its first frame."""
        latent = self.encode_pixels(pixels[None])[0]
        with torch.no_grad():
            first = self.encode_first(from_pixels(pixels[None]))
        return {"latent": latent, **{name: value[0].to("cpu", self.dtype) for name, value in first.items()}}

    def encode_first(self, pixels: torch.Tensor) -> Condition:
        """What the denoiser reads of the first frame of clips float[b, 3, f, h, w] in [-1, 1]: nothing by default."""
        del pixels
        return {}

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """uint8[b, f, h, w, 3] of latents as `encode_pixels` gives them, rounded; one by one, which saves memory."""
        with torch.no_grad():
            return np.concatenate([to_pixels(self.decode_latents(each[None])) for each in latents])

    def predict(
        self,
        model: nn.Module,
        sample: PathSample,
        *,
        condition: Condition,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """What the denoiser answers at a point of its path, float like x_t; `model` is it as an engine wrapped it.

        `condition` may hold SIZES beside what the text encoders made; a family that does not read them ignores them.
        `guidance`: what a guidance-distilled denoiser (FLUX.1-dev) is told; 1 fits data, 3.5 is what it is sampled with.
        """
        told = self.path.timesteps(sample.t)
        return self.denoise(model, DenoiserCall(sample.x_t, told, condition, guidance=guidance))

    def sample(
        self,
        model: nn.Module,
        conditions: Sequence[Condition],
        *,
        negative: Condition | None,
        shape: Sequence[int],
        steps: int,
        guidance: float,
        seeds: Sequence[int],
    ) -> torch.Tensor:
        """Latents float[b, *shape] by the pipeline's own scheduler, without gradient; one seed per sample."""
        from pipelines.models.families.sampling import sample

        return sample(self, model, conditions, negative=negative, shape=shape, steps=steps, guidance=guidance, seeds=seeds)

    def save_lora(self, layers: dict[str, torch.Tensor], *, metadata: dict[str, Any], folder: Path) -> None:
        """Writes low-rank additions as the pipeline's `load_lora_weights` reads them; rank and alpha are in `metadata`."""
        part = self.family.part
        named = {f"{part}_lora_layers": layers, f"{part}_lora_adapter_metadata": metadata}
        type(self.pipeline).save_lora_weights(str(folder), **named, safe_serialization=True)

    def checkpointing(self) -> None:
        """From now on activations are computed again for the gradient, and not kept."""
        model: Any = self.model
        model.enable_gradient_checkpointing()

    @abstractmethod
    def encode_text(self, text: str) -> Condition:
        """The condition of one text, a batch of one, where the encoders are."""

    @abstractmethod
    def encode_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Latents of float[b, 3, f, h, w] in [-1, 1]."""

    @abstractmethod
    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """float[b, 3, f, h, w] in about [-1, 1] of latents."""

    @abstractmethod
    def denoise(self, model: nn.Module, call: DenoiserCall) -> torch.Tensor:
        """One call of the denoiser as its pipeline makes it."""

    def set_timesteps(self, scheduler: Any, *, steps: int, shape: Sequence[int], device: torch.device) -> None:
        """Prepares a scheduler for latents of a shape, as the pipeline does."""
        del shape
        scheduler.set_timesteps(steps, device=device)

    def inputs(self, call: DenoiserCall) -> tuple[torch.Tensor, Condition]:
        """x and condition in the denoiser's dtype, where x is: an engine may have changed the dtype since loading."""
        model: Any = self.model
        first = next(model.parameters()).dtype
        if first != self._first:  # diffusers looks at every module for its dtype: milliseconds per step
            self._first, self._dtype = first, model.dtype
        dtype = self._dtype
        x = call.x.to(dtype)
        return x, {name: value.to(x.device, dtype) for name, value in call.condition.items()}


def stack(conditions: Sequence[Condition]) -> Condition:
    """Unbatched conditions as one batch.

    Texts of different lengths are padded with zeros at their end, and `mask`, bool[b, length], says which tokens are
    theirs; where all are of one length no mask is made.
    """
    lengths = [len(each["tokens"]) for each in conditions]
    if len(set(lengths)) == 1:
        return {name: torch.stack([each[name] for each in conditions]) for name in conditions[0]}
    tokens = torch.nn.utils.rnn.pad_sequence([each["tokens"] for each in conditions], batch_first=True)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    other = {name: torch.stack([each[name] for each in conditions]) for name in conditions[0] if name != "tokens"}
    return {"tokens": tokens, "mask": mask.to(tokens.device), **other}
