"""Trains a miniature juror from nothing: answers and captions by next-token prediction, and what each cell shows.

A juror that learns only to answer A, B or tie stays at chance, for the answer says too little about the pictures. Two
more losses make it see: the caption's own words where the picture fits (caption loss), and a head on the picture tokens
that names the content of each cell; the head is dropped at the end. Every step draws its own random numbers from
(seed, step), so that a killed training goes on exactly where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from actors.serving.engine import Question
from actors.serving.shown import ClipFrames, prepare
from infra.config import Config, ConfigError
from infra.lazy import lazy
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.pointwise import Pointwise
from pipelines.miniature.juror_architecture import JurorShape, build_model, build_processor
from pipelines.miniature.making.juror_scenes import contents, fit, fitting_sketch, paint, sketch_for
from pipelines.miniature.world.grammar import TASKS, Caption, task_captions

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

_TASK_SHARES = {"single": 1, "two": 2, "counting": 2, "colours": 1.5, "position": 3, "attribution": 3}
_CAPTIONS_A_TASK = 6000
_CHECKPOINT_EVERY = 250  # steps


class JurorTraining(Config):
    """Everything that determines a juror's weights."""

    shape: JurorShape
    questionnaire: Pointwise | Pairwise
    """What the juror will be asked; a pairwise juror is asked pointwise first."""
    continues: str | None = None
    """Name of the juror of the same shape whose weights it starts from; none: from nothing."""
    steps: int = Field(4000, ge=1)
    """Optimiser steps."""
    describing_share: float = Field(0.3, ge=0, le=1)
    """Share of the steps, at the beginning, in which every picture fits and only captions and cells are learnt."""
    pointwise_share: float = Field(0.6, ge=0, le=1)
    """Share of the steps until which a pairwise juror is asked pointwise."""
    captions: int = Field(16, ge=1)
    """Captions a step."""
    pictures: int = Field(4, ge=2)
    """Pictures of each caption; as many questions."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak of both optimisers' rate; 50 steps of warm-up, cosine to 1 %."""
    weight_decay: float = Field(0.01, ge=0)
    """Of both optimisers: Muon for the layers' matrices (less than half the steps of AdamW here), AdamW for the rest."""
    ranking: float = Field(1.0, ge=0)
    """Weight of the logistic loss on differences between pictures of one caption (pointwise questions)."""
    caption: float = Field(1.0, ge=0)
    """Weight of the caption loss."""
    cells: float = Field(1.0, ge=0)
    """Weight of the loss on what each cell shows."""
    tie_within: float = Field(0.05, ge=0)
    """Difference of fit up to which the right pairwise answer is a tie."""
    seed: int = Field(0, ge=0)
    """Of initialisation and data."""


@dataclass(frozen=True)
class QuestionBatch:
    """One step's questions; `wanted` holds the right probability of each of the question's answers."""

    questions: list[Question]
    wanted: np.ndarray  # float32[questions, answers]
    fits: np.ndarray  # float32[questions]: of the picture asked about; pairwise: 0, there is no caption loss
    cells: np.ndarray  # float32[shown pictures, 9, 11]


