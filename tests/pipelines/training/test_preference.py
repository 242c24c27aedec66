"""What a pair's loss is made of, for every family of generators and every method; three references, one loss."""

import numpy as np
import pytest
import torch

from actors.training.draws import Draw
from actors.training.engines.engine import EngineOptions
from actors.training.launch import here
from actors.training.trainer import read_curve, train
from jobs.recipes import call_recipe
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.dspo import DSPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.kto import KTO
from pipelines.algorithms.preference.loser_gradient import SafeScale
from pipelines.algorithms.preference.mapo import MaPO
from pipelines.algorithms.preference.margin import Margin
from pipelines.algorithms.preference.polynomial import AutoAlpha, FixedAlpha
from pipelines.algorithms.preference.rwr import RWR
from pipelines.algorithms.preference.sft import SFT
from pipelines.models.adapter import Full, LoRA, Start
from pipelines.models.families.base import SIZES
from pipelines.recipes.arenapo import arenapo
from pipelines.training.arithmetic import Arithmetic
from pipelines.training.data import Latents
from pipelines.training.previews import PreviewSpec
from support.tiny import FAMILIES
from support.training import SMALL, data_of, dpo, objective, reader, shape_of, training, write_errors, write_world

TORCH = EngineOptions(kind="torch")
CPU = torch.device("cpu")
DRAWS = [Draw(index=3, seed=1, epoch=0), Draw(index=5, seed=2, epoch=1)]
ANY = [MaPO(), DSPO(logit_beta=5.0), KTO(beta=5.0), SFT(), RWR()]
FORMS = [{"polynomial": FixedAlpha(alpha=8.0)}, {"polynomial": AutoAlpha()}, {"margin": Margin(scale=1.0)}]
FORMS += [{"loser_gradient": SafeScale(mu=0.5)}]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """A world of any family, written when first asked for."""
    made = {}

    def world(family):
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            write_world(made[family], family=family, pairs=8, ties=1)
        return made[family]

    return world


