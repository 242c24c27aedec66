"""The trainer: optimiser steps on the losses of an objective, independent of algorithm and data.

What a step does depends on the options and the step's number alone. Which examples, which noise and which times belong to
step n follows from seeds of n, never from the position of a data loader or from how many workers there are, so a run may
be killed at any moment and continued by another number of workers on the same curve.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.training.draws import Draw
from actors.training.engines.build import build_engine
from actors.training.engines.engine import Engine, State, in_fp32, load_parameters, part_of
from actors.training.launch import Session, scratch_folder
from actors.training.objective import Collecting, Objective, require_rounds
from actors.training.options import TrainerOptions
from actors.training.resume import CONFIG, HALTED, halt, refuse_another, settings_of
from actors.training.statistics import Sums
from actors.training.trackers.tracker import Tracker, Trackers, open_trackers
from infra.config import ConfigError
from infra.identity import seed_of
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

STATE, CURVE, EXPORT, ENDED = "state.safetensors", "curve.jsonl", "export", "ended.txt"
PREVIEWS, TRACKED = "previews", "tracked"


@dataclass(frozen=True)
class Training:
    """An objective and how to train it: everything that is sent to a worker."""

    objective: Objective
    options: TrainerOptions
    trackers: Trackers = field(default_factory=Trackers)
    """Where curves and pictures are shown; TensorBoard and JSONL files are in `tracked` in the session's folder."""


def train(training: Training, session: Session) -> None:
    """The loop of a worker: from the last checkpoint to the last step, then the export. Halts where a loss is no number."""
    settings = settings_of(training.objective, training.options)
    checkpoint = session.checkpoint()
    curve = read_curve(checkpoint)
    if checkpoint is not None:
        refuse_another(json.loads((checkpoint / CONFIG).read_text()), settings)
    if len(curve) >= training.options.steps or ended_early(checkpoint) is not None:
        return
    training.trackers.check()
    if session.rank == 0:
        (session.folder / HALTED).unlink(missing_ok=True)
    with _tracker(training, session, settings, resume_step=len(curve)) as tracker:
        _Run(training, session, settings, tracker, curve).go()


def read_curve(checkpoint: Path | None) -> list[dict[str, Any]]:
    """The curve up to a checkpoint, one entry per step; empty without a checkpoint. A metric that a step lacks is None."""
    if checkpoint is None:
        return []
    return [json.loads(line) for line in (checkpoint / CURVE).read_text().splitlines()]


def ended_early(checkpoint: Path | None) -> str | None:
    """Why a training that collects its examples ended before its last step; None where it did not."""
    told = None if checkpoint is None else checkpoint / ENDED
    return told.read_text() if told is not None and told.exists() else None


