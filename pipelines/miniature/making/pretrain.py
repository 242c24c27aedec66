"""Pre-training of the miniature's generators from nothing: rectified flow on drawn scenes, EMA, snapshots, exact resume.

Only training captions and drawings enter; no evaluation caption, seed or checker output does. Every step's batch and
noise are functions of (seed, step), so a resumed training is the undisturbed one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy
from pipelines.miniature.text import Embedding, TextOptions, build_tokenizer, encode, train_text_encoder
from pipelines.miniature.world.draw import draw, sample_scene
from pipelines.miniature.world.grammar import TASKS, Caption, task_captions

if TYPE_CHECKING:
    import safetensors.torch as tensors
    import torch
    from transformers import CLIPTextModel

    from pipelines.miniature import denoiser
    from pipelines.miniature import pipeline as pipelines
else:
    torch, tensors = lazy("torch"), lazy("safetensors.torch")
    denoiser = lazy("pipelines.miniature.denoiser")
    pipelines = lazy("pipelines.miniature.pipeline")


NEAREST_TIME = 0.1  # floor of t in the loss's weight


class Snapshot(Config):
    """The averaged weights at one point of the training, saved as a generator of its own."""

    name: str
    at: int = Field(ge=1)
    """Steps done."""


class Pretraining(Config):
    """One generator's architecture and training; defaults are those of the shipped policy."""

    architecture: Literal["sd3", "pixart"] = "sd3"
    layers: int = Field(4, ge=2)
    heads: int = Field(4, ge=1)
    head_width: int = Field(32, ge=8)
    text: TextOptions = TextOptions()
    steps: int = Field(13_000, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    horizon: int = Field(20_000, ge=1)
    """Steps over which the learning rate follows a cosine."""
    last_rate: float = Field(0.02, ge=0, le=1)
    """Share of the learning rate at the horizon."""
    cool_down: int = Field(3000, ge=0)
    """Last steps, over which the rate falls further, linearly to nothing."""
    warm_up: int = Field(200, ge=1)
    """Steps."""
    weight_decay: float = Field(0.01, ge=0)
    ema: float = Field(0.999, ge=0, lt=1)
    drop: float = Field(0.1, ge=0, lt=1)
    """Share of captions replaced by the empty text, for guidance."""
    shift: float = Field(3.0, gt=0)
    """Of the training times: t = shift u / (1 + (shift - 1) u), u logit-normal."""
    emphasis: float = Field(0.0, ge=0)
    """Weight t^-emphasis of a time's error in x_0; 2 is the error in velocity, 0 that in x_0."""
    task_weights: tuple[float, ...] = (0.08, 0.2, 0.16, 0.08, 0.24, 0.24)
    """Shares of single, two, counting, colours, position, attribution."""
    captions_a_task: int = Field(4000, ge=1)
    seed: int = Field(0, ge=0)
    snapshots: tuple[Snapshot, ...] = (
        Snapshot(name="early", at=600),
        Snapshot(name="middle", at=2400),
        Snapshot(name="late", at=6000),
        Snapshot(name="policy", at=13_000),
    )
    checkpoint_every: int = Field(1000, ge=1)


@dataclass
class PretrainingState:
    """All that changes during a training: live and averaged weights, the optimizer, the steps done."""

    model: torch.nn.Module
    average: dict[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0


@dataclass(frozen=True)
class Material:
    """What a training reads: captions by task, their embeddings in the same order, and that of the empty text."""

    captions: list[Caption]
    by_task: list[np.ndarray]
    embeddings: Embedding
    empty: Embedding


def pretrain(options: Pretraining, *, out: Path, scratch: Path, on_step: Callable[[int, int, float], None]) -> list[Path]:
    """Trains a generator and saves every snapshot as `out/<name>`; `on_step` is told (step, steps, loss).

    `scratch` holds the text encoder and the last checkpoint: called again after a kill, it goes on from there.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    captions = training_captions(options)
    encoder = _text_encoder(options, captions, scratch=scratch)
    material = _material(captions, encoder)
    training = _start(options)
    _resume(training, scratch / "checkpoint.safetensors")
    due = {snapshot.at: out / snapshot.name for snapshot in options.snapshots}
    while training.step < options.steps:
        loss = _advance(training, options, material)
        on_step(training.step, options.steps, loss)
        if training.step in due:
            _save(training, options, encoder, due[training.step])
        if training.step % options.checkpoint_every == 0:
            _checkpoint(training, scratch / "checkpoint.safetensors")
    return list(due.values())


def training_captions(options: Pretraining) -> list[Caption]:
    """At most `captions_a_task` training captions of every task."""
    found = (task_captions(task, split="train", seed=options.seed) for task in TASKS)
    return [caption for task in found for caption in islice(task, options.captions_a_task)]


def learning_rate(options: Pretraining, step: int) -> float:
    """Linear warm-up, a cosine towards `last_rate` of the peak at the horizon, and the cool-down at the end."""
    if step < options.warm_up:
        return options.learning_rate * (step + 1) / options.warm_up
    done = min((step - options.warm_up) / max(options.horizon - options.warm_up, 1), 1.0)
    rate = options.learning_rate * (options.last_rate + (1 - options.last_rate) * 0.5 * (1 + cos(pi * done)))
    return rate * min(1.0, (options.steps - step) / options.cool_down) if options.cool_down else rate


def build(options: Pretraining) -> torch.nn.Module:
    """The untrained denoiser."""
    make = {"sd3": denoiser.build_sd3, "pixart": denoiser.build_pixart}[options.architecture]
    return make(
        layers=options.layers,
        heads=options.heads,
        head_width=options.head_width,
        text_width=options.text.hidden,
        seed=options.seed,
    )


def _advance(training: PretrainingState, options: Pretraining, material: Material) -> float:
    """One step: mean squared error of x_0 at shifted logit-normal times."""
    step = training.step
    scenes = np.random.default_rng((options.seed, step))
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
    rows = _rows(options, material, scenes)
    x_0 = pipelines.to_model(draw([sample_scene(material.captions[r].expectation, generator=scenes) for r in rows]))
    x_1 = torch.randn(x_0.shape, generator=generator)
    t = torch.sigmoid(torch.randn(len(rows), generator=generator))
    t = options.shift * t / (1 + (options.shift - 1) * t)
    dropped = torch.rand(len(rows), generator=generator) < options.drop
    condition = material.embeddings[torch.from_numpy(rows)]
    tokens = torch.where(dropped[:, None, None], material.empty.tokens, condition.tokens)
    pooled = torch.where(dropped[:, None], material.empty.pooled, condition.pooled)
    share = t.view(-1, 1, 1, 1)
    x_t = (1 - share) * x_0 + share * x_1
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate(options, step)
    velocity = training.model(x_t, tokens, pooled, 1000 * t, return_dict=False)[0]
    error = (denoiser.clean_of(velocity, x_t, timestep=1000 * t) - x_0).square()
    loss = (error * share.clamp(min=NEAREST_TIME) ** -options.emphasis).mean()
    training.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    training.optimizer.step()
    training.step += 1
    decay = min(options.ema, (1 + training.step) / (10 + training.step))
    average = [training.average[name] for name, _ in training.model.named_parameters()]
    torch._foreach_lerp_(average, [p.detach() for p in training.model.parameters()], 1 - decay)
    return loss.item()


def _rows(options: Pretraining, material: Material, generator: np.random.Generator) -> np.ndarray:
    weights = np.array(options.task_weights) / sum(options.task_weights)
    tasks = generator.choice(len(TASKS), size=options.batch, p=weights)
    sizes = np.array([len(rows) for rows in material.by_task])[tasks]
    places = (generator.random(options.batch) * sizes).astype(int)
    return np.array([material.by_task[task][place] for task, place in zip(tasks, places, strict=True)])


def _start(options: Pretraining) -> PretrainingState:
    model = build(options).train()
    average = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay, foreach=True
    )
    return PretrainingState(model, average, optimizer)


def _text_encoder(options: Pretraining, captions: list[Caption], *, scratch: Path) -> CLIPTextModel:
    """Trained once a scratch folder; kept there."""
    from transformers import CLIPTextModel

    folder = scratch / "text_encoder"
    if not folder.exists():
        trained = train_text_encoder(options.text, captions, on_step=lambda step, loss: None)
        _replace(folder, trained.save_pretrained)
    return CLIPTextModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).requires_grad_(False).eval()


def _material(captions: list[Caption], encoder: CLIPTextModel) -> Material:
    tokenizer = build_tokenizer()
    parts = [encode(tokenizer, encoder, [c.text for c in captions[n : n + 512]]) for n in range(0, len(captions), 512)]
    embeddings = Embedding(torch.cat([p.tokens for p in parts]), torch.cat([p.pooled for p in parts]))
    by_task = [np.array([n for n, c in enumerate(captions) if c.task == task]) for task in TASKS]
    return Material(captions, by_task, embeddings, encode(tokenizer, encoder, [""]))


def _save(training: PretrainingState, options: Pretraining, encoder: CLIPTextModel, folder: Path) -> None:
    """The averaged weights as a pipeline folder in half precision."""
    import copy

    model = build(options).eval()
    model.load_state_dict({**model.state_dict(), **training.average})
    pipe = pipelines.assemble(model.half(), copy.deepcopy(encoder).half())  # pyright: ignore[reportArgumentType]
    _replace(folder, lambda place: pipe.save_pretrained(place, safe_serialization=True))


def _checkpoint(training: PretrainingState, path: Path) -> None:
    """Weights, average and both moments in one safetensors file, renamed into place."""
    values: dict[str, torch.Tensor] = {}
    for name, parameter in training.model.named_parameters():
        state = training.optimizer.state[parameter]
        values |= {f"model/{name}": parameter.detach(), f"average/{name}": training.average[name]}
        values |= {f"first/{name}": state["exp_avg"], f"second/{name}": state["exp_avg_sq"]}
    temporary = path.with_suffix(".part")
    values = {name: value.contiguous() for name, value in values.items()}
    tensors.save_file(values, temporary, metadata={"step": json.dumps(training.step)})
    os.replace(temporary, path)


def _resume(training: PretrainingState, path: Path) -> None:
    """Goes on from a checkpoint, if there is one."""
    from safetensors import safe_open

    if not path.exists():
        return
    with safe_open(path, framework="pt") as file:
        training.step = json.loads(file.metadata()["step"])
    values = tensors.load_file(path)
    with torch.no_grad():
        for name, parameter in training.model.named_parameters():
            parameter.copy_(values[f"model/{name}"])
            training.average[name].copy_(values[f"average/{name}"])
            training.optimizer.state[parameter] = {
                "step": torch.tensor(float(training.step)),
                "exp_avg": values[f"first/{name}"],
                "exp_avg_sq": values[f"second/{name}"],
            }


def _replace(folder: Path, write: Callable[[Path], object]) -> None:
    """Writes a folder beside its place and renames it, so that it is whole or absent."""
    temporary = folder.with_name(folder.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    write(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
