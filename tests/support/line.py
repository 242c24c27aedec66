"""Objectives small enough to train in a test: a line with one weight, a net of two layers."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from actors.training.engines.engine import EngineOptions
from actors.training.objective import Losses
from actors.training.options import TrainerOptions
from infra.identity import seed_of


@dataclass
class Line:
    """Fits y = 3 x by one weight, with noise of each draw's seed.

    `poison` gives one example an infinite loss, `spoilt` one a loss of 0 whose gradient is no number; `shapes` are the
    examples' groups; `centred` subtracts the batch's mean of x from a metric. What it is asked is kept in `drawn`, what
    it is told to read in `read`.
    """

    poison: int | None = None
    spoilt: int | None = None
    shapes: list[int] | None = None
    centred: bool = False
    slope: float = 3.0
    drawn: list = field(default_factory=list)
    read: list = field(default_factory=list)

    size = 5

    @property
    def groups(self):
        return self.shapes

    @property
    def needs_means(self):
        return self.centred

    def describe(self):
        return {"slope": self.slope, "poison": self.poison, "shapes": self.shapes}

    def prepare(self, device, *, cast=None):
        self.model = torch.nn.Linear(1, 1, bias=False, device=device)
        return self.model

    def name_of(self, index):
        return f"row-{index}"

    def prefetch(self, draws):
        assert threading.current_thread() is not threading.main_thread()
        self.read.append(draws)

    def statistics(self, model, draws):
        assert not torch.is_grad_enabled()
        torch.rand(3)  # what dropout would take
        return {"x": points(draws)}

    def losses(self, model, draws, *, means):
        assert any(draws[0] in each for each in self.read)
        self.drawn.append(draws)
        x = points(draws)[:, None]
        losses = (model(x) - self.slope * x).square().squeeze(1)
        losses = losses * torch.tensor([torch.inf if draw.index == self.poison else 1.0 for draw in draws])
        if any(draw.index == self.spoilt for draw in draws):
            losses = losses + (0 * model(x)).sqrt().squeeze(1)
        odd = torch.tensor([draw.index for draw in draws if draw.index % 2]).float()
        metrics = {"x": x.squeeze(1), "odd": odd if len(odd) else None, "chance": torch.rand(len(draws))}
        if self.centred:
            metrics["centred"] = x.squeeze(1) - means["x"]
        return Losses(losses, metrics=metrics)

    def preview(self, model, *, step, folder):
        from PIL import Image

        torch.rand(3)
        if folder is not None:
            Image.new("RGB", (2, 2), (step, 0, 0)).save(folder / "red.png")

    def export(self, parameters, folder):
        (folder / "weight").write_text(str(parameters["weight"].item()))


@dataclass
class Rounds(Line):
    """A line whose examples are made by its own weight: every round aims 1 above the weight that the round began with.

    `made` has the numbers of the rounds that this process collected; `last` is the round after which the objective ends.
    """

    round: int = 6
    examples: int = 8
    last: int | None = None
    made: list = field(default_factory=list)

    @property
    def size(self):
        return self.examples

    def collect(self, model, number, session):
        assert not torch.is_grad_enabled()
        torch.rand(5)  # takes nothing from the steps' own random numbers
        self.made.append(number)
        weight = model(torch.ones(1, 1, dtype=torch.float32)).item()
        each = [seed_of("target", number, place) / 2**64 for place in range(self.examples)]
        self.targets = torch.tensor(each, dtype=torch.float32) + weight + 0.5
        return {"begun_at": weight}

    def losses(self, model, draws, *, means):
        assert any(draws[0] in each for each in self.read)
        self.drawn.append(draws)
        x = points(draws)[:, None]
        aims = self.targets[[draw.index for draw in draws]][:, None]
        return Losses((model(x) - aims * x).square().squeeze(1), metrics={"chance": torch.rand(len(draws))})

    def ended(self, curve):
        done = len(curve) // self.round
        return f"round {done} was the last" if self.last is not None and done >= self.last else None


def points(draws) -> torch.Tensor:
    """x float[b] in [1, 2), of each draw's seed."""
    return torch.cat([1.0 + torch.rand(1, generator=torch.Generator().manual_seed(draw.seed)) for draw in draws])


def line_options(**values) -> TrainerOptions:
    given = {"steps": 60, "batch": 4, "learning_rate": 0.1, "warm_up": 5, "engine": EngineOptions(kind="torch")}
    return TrainerOptions(**given | values)


@dataclass
class Net:
    """A frozen layer, then two trained ones of sizes that no number of workers divides, which fit a random function."""

    size = 24
    groups = None
    needs_means = False

    def describe(self):
        return {"net": 1}

    def prepare(self, device, *, cast=None):
        self.device = device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = [torch.nn.Linear(8, 12), torch.nn.Linear(12, 13), torch.nn.GELU(), torch.nn.Linear(13, 3, bias=False)]
        model = torch.nn.Sequential(*layers).to(device)
        model[0].requires_grad_(False)
        return model

    def name_of(self, index):
        return f"row-{index}"

    def prefetch(self, draws):
        pass

    def statistics(self, model, draws):
        return {}

    def losses(self, model, draws, *, means):
        generators = [torch.Generator().manual_seed(draw.seed) for draw in draws]
        noise = torch.stack([torch.randn(8, generator=generator) for generator in generators])
        targets = torch.tensor([[np.sin(draw.index), np.cos(draw.index), 1.0] for draw in draws], dtype=torch.float32)
        found = model(noise.to(self.device)).float()
        errors = (found - targets.to(self.device)).square().mean(1)
        return Losses(errors, metrics={"size": found.abs().mean(1)})

    def preview(self, model, *, step, folder: Path | None):
        pass

    def export(self, parameters, folder):
        from safetensors.torch import save_file

        save_file(parameters, folder / "net.safetensors")


def net_options(*, engine: EngineOptions, **values) -> TrainerOptions:
    """6 steps of 8 examples, a checkpoint every 2."""
    given = {"steps": 6, "batch": 8, "learning_rate": 1e-2, "warm_up": 2, "checkpoint_every": 2}
    return TrainerOptions(engine=engine, **given | values)
