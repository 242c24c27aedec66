"""A policy and pairs small enough to train in a test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from actors.engines.training import EngineOptions
from actors.trainer import Losses, TrainerOptions, Training
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.models.policy import Full, LoRA
from pipelines.stages.preference import DecidedPairs, PreferenceObjective

SMALL = LoRA(rank=4, alpha=8)
TEXTS = ["a red circle", "two blue squares"]


def write_world(root: Path, *, pairs: int = 24) -> None:
    """A random policy and random pairs under `root`."""
    from pipelines.models.miniature.denoiser import build_sd3
    from pipelines.models.miniature.pipeline import assemble
    from pipelines.models.miniature.text import TextOptions, build_text_encoder

    denoiser = build_sd3(layers=2, heads=2, head_width=16, text_width=32, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(denoiser.proj_out.weight, std=0.05)
    encoder = build_text_encoder(TextOptions(hidden=32, layers=1, heads=2, seed=0))
    assemble(denoiser, encoder).save_pretrained(root / "policy", safe_serialization=True)
    random = np.random.default_rng(0)
    members = [random.integers(0, 256, (pairs, 24, 24, 3), dtype=np.uint8) for _ in range(2)]
    texts = [TEXTS[i % 2] for i in range(pairs)]
    names = [f"pair{i:03d}" for i in range(pairs)]
    DecidedPairs(*members, texts, names, [f"prompt{i % 2}" for i in range(pairs)]).save(root / "pairs")


def training(root: Path, *, adapter: LoRA | Full = SMALL, engine: EngineOptions, **options) -> Training:
    """Flow-DPO of that policy on those pairs, 6 steps of 8 pairs, a checkpoint every 2 steps."""
    objective = PreferenceObjective(root / "policy", root / "pairs", FlowDPO(beta=5.0), adapter, UniformTimes(low=0.2))
    small = {"steps": 6, "batch": 8, "learning_rate": 1e-3, "warm_up": 2, "checkpoint_every": 2} | options
    return Training(objective, TrainerOptions(engine=engine, **small))


def column(curve: list[dict], name: str = "loss") -> np.ndarray:
    """One column of a curve."""
    return np.array([row[name] for row in curve])


@dataclass
class Line:
    """Fits y = 3 x by one weight, with noise of each draw's seed; `poison` gives one example an infinite loss."""

    poison: int | None = None

    size = 5

    def prepare(self, device):
        self.model = torch.nn.Linear(1, 1, bias=False, device=device)
        return self.model

    def name_of(self, index):
        return f"row-{index}"

    def losses(self, model, draws):
        generators = [torch.Generator().manual_seed(draw.seed) for draw in draws]
        x = torch.stack([1.0 + torch.rand(1, generator=generator) for generator in generators])
        losses = (model(x) - 3 * x).square().squeeze(1)
        factors = [torch.inf if draw.index == self.poison else 1.0 for draw in draws]
        return Losses(losses * torch.tensor(factors), metrics={"x": x.squeeze(1)})

    def export(self, parameters, folder):
        (folder / "weight").write_text(str(parameters["weight"].item()))


def line_options(**values) -> TrainerOptions:
    given = {"steps": 60, "batch": 4, "learning_rate": 0.1, "warm_up": 5, "engine": EngineOptions(kind="torch")}
    return TrainerOptions(**given | values)
