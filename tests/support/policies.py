"""Policies of tiny families for tests: built, asked at a fixed point of a path, and moved by a few steps."""

from pathlib import Path

import torch

from pipelines.algorithms.diffusion.path import PathSample
from pipelines.models.adapter import LoRA
from pipelines.models.families.loaded import stack
from pipelines.models.policy import Policy
from support.tiny import family_at

SMALL = LoRA(rank=4, alpha=12)  # alpha is not the rank: a reload that forgets it shows


class Question:
    """A fixed point of a path with a text, for one family."""

    def __init__(self, folder: Path, family: str):
        loaded = family_at(family, folder).load(parts="all", device="cpu", dtype=torch.float32)
        side = 24 if family == "miniature" else 64
        height = width = side
        frames = 1 if loaded.family.frame_multiple is None else 5
        pixels = torch.randint(0, 256, (2, frames, height, width, 3), generator=seeded(0), dtype=torch.uint8)
        x_0 = loaded.encode_pixels(pixels.numpy())
        noise = torch.randn(x_0.shape, generator=seeded(1))
        self.sample: PathSample = loaded.path.sample(x_0, noise=noise, t=torch.tensor([0.3, 0.8]))
        media = [loaded.encode_media(one) for one in pixels.numpy()] if loaded.family.reads_first_frame else [{}, {}]
        texts = loaded.encode_texts(["a red circle", "two blue squares"])
        self.condition = stack([text | one for text, one in zip(texts, media, strict=True)])
        self.condition.pop("latent", None)


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def policy(folder: Path, family: str, **changes) -> Policy:
    given = {"adapter": SMALL, "reference": "adapter", "checkpointing": False, "dtype": torch.float32, "device": "cpu"}
    torch.manual_seed(3)
    return Policy(family_at(family, folder), **given | changes)


def predicted(own: Policy, question: Question, *, reference: bool = False) -> torch.Tensor:
    if reference:
        return own.reference_predict(own.model, question.sample, condition=question.condition)
    with torch.no_grad():
        return own.predict(own.model, question.sample, condition=question.condition)


def near(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for rounding: a CPU's kernels round by where in memory weights lie, so copies differ in the last bits."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-6)


def apart(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one - other).abs().max().item() > 1e-4


def loss(own: Policy, question: Question) -> torch.Tensor:
    prediction = own.predict(own.model, question.sample, condition=question.condition)
    return (prediction - question.sample.target).float().square().mean()


def trained(own: Policy) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in own.model.named_parameters() if p.requires_grad}


def move(own: Policy, question: Question, *, rate: float = 5.0) -> dict[str, torch.Tensor]:
    """Two steps down the loss; the trained parameters afterwards, whole and by name, as a trainer gathers them."""
    for _ in range(2):
        own.model.zero_grad()
        loss(own, question).backward()
        with torch.no_grad():
            for parameter in (p for p in trained(own).values() if p.grad is not None):
                parameter -= rate * parameter.grad / (parameter.grad.norm() + 1e-12) / 20
    return {name: p.detach().float().cpu().clone() for name, p in trained(own).items()}


def bare(folder: Path, family: str, *, lora: Path | None = None):
    """The pipeline as diffusers alone loads it, with the adapter in `lora`, behind the family's own way to call it."""
    loaded = family_at(family, folder).load(parts="all", device="cpu", dtype=torch.float32)
    if lora is not None:
        loaded.pipeline.load_lora_weights(str(lora), use_safetensors=True, local_files_only=True)
    return loaded


def answer(loaded, question: Question) -> torch.Tensor:
    with torch.no_grad():
        return loaded.predict(loaded.model, question.sample, condition=question.condition)