def train_juror(
    options: JurorTraining,
    *,
    out: Path,
    scratch: Path,
    start: Path | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Writes a folder with model (fp16 safetensors), tokenizer and processor to `out`; goes on from `scratch`.

    `start`: folder of the juror that `options.continues` names.
    """
    if (options.continues is None) != (start is None):
        raise ConfigError(f"continues = {options.continues!r} but start = {start}; give the folder of the juror it names")
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    learner = _Learner(options)
    if start is not None:
        learner.model.load_state_dict(type(learner.model).from_pretrained(start, dtype=torch.float32).state_dict())
    scratch.mkdir(parents=True, exist_ok=True)
    checkpoint = scratch / "checkpoint.safetensors"
    first = learner.restore(checkpoint) if checkpoint.exists() else 0
    pool = caption_pool(seed=options.seed)
    for step in range(first, options.steps):
        batch = make_batch(options, pool=pool, step=step)
        on_step(step, learner.step(batch, step=step))
        if (step + 1) % _CHECKPOINT_EVERY == 0:
            learner.save(checkpoint, step=step + 1)
    out.mkdir(parents=True, exist_ok=True)
    learner.model.half().save_pretrained(out)
    learner.processor.save_pretrained(out)


def caption_pool(*, seed: int) -> dict[str, list[Caption]]:
    """Captions of the train split, by task."""
    return {task: list(islice(task_captions(task, split="train", seed=seed), _CAPTIONS_A_TASK)) for task in TASKS}


def make_batch(options: JurorTraining, *, pool: dict[str, list[Caption]], step: int) -> QuestionBatch:
    """The questions of one step: they depend on (seed, step) alone."""
    generator = np.random.default_rng([options.seed, step])
    shares = np.array([_TASK_SHARES[task] for task in TASKS])
    tasks = generator.choice(TASKS, size=2 * options.captions, p=shares / shares.sum())
    drawn = [pool[task][int(generator.integers(len(pool[task])))] for task in tasks]
    asked, others = drawn[: options.captions], drawn[options.captions :]
    describing = step < options.describing_share * options.steps
    owners = [n for n in range(options.captions) for _ in range(options.pictures)]
    sketches = [
        fitting_sketch(asked[n], generator=generator)
        if describing
        else sketch_for(asked[n], other=others[n], generator=generator)
        for n in owners
    ]
    pictures = paint(sketches, generator=generator)
    fits = np.array([fit(s, asked[n].expectation) for s, n in zip(sketches, owners, strict=True)], dtype=np.float32)
    texts, cells = [asked[n].text for n in owners], contents(sketches)
    questionnaire = options.questionnaire
    if isinstance(questionnaire, Pairwise) and step >= options.pointwise_share * options.steps:
        partner = _partners(options)
        questions = [
            questionnaire.questions(texts[i], first=pictures[i], second=pictures[j])[0] for i, j in enumerate(partner)
        ]
        gap = fits - fits[partner]
        tie = np.abs(gap) <= options.tie_within
        wanted = np.stack([~tie & (gap > 0), ~tie & (gap < 0), tie], axis=1).astype(np.float32)
        both = np.stack([cells, cells[partner]], axis=1).reshape(-1, *cells.shape[1:])
        return QuestionBatch(questions, wanted, np.zeros_like(fits), both)
    asking = questionnaire if isinstance(questionnaire, Pointwise) else Pointwise()
    questions = [asking.questions(t, first=p, second=p)[0] for t, p in zip(texts, pictures, strict=True)]
    return QuestionBatch(questions, np.stack([fits, 1 - fits], axis=1), fits, cells)


def _partners(options: JurorTraining) -> np.ndarray:
    """For each picture the next one of the same caption."""
    places = np.arange(options.captions * options.pictures)
    return places // options.pictures * options.pictures + (places + 1) % options.pictures


class _Learner:
    """Model, optimiser and the head on picture tokens."""

    def __init__(self, options: JurorTraining) -> None:
        self.options = options
        self.model = build_model(options.shape).float().train()
        self.processor = build_processor()
        self.head = torch.nn.Linear(options.shape.text_width, 11)
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimisers = _optimisers(self.model, self.head, options=options)
        self.model.model.connector.register_forward_hook(self._keep)

    def _keep(self, module: Any, inputs: Any, output: Any) -> None:
        self.seen = output  # picture tokens [pictures, 9, text width]

    def step(self, batch: QuestionBatch, *, step: int) -> float:
        """One update; the loss before it."""
        rate = self.options.learning_rate * _schedule(step, steps=self.options.steps)
        loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    def loss(self, batch: QuestionBatch) -> torch.Tensor:
        """Answer, ranking, caption and cell losses, weighted."""
        asked = [prepare(question, clips=ClipFrames()) for question in batch.questions]
        texts = [self.processor.apply_chat_template(one.conversation, tokenize=False) for one in asked]
        pictures = [one.load().pictures for one in asked]
        inputs = self.processor(text=texts, images=pictures, padding=True, padding_side="right", return_tensors="pt")
        log_p = self.model(**inputs).logits.log_softmax(-1)
        tokens, mask = inputs["input_ids"], inputs["attention_mask"]
        last = log_p[torch.arange(len(tokens)), mask.sum(1) - 1]
        answers = last[:, self.processor.tokenizer.convert_tokens_to_ids(list(batch.questions[0].answers))]
        loss = -(torch.from_numpy(batch.wanted) * answers).sum(1).mean()
        loss = loss + self.options.cells * torch.nn.functional.binary_cross_entropy_with_logits(
            self.head(self.seen), torch.from_numpy(batch.cells).clamp(0, 1)
        )
        if answers.shape[1] > 2:
            return loss
        fits = torch.from_numpy(batch.fits)
        loss = loss + self.options.ranking * _ranking(answers[:, 0] - answers[:, 1], fits, group=self.options.pictures)
        return loss + self.options.caption * self._caption(log_p, tokens, mask, fits)

    def _caption(self, log_p: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
        """Mean negative log-likelihood of the words after the picture, where the picture fits."""
        image = self.processor.tokenizer.convert_tokens_to_ids("<image>")
        behind = (tokens == image).flip(1).cumsum(1).flip(1)[:, 1:] == 0
        counted = (behind & mask[:, 1:].bool() & (fits > 0.8)[:, None]).float()
        words = log_p[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
        return -(words * counted).sum() / counted.sum().clamp(min=1)

    def save(self, path: Path, *, step: int) -> None:
        """Model, head and the optimisers' moments in one safetensors file, replaced at once."""
        from safetensors.torch import save_file

        tensors = dict(self._tensors())
        partial = path.with_suffix(".partial")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata={"step": str(step)})
        partial.replace(path)

    def restore(self, path: Path) -> int:
        """The step to go on with."""
        from safetensors import safe_open

        matrices, others = self.optimisers
        for parameter in (p for group in matrices.param_groups for p in group["params"]):
            matrices.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        for parameter in (p for group in others.param_groups for p in group["params"]):
            zeros = torch.zeros_like(parameter)
            others.state[parameter] = {"step": torch.tensor(0.0), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        with safe_open(path, framework="pt") as file, torch.no_grad():
            for name, tensor in self._tensors():
                tensor.copy_(file.get_tensor(name))
            return int(file.metadata()["step"])

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for index, parameter in enumerate(self.parameters):
            yield f"{index}.value", parameter.data
            for optimiser in self.optimisers:
                for name, value in optimiser.state.get(parameter, {}).items():
                    yield f"{index}.{name}", value


def _optimisers(model: Any, head: Any, *, options: JurorTraining) -> tuple[Any, Any]:
    """Muon for the matrices inside the towers, AdamW for embeddings, heads, norms and biases."""
    inside = [
        (name, p) for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    names = {name for name, _ in inside}
    rest = [p for name, p in model.named_parameters() if name not in names] + list(head.parameters())
    common: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    muon = torch.optim.Muon([p for _, p in inside], adjust_lr_fn="match_rms_adamw", **common)
    return muon, torch.optim.AdamW(rest, betas=(0.9, 0.99), **common)


def _ranking(logits: torch.Tensor, fits: torch.Tensor, *, group: int) -> torch.Tensor:
    """Mean logistic loss over ordered pairs of one caption's pictures, weighted by their difference of fit."""
    z, f = logits.view(-1, group), fits.view(-1, group)
    gap = (f[:, :, None] - f[:, None, :]).clamp(min=0)
    losses = torch.nn.functional.softplus(z[:, None, :] - z[:, :, None])
    return (gap * losses).sum() / gap.sum().clamp(min=1e-6)


def _schedule(step: int, *, steps: int) -> float:
    warm = min(1.0, (step + 1) / 50)
    return warm * (0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * step / steps))))