def methods_of(family):
    form = DiffusionDPO if family in ("sd15", "sdxl") else FlowDPO
    return [dpo(family), *ANY, *(form(beta=5.0, **options) for options in FORMS)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_every_method_moves_every_family(worlds, family, tmp_path):
    root = worlds(family)
    for number, method in enumerate(methods_of(family)):
        for adapter in (SMALL, Full()) if number == 0 else (SMALL,):
            job = training(
                root, engine=TORCH, family=family, method=method, adapter=adapter, options={"steps": 1, "batch": 4}
            )
            curve = read_curve(here(train, job, folder=tmp_path / f"{number}-{adapter.kind}", on_report=None))
            assert np.isfinite(curve[0]["loss"]), method
            assert 0 < curve[0]["gradient_norm"] < np.inf, method
            assert curve[0]["winner_error"] > 0 and curve[0]["loser_error"] > 0, method


@pytest.mark.parametrize("form", ["sft", "mapo", "kto", "diffusion_dpo", "sdpo", "dspo"])
@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_every_form_of_the_recipe_arenapo_takes_a_step_with_its_own_loss_and_optimiser(worlds, form, model, tmp_path):
    tune = call_recipe(arenapo, {"form": form, "model": model, "scale": 0.3, "zero": "0"})
    options = {"steps": 1, "batch": 4, "optimizer": tune.trainer.optimizer, "warm_up": 0}
    job = training(worlds(model), engine=TORCH, family=model, method=tune.method, adapter=Full(), options=options)
    (row,) = read_curve(here(train, job, folder=tmp_path, on_report=None))
    assert np.isfinite(row["loss"]) and 0 < row["gradient_norm"] < np.inf


@pytest.mark.parametrize("adapter", [LoRA(rank=4, alpha=8), Full()])
def test_an_untrained_policy_is_its_reference(worlds, adapter):
    job = objective(worlds("miniature"), adapter=adapter)
    found = job.losses(job.prepare(CPU), DRAWS, means={})
    assert torch.allclose(found.losses, torch.tensor(2.0).log().expand(2), atol=1e-6)
    assert found.metrics["drift"].tolist() == [0, 0]


def test_the_loss_of_a_pair_does_not_depend_on_its_batch(worlds):
    job = objective(worlds("miniature"), adapter=Full())
    model = job.prepare(CPU)
    with torch.no_grad():
        model.proj_out.bias.add_(0.1)
    draws = [Draw(index=i, seed=100 + i, epoch=0) for i in range(5)]
    together = job.losses(model, draws, means={}).losses
    alone = torch.cat([job.losses(model, [draw], means={}).losses for draw in draws])
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("family", ["miniature", "sd15", "flux"])
@pytest.mark.parametrize("adapter", [LoRA(rank=4, alpha=8), Full()])
def test_adapter_copy_and_cached_errors_give_one_loss(worlds, family, adapter, tmp_path):
    root, curves = worlds(family), {}
    given = {"engine": TORCH, "family": family, "adapter": adapter, "draws": 2, "options": {"steps": 4, "batch": 6}}
    for kind in ("adapter", "copy", "cached") if adapter.kind == "lora" else ("copy", "cached"):
        errors = write_errors(root, family=family, draws=2) if kind == "cached" else None
        job = training(root, reference=kind, errors=errors, **given)
        curves[kind] = read_curve(here(train, job, folder=tmp_path / kind, on_report=None))
        if kind == "cached":
            assert job.objective._ready.policy.frozen is None
    losses = {kind: [row["loss"] for row in curve] for kind, curve in curves.items()}
    for kind, values in losses.items():
        np.testing.assert_allclose(values, losses["copy"], atol=1e-5, err_msg=kind)
    assert curves["cached"][-1].get("drift") is None  # errors say how far off, not where
    assert losses["copy"][-1] != pytest.approx(np.log(2), abs=1e-7)


@pytest.mark.parametrize("adapter", [SMALL, Full()])
def test_a_second_training_starts_at_the_first_which_is_its_reference(worlds, adapter, tmp_path):
    root = worlds("miniature")
    options = {"steps": 3, "batch": 4, "learning_rate": 1e-2}
    job = training(root, engine=TORCH, adapter=adapter, method=SFT(), options=options)
    before = Start(here(train, job, folder=tmp_path, on_report=None) / "export", adapter)
    fresh, second = objective(root, adapter=adapter), objective(root, adapter=adapter, start=before)
    losses, errors = {}, {}
    for name, one in (("fresh", fresh), ("second", second)):
        pairs = one.pairs(one.prepare(CPU), DRAWS)
        losses[name] = dpo("miniature").losses(pairs, means={}).losses
        errors[name] = pairs.winner.error
    assert torch.allclose(losses["second"], losses["fresh"], atol=1e-5), "at its start a policy is its reference"
    assert (errors["second"] - errors["fresh"]).abs().max() > 1e-3, "the first training has left its mark"


def test_fixed_draws_come_by_turns_and_are_the_pairs_own(worlds):
    job = objective(worlds("miniature"), draws=2)
    job.prepare(CPU)
    random = job.noise
    seeds = [random.seed_of(Draw(index=0, seed=9, epoch=epoch), example="pair000") for epoch in range(4)]
    assert seeds[0] == seeds[2] != seeds[1] == seeds[3]
    assert random.seed_of(Draw(index=0, seed=9, epoch=0), example="pair001") not in seeds


def test_checkpointed_activations_change_nothing(worlds, tmp_path):
    given = {"engine": TORCH, "family": "sd3", "options": {"steps": 2, "batch": 4}}
    curves = []
    for checkpointing in (False, True):
        job = training(worlds("sd3"), checkpointing=checkpointing, **given)
        curves.append(read_curve(here(train, job, folder=tmp_path / str(checkpointing), on_report=None)))
    np.testing.assert_allclose([r["loss"] for r in curves[0]], [r["loss"] for r in curves[1]], atol=1e-6)


def test_bf16_keeps_errors_in_fp32(worlds):
    job = objective(worlds("sd3"), family="sd3", arithmetic=Arithmetic(weights="bfloat16"))
    model = job.prepare(CPU)
    pairs = job.pairs(model, DRAWS)
    assert next(model.parameters()).dtype == torch.bfloat16
    assert pairs.winner.error.dtype == pairs.winner.reference_error.dtype == torch.float32


@pytest.mark.parametrize("family", ["miniature", "sdxl", "wan"])
def test_previews_are_pictures_of_the_texts(worlds, family, tmp_path):
    from PIL import Image

    frames, height, width = shape_of(family)
    spec = PreviewSpec((("a red circle", "1text1"), ("x", "1text2")), "1text0", (frames, height, width), 2, 3.0, seed=4)
    job = objective(worlds(family), family=family, previews=spec)
    model = job.prepare(CPU)
    job.preview(model, step=1, folder=tmp_path)
    files = sorted(tmp_path.glob("*.png"))
    assert [file.name for file in files] == ["000.png", "001.png"]
    assert {Image.open(file).size for file in files} == {(width, height)}
    job.preview(model, step=1, folder=None)


def test_latents_over_the_budget_are_read_again_and_stay_right(worlds):
    small = Latents(reader(worlds("miniature")), budget=20_000)
    whole = data_of(worlds("miniature")).open().latents
    names = [f"0picture{number:04d}" for number in range(12)]
    for _ in range(2):
        for name in names:
            assert torch.equal(small.get([name])[name]["latent"], whole.get([name])[name]["latent"])
    assert small.held <= 20_000 + 7_200


def test_both_members_of_a_pair_keep_the_sizes_of_their_own_pictures(worlds):
    _, height, width = shape_of("sdxl")
    batch = data_of(worlds("sdxl")).open().batch([1, 2], device=CPU)
    numbers = [2, 4, 3, 5]  # of the pictures: the winners of pairs 1 and 2, then the losers
    assert batch.both[SIZES].tolist() == [[2 * height, 2 * width + number, 0, number] for number in numbers]
