"""The reward model: it learns an order, is reloaded exactly, and compares pictures under one noise."""

import numpy as np
import pytest
import torch

from actors.training.engines.engine import EngineOptions
from actors.training.launch import here
from actors.training.options import TrainerOptions
from actors.training.trainer import Training, read_curve, train
from infra.config import ConfigError
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.reward.bradley_terry import BradleyTerry
from pipelines.models.rewards.task_tokens import load_reward
from pipelines.training.data import Materials, Randomness
from pipelines.training.reward import TIMES, RewardObjective, accuracy_by_time
from support.training import TEXTS, reader, write_world

OPTIONS = TrainerOptions(steps=40, batch=16, learning_rate=2e-3, engine=EngineOptions(kind="torch"))
PICTURES = np.random.default_rng(5).integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of pairs in which the darker picture wins: objective, checkpoint, pairs."""
    root = tmp_path_factory.mktemp("world")
    write_world(root, darker=True)
    materials = Materials(root / "examples.parquet", reader(root))
    randomness = Randomness(UniformTimes(), draws=None)
    objective = RewardObjective(root / "policy", materials, BradleyTerry(), randomness, task_tokens=2, described={})
    return objective, here(train, Training(objective, OPTIONS), folder=root / "run", on_report=None), materials


def test_it_learns_an_order_at_low_noise(trained):
    _, checkpoint, materials = trained
    curve = read_curve(checkpoint)
    assert curve[0]["loss"] == pytest.approx(np.log(2), abs=0.2)
    opened = materials.open()
    rows = accuracy_by_time(load_reward(checkpoint / "export"), opened)
    assert tuple(row.t for row in rows) == TIMES
    assert rows[0].accuracy == 1.0
    assert rows[0].low <= rows[0].high == 1.0
    assert {row.pairs for row in rows} == {len(opened.rows)}


def test_a_reloaded_model_scores_as_the_trained_one(trained):
    objective, checkpoint, _ = trained
    model = load_reward(checkpoint / "export")
    texts = [TEXTS[0], TEXTS[1]] * 2
    x = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    condition = model.conditions(texts)
    with torch.no_grad():
        before = objective._ready.model.network(x, condition.tokens, condition.pooled, torch.full((4,), 0.3))
    assert torch.equal(model.score(x, texts, 0.3), before)


def test_scores_of_pictures_are_the_same_alone_and_together(trained):
    model = load_reward(trained[1] / "export")
    texts = [TEXTS[i % 2] for i in range(6)]
    together = model.score(PICTURES, texts, 0.05)
    alone = torch.cat([model.score(PICTURES[i : i + 1], texts[i : i + 1], 0.05) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_pictures_without_texts_are_refused(trained):
    with pytest.raises(ConfigError, match="2 pictures but 1 texts"):
        load_reward(trained[1] / "export").score(PICTURES[:2], ["a red circle"], 0.05)