class _Run:
    """The steps of one worker."""

    def __init__(
        self, training: Training, session: Session, settings: dict[str, Any], tracker: Tracker | None, curve: list[dict]
    ) -> None:
        self.objective, self.options = training.objective, training.options
        self.session, self.settings, self.tracker, self.curve = session, settings, tracker, curve
        self.passes = self.options.passes(world=session.world)
        self.device = _device()
        self.engine = self._start()
        self.collecting = self.objective if isinstance(self.objective, Collecting) else None
        if self.collecting is not None:
            require_rounds(
                self.collecting,
                steps=self.options.steps,
                batch=self.options.batch,
                checkpoint_every=self.options.checkpoint_every,
            )
        self.collected: dict[str, float] = {}
        """What is logged of the newest round, until its first step is."""
        self.reason: str | None = None
        """Why the training ends early."""
        self.batches = self.options.batches(size=self.objective.size, groups=self.objective.groups)

    def go(self) -> None:
        """Runs to the last step, or to the end of the round after which the objective ends the training."""
        first, end = len(self.curve), self.options.steps
        length = end if self.collecting is None else self.collecting.round
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as reader:
            for start in range(first, end, length):
                self.collected = self._collect(start)
                self._steps(reader, start, min(end, start + length))
                if self.reason is not None:
                    return

    def _steps(self, reader: ThreadPoolExecutor, first: int, end: int) -> None:
        """Steps between two collections; the examples of a step are read while the step before it computes."""
        mine = self._mine(first)
        ready = reader.submit(self.objective.prefetch, mine)
        for step in range(first, end):
            ready.result()
            coming = self._mine(step + 1) if step + 1 < end else []
            if coming:
                ready = reader.submit(self.objective.prefetch, coming)
            self._step(step, mine)
            mine = coming

    def _collect(self, step: int) -> dict[str, float]:
        """The examples of the round that begins with `step`, made with the model as it is; what is logged of them."""
        if self.collecting is None:
            return {}
        with _same_random_numbers(self.device), torch.no_grad():
            return self.collecting.collect(self.engine.model, step // self.collecting.round, self.session)

    def _start(self) -> Engine:
        """Prepares model and engine and restores the last checkpoint."""
        from safetensors.torch import load_file

        options, device, world = self.options, self.device, self.session.world
        options.require_workers(world)
        if device.type == "cpu":
            torch.set_num_threads(1)
        torch.manual_seed(seed_of(options.seed, "model"))
        model = self.objective.prepare(device, cast=options.engine.cast(device))
        if self.objective.size == 0:
            raise ConfigError("training has no examples; are all labels ties?")
        if not options.engine.keeps_masters:
            in_fp32(model)
        checkpoint = self.session.checkpoint()
        state: State | None = None if checkpoint is None else load_file(checkpoint / STATE)
        if state is not None:
            load_parameters(model, state)
        engine = build_engine(
            model,
            options=options.engine,
            optimizer=options.optimizer,
            clip=options.clip,
            ema=options.ema,
            passes=self.passes,
            device=device,
        )
        if state is not None:
            engine.restore(state)
        return engine

    def _mine(self, step: int) -> list[Draw]:
        """This rank's share of a step's batch."""
        return self.batches.draws(step)[self.session.rank :: self.session.world]

    def _step(self, step: int, mine: list[Draw]) -> None:
        options, session = self.options, self.session
        torch.manual_seed(seed_of(options.seed, "dropout", step, session.rank))
        parts = [[mine[place] for place in part] for part in np.array_split(np.arange(len(mine)), self.passes)]
        means = self._means(parts)
        metrics = self._gradients(step, parts, means)
        rate = options.learning_rate_at(step)
        norm = self.engine.step(rate)
        if not math.isfinite(norm):
            halt("gradient", step=step, names=self._names(step), bad=[], session=session)
        entry = {"step": step + 1, **metrics, **self.collected, "gradient_norm": norm, "learning_rate": rate}
        self.curve.append(entry)
        self.collected = {}
        session.report(self.curve[-1])
        if self.tracker is not None:
            self.tracker.log(step + 1, self.curve[-1])
        if options.preview_every and (step + 1) % options.preview_every == 0:
            self._preview(step + 1)
        if self.collecting is not None and (step + 1) % self.collecting.round == 0:
            self.reason = self.collecting.ended(self.curve)
        if (step + 1) % options.checkpoint_every == 0 or step + 1 == options.steps or self.reason is not None:
            self._commit()

    def _means(self, parts: list[list[Draw]]) -> dict[str, float]:
        """Means over the whole batch, from a pass without gradient that uses up no random numbers."""
        if not self.objective.needs_means:
            return {}
        sums = Sums()
        with _same_random_numbers(self.device), torch.no_grad():
            for part in parts:
                sums.add(self.objective.statistics(self.engine.model, part))
        return {name: mean for name, mean in sums.means(self.session.world).items() if mean is not None}

    def _gradients(self, step: int, parts: list[list[Draw]], means: dict[str, float]) -> dict[str, float | None]:
        """Forward and backward over this rank's share; the batch's mean loss and metrics, equal on all ranks."""
        session, sums = self.session, Sums()
        bad: list[str] = []
        for part in parts:
            found = self.objective.losses(self.engine.model, part, means=means)
            # The engine averages over ranks; this makes the whole the mean over the batch, whatever each rank's share.
            self.engine.backward(found.losses.sum() * (session.world / self.options.batch))
            sums.add({"loss": found.losses, **found.metrics})
            finite = torch.isfinite(found.losses.detach()).tolist()
            bad += [self.objective.name_of(draw.index) for draw, fine in zip(part, finite, strict=True) if not fine]
        found_means = sums.means(session.world)
        loss = found_means["loss"]
        if loss is None or not math.isfinite(loss):
            halt("loss", step=step, names=self._names(step), bad=bad, session=session)
        return found_means

    def _names(self, step: int) -> list[str]:
        return [self.objective.name_of(draw.index) for draw in self.batches.draws(step)]

    def _preview(self, step: int) -> None:
        folder = self.session.folder / PREVIEWS / f"{step:06d}" if self.session.rank == 0 else None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with _same_random_numbers(self.device):
            self.objective.preview(self.engine.model, step=step, folder=folder)
        if self.tracker is not None and folder is not None:
            self.tracker.pictures(step, {path.stem: path for path in sorted(folder.glob("*.png"))})

    def _commit(self) -> None:
        """Everything that the next step depends on, the whole curve, and after the last step the export."""
        from safetensors.torch import save_file

        state = self.engine.state()
        if state is None:
            self.session.commit(None)
            return
        if self.tracker is not None:
            self.tracker.flush()
        with scratch_folder(self.session.folder) as folder:
            save_file(state, folder / STATE)
            (folder / CURVE).write_text("".join(json.dumps(row) + "\n" for row in self.curve))
            (folder / CONFIG).write_text(json.dumps(self.settings, indent=1, sort_keys=True))
            if self.reason is not None:
                (folder / ENDED).write_text(self.reason)
            if len(self.curve) == self.options.steps or self.reason is not None:
                (folder / EXPORT).mkdir()
                kind = "param" if self.options.ema is None else "ema"
                self.objective.export(part_of(state, kind), folder / EXPORT)
            self.session.commit(folder)


@contextmanager
def _tracker(
    training: Training, session: Session, settings: dict[str, Any], *, resume_step: int
) -> Iterator[Tracker | None]:
    """The tracker on rank 0; None on other ranks."""
    if session.rank > 0:
        yield None
        return
    folder = session.folder / TRACKED
    tracker = open_trackers(training.trackers, folder, run=session.folder.name, config=settings, resume_step=resume_step)
    try:
        yield tracker
    finally:
        tracker.close()


@contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    """Restores the random state afterwards, so that numbers drawn inside are drawn again."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
