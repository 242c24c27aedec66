"""Tuning: what is exported is what was trained, and what a pair's loss is made of."""

import io

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from actors.engines.training import EngineOptions
from actors.trainer import Draw, read_curve, train
from infra.config import ConfigError
from infra.fit import here
from pipelines.models.miniature.pipeline import load_pipeline
from pipelines.models.policy import Full, LoRA
from pipelines.stages.preference import DecidedPairs, decided_pairs
from support.training import TEXTS, training, write_world

TORCH = EngineOptions(kind="torch")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_world(root)
    return root


def velocities(transformer, pipeline) -> torch.Tensor:
    x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    condition = pipeline.encode(TEXTS)
    with torch.no_grad():
        return transformer(x, condition.tokens, condition.pooled, torch.tensor([300.0, 700.0]), return_dict=False)[0]


@pytest.mark.parametrize("zero", [0, 3])
def test_a_reloaded_adapter_is_the_trained_policy(world, tmp_path, zero):
    engine = EngineOptions(zero=3) if zero else TORCH
    job = training(world, adapter=LoRA(rank=4, alpha=12), engine=engine)
    export = here(train, job, folder=tmp_path, on_report=None) / "export"
    assert [path.name for path in export.iterdir()] == ["pytorch_lora_weights.safetensors"]
    base, tuned = load_pipeline(world / "policy"), load_pipeline(world / "policy", lora=export)
    assert (velocities(tuned.transformer, tuned) - velocities(base.transformer, base)).abs().max() > 1e-3
    if not zero:
        trained = job.objective._ready.policy.pipeline
        assert torch.equal(velocities(tuned.transformer, tuned), velocities(trained.transformer, trained))


def test_a_reloaded_pipeline_is_the_fully_trained_policy(world, tmp_path):
    job = training(world, adapter=Full(), engine=TORCH)
    export = here(train, job, folder=tmp_path, on_report=None) / "export"
    assert not [path for path in export.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    tuned, trained = load_pipeline(export), job.objective._ready.policy.pipeline
    assert torch.equal(velocities(tuned.transformer, tuned), velocities(trained.transformer, trained))


@pytest.mark.parametrize("adapter", [LoRA(rank=4, alpha=8), Full()])
def test_an_untrained_policy_is_its_reference(world, adapter):
    job = training(world, adapter=adapter, engine=TORCH)
    model = job.objective.prepare(torch.device("cpu"))
    found = job.objective.losses(model, [Draw(index=3, seed=1), Draw(index=8, seed=2)])
    assert torch.allclose(found.losses, torch.tensor(2.0).log().expand(2), atol=1e-6)
    assert found.metrics["drift"].tolist() == [0, 0]


def test_the_loss_of_a_pair_does_not_depend_on_its_batch(world):
    job = training(world, adapter=Full(), engine=TORCH)
    model = job.objective.prepare(torch.device("cpu"))
    with torch.no_grad():
        model.proj_out.bias.add_(0.1)
    draws = [Draw(index=i, seed=100 + i) for i in range(5)]
    together = job.objective.losses(model, draws).losses
    alone = torch.cat([job.objective.losses(model, [draw]).losses for draw in draws])
    assert torch.allclose(together, alone, atol=1e-4)


def test_the_winner_gains_on_the_loser(world, tmp_path):
    job = training(world, adapter=Full(), engine=TORCH, steps=60, batch=24, checkpoint_every=60, learning_rate=1e-3)
    curve = read_curve(here(train, job, folder=tmp_path, on_report=None))
    assert np.mean([row["loss"] for row in curve[-10:]]) < 0.55 < np.log(2)
    assert np.mean([row["implicit_accuracy"] for row in curve[-10:]]) > 0.8


def labels_and_pictures(choices):
    def png(level):
        out = io.BytesIO()
        Image.new("RGB", (24, 24), (level, level, level)).save(out, format="PNG")
        return {"bytes": out.getvalue(), "path": None}

    rows = [
        {"id": f"pair{i}", "prompt_id": "p", "text": "t", "picture_a": "x", "picture_b": "y", "choice": choice}
        for i, choice in enumerate(choices)
    ]
    pictures = pa.table({"id": ["y", "x"], "image": [png(9), png(7)]})
    return pa.Table.from_pylist(rows), pictures


def test_winners_are_winners_and_ties_are_dropped():
    pairs = decided_pairs(*labels_and_pictures(["a", "tie", "b"]))
    assert pairs.ids == ["pair0", "pair2"]
    assert pairs.winners[:, 0, 0, 0].tolist() == [7, 9]
    assert pairs.losers[:, 0, 0, 0].tolist() == [9, 7]


def test_nothing_but_ties_is_refused():
    with pytest.raises(ConfigError, match="1 labels, all ties"):
        decided_pairs(*labels_and_pictures(["tie"]))


def test_pairs_survive_their_files(world, tmp_path):
    pairs = DecidedPairs.load(world / "pairs")
    pairs.save(tmp_path)
    again = DecidedPairs.load(tmp_path)
    assert again.ids == pairs.ids
    assert np.array_equal(again.winners, pairs.winners)
