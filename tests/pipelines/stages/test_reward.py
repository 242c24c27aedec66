"""The reward model: it learns an order, is reloaded exactly or not at all, and stands on any joint transformer."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from actors.media import encode_png
from actors.training.draws import Draw
from actors.training.engines.engine import EngineOptions
from actors.training.launch import here
from actors.training.options import TrainerOptions
from actors.training.trainer import Training, read_curve, train
from infra.config import ConfigError
from infra.store.files import Folder
from infra.store.tables import from_table
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.diffusion.path import per_sample_error
from pipelines.algorithms.reward.accuracy import GRID
from pipelines.algorithms.reward.bradley_terry import BradleyTerry, BradleyTerryTies
from pipelines.algorithms.reward.enhanced import bin_of
from pipelines.miniature.denoiser import build_pixart
from pipelines.miniature.pipeline import load_pipeline
from pipelines.models.rewards.clean import CleanScores
from pipelines.models.rewards.reward import SETTINGS_FILE, WEIGHTS_FILE
from pipelines.models.rewards.slrm import SLRM
from pipelines.models.rewards.task_tokens import TaskTokenReward
from pipelines.models.scorers.scorer import Sample
from pipelines.models.scorers.trained import TrainedReward
from pipelines.schemas.training import RewardScore
from pipelines.stages.encode import Encode, Encoders
from pipelines.stages.examples import Examples
from pipelines.stages.imported import ImportedLabels, ImportedPictures, PairFiles
from pipelines.stages.reward import Reward
from pipelines.training.held_out import HeldOutPairs
from pipelines.training.noise import NoiseDraws
from pipelines.training.reward import (
    SCORES_FILE,
    Measurement,
    RewardObjective,
    calibration_points,
    measure,
    scores_by_time,
)
from support.tiny import family_at, write_tiny
from support.training import TEXTS, data_of, write_world

OPTIONS = TrainerOptions(steps=40, batch=16, learning_rate=2e-3, engine=EngineOptions(kind="torch"))
PICTURES = np.random.default_rng(5).integers(0, 256, (6, 1, 24, 24, 3), dtype=np.uint8)
MODEL = TaskTokenReward()


def objective_of(root, *, family="miniature", loss=None, times=None, model=MODEL):
    data = data_of(root)
    noise = NoiseDraws(times or UniformTimes(), draws=None)
    policy = family_at(family, root / "policy")
    return RewardObjective(model, policy, data, loss or BradleyTerry(), noise, described={})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of pairs in which the darker picture wins: objective and export."""
    root = tmp_path_factory.mktemp("world")
    write_world(root, darker=True)
    objective = objective_of(root)
    return objective, here(train, Training(objective, OPTIONS), folder=root / "run", on_report=None)


@pytest.fixture(scope="module")
def sd3_world(tmp_path_factory):
    root = tmp_path_factory.mktemp("sd3")
    write_world(root, family="sd3", pairs=4, ties=1)
    return root


def opened(objective, export):
    return MODEL.loaded(export, backbone=objective.policy, device="cpu")


def clean(trained, **changes):
    objective, checkpoint = trained
    options = {"t": 0.05, "noises": 2} | changes
    return CleanScores(MODEL, checkpoint / "export", backbone=objective.policy, device="cpu", **options)


def test_it_learns_an_order_at_low_noise_and_keeps_every_pairs_scores(trained):
    objective, checkpoint = trained
    assert read_curve(checkpoint)[0]["loss"] == pytest.approx(np.log(2), abs=0.2)
    pairs = objective.data.open()
    scores = scores_by_time(opened(objective, checkpoint / "export"), pairs, dimensions=MODEL.dimensions)
    assert len(scores) == len(GRID) * len(pairs) == len({(row.pair, row.t) for row in scores})
    held = HeldOutPairs.of(scores, pairs, dimension="overall")
    rows = held.at_times()
    assert tuple(row.t for row in rows) == GRID
    assert rows[0].accuracy == np.mean([row.winner > row.loser for row in scores if row.t == GRID[0]]) == 1.0
    assert {row.pairs for row in rows} == {len(pairs)}
    low, high, every = held.in_bands(dimension="overall")
    assert (low.band, high.band, every.band, every.pairs) == ("low", "high", "all", len(pairs))
    assert low.accuracy == pytest.approx(np.mean([row.accuracy for row in rows[1:6]]))
    assert every.accuracy == pytest.approx((low.accuracy + high.accuracy) / 2)


def test_a_reloaded_model_scores_as_the_trained_one(trained):
    objective, checkpoint = trained
    x, t = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.3)
    condition = objective._ready.data.texts(["1text1", "1text2"] * 2, device=torch.device("cpu"))
    with torch.no_grad():
        before = objective._ready.network(x, t=t, condition=condition)
        assert torch.equal(opened(objective, checkpoint / "export")(x, t=t, condition=condition), before)
    assert before.shape == (4, 1)


def test_the_export_is_no_second_copy_of_the_generator(trained):
    _, checkpoint = trained
    assert {path.name for path in (checkpoint / "export").iterdir()} == {WEIGHTS_FILE, SETTINGS_FILE}


def test_held_out_scores_are_the_same_from_a_worker_and_are_not_computed_twice(trained, tmp_path):
    objective, checkpoint = trained
    data = objective.data
    job = Measurement(MODEL, objective.policy, checkpoint / "export", data, device="cpu")
    found = here(measure, job, folder=tmp_path / "held", on_report=None) / SCORES_FILE
    scores = scores_by_time(opened(objective, checkpoint / "export"), data.open(), dimensions=MODEL.dimensions)
    assert list(from_table(pq.read_table(found), RewardScore)) == scores
    again = Measurement(MODEL, objective.policy, tmp_path / "nowhere", data, device="cpu")
    assert here(measure, again, folder=tmp_path / "held", on_report=None) / SCORES_FILE == found


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_a_file_with_other_tensors_is_refused(trained, tmp_path, change):
    objective, checkpoint = trained
    folder = shutil.copytree(checkpoint / "export", tmp_path / "export")
    tensors = load_file(folder / WEIGHTS_FILE)
    if change == "missing":
        del tensors["head.1.weight"]
    else:
        tensors["head.1.more" if change == "unexpected" else "head.1.bias"] = torch.zeros(3)
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(
        ConfigError, match={"missing": "lacks 'head.1.weight'", "unexpected": "no place"}.get(change, "shape")
    ):
        opened(objective, folder)


def test_another_generator_or_other_settings_are_refused(trained, tmp_path):
    objective, checkpoint = trained
    other = family_at("miniature", write_tiny("miniature", tmp_path / "other", seed=9))
    with pytest.raises(ConfigError, match="was trained with backbone"):
        MODEL.loaded(checkpoint / "export", backbone=other, device="cpu")
    with pytest.raises(ConfigError, match="was trained with model"):
        TaskTokenReward(task_tokens=3).loaded(checkpoint / "export", backbone=objective.policy, device="cpu")


def test_a_score_depends_on_its_own_picture_and_prompt_alone(trained):
    scores, texts = clean(trained), [TEXTS[i % 2] for i in range(6)]
    together = scores.score(PICTURES, texts)
    assert np.array_equal(together, np.concatenate([scores.score(PICTURES[i : i + 1], texts[i : i + 1]) for i in range(6)]))
    with pytest.raises(ConfigError, match="2 pictures but 1 texts"):
        scores.score(PICTURES[:2], ["a red circle"])


def test_a_clean_score_is_the_mean_over_noises_and_at_time_0_there_is_none(trained):
    one, two, four = (clean(trained, noises=noises).score(PICTURES[:1], TEXTS[:1]) for noises in (1, 2, 4))
    assert len({one.item(), two.item(), four.item()}) == 3
    assert clean(trained, t=0.0, noises=7).score(PICTURES[:1], TEXTS[:1]) == clean(trained, t=0.0).score(
        PICTURES[:1], TEXTS[:1]
    )


def test_as_a_scorer_it_prefers_what_it_was_taught(trained):
    objective, checkpoint = trained
    scorer = TrainedReward(weights=Folder(path=str(checkpoint / "export")), model=MODEL, backbone=objective.policy)
    files = [encode_png(picture[0] // side).bytes for picture in PICTURES for side in (2, 1)]
    samples = [Sample(file, "image", TEXTS[0]) for file in files]
    values = scorer.open("cpu", None).score([*samples, Sample(b"no picture", "image", TEXTS[0])])
    assert values.shape == (13, 1)
    assert (values[0:12:2] > values[1:12:2]).all()
    assert np.isnan(values[12, 0])


def test_sd3_of_diffusers_is_a_backbone_and_every_trained_tensor_learns(sd3_world, tmp_path):
    objective = objective_of(sd3_world, family="sd3", loss=BradleyTerryTies())
    network = objective.prepare(torch.device("cpu"))
    losses = objective.losses(network, [draw(0), draw(1), draw(2)], means={})
    losses.losses.sum().backward()
    learnt = {name for name, value in network.named_parameters() if value.grad is not None and value.grad.abs().max() > 0}
    assert {"task_tokens", "transformer.pos_embed.proj.weight", "transformer.context_embedder.weight"} <= learnt
    parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
    objective.export(parameters, tmp_path)
    x, t = torch.randn(2, 4, 4, 4, requires_grad=True), torch.tensor([0.0, 0.7])
    condition = objective._ready.data.texts(["1text1", "1text2"], device=torch.device("cpu"))
    scores = opened(objective, tmp_path)(x, t=t, condition=condition)
    assert torch.equal(scores, network(x, t=t, condition=condition))
    scores.sum().backward()
    assert x.grad is not None and x.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    with pytest.raises(ConfigError, match="lacks 'task_tokens'"):
        objective.export({name: value for name, value in parameters.items() if name != "task_tokens"}, tmp_path)


def draw(index):
    return Draw(index=index, epoch=0, seed=7 + index)


def test_a_tie_is_learnt_from_by_the_loss_that_has_ties(sd3_world):
    with_ties = objective_of(sd3_world, family="sd3", loss=BradleyTerryTies(theta=5.0))
    network = with_ties.prepare(torch.device("cpu"))
    torch.nn.init.zeros_(network.head[-1].weight)
    found = with_ties.losses(network, [draw(0), draw(1)], means={})
    assert found.metrics["accuracy"][0] == 0.5
    # At equal scores the tie has probability (theta - 1) / (theta + 1), a win half of the rest.
    assert torch.exp(-found.losses.detach()).tolist() == pytest.approx([2 / 3, 1 / 6])


def test_held_out_ties_are_measured_at_the_threshold_that_suits_them(sd3_world):
    data = data_of(sd3_world).open()
    ties = data.numbers("tie") > 0
    lead = np.where(ties, 0.1, [1.0, 2.0, -0.5, 3.0])  # one of three decided pairs is ranked wrong
    names = data.ids.to_pylist()
    scores = [RewardScore(name, t, "overall", one, 0.0) for t in GRID for name, one in zip(names, lead, strict=True)]
    for row in HeldOutPairs.of(scores, data, dimension="overall").at_times():
        assert (row.accuracy, row.pairs) == (pytest.approx(2 / 3), 3)
        assert (row.accuracy_with_ties, row.tie_threshold, row.pairs_with_ties) == (0.75, 0.1, 4)


def test_the_generators_shift_is_the_shift_of_its_scheduler(sd3_world):
    seen = {}
    for shift in ("generator", 3.0, 1.0):
        objective = objective_of(sd3_world, family="sd3", times=UniformTimes(shift=shift))
        torch.manual_seed(0)
        network = objective.prepare(torch.device("cpu"))
        network.register_forward_pre_hook(
            lambda _, inputs, named, shift=shift: seen.update({shift: named["t"]}), with_kwargs=True
        )
        objective.losses(network, [draw(0), draw(1)], means={})
    assert torch.equal(seen["generator"], seen[3.0])
    assert not torch.equal(seen["generator"], seen[1.0])


def examples_of(family):
    pictures = ImportedPictures(source=PairFiles())
    labels = ImportedLabels(pictures=pictures)
    return Examples(labels=labels, encoded=Encode(pairs=labels, pictures=pictures, encoders=Encoders(family=family)))


def test_generators_without_a_place_for_task_tokens_are_refused_when_the_recipe_is_built(tmp_path):
    for name in ("sd15", "flux"):
        family = family_at(name, write_tiny(name, tmp_path / name))
        with pytest.raises(ConfigError, match="choose an SD3"):
            Reward(examples=examples_of(family), policy=family)
    folder = write_tiny("miniature", tmp_path / "pixart")
    pipeline = load_pipeline(folder)
    pipeline.register_modules(transformer=build_pixart(layers=2, heads=2, head_width=16, text_width=32, seed=0))
    shutil.rmtree(folder / "transformer")
    pipeline.save_pretrained(folder, safe_serialization=True)
    family = family_at("miniature", folder)
    with pytest.raises(ConfigError, match="choose an SD3"):
        Reward(examples=examples_of(family), policy=family)


def test_latents_of_another_vae_are_refused(tmp_path):
    one, other = (family_at("sd3", write_tiny("sd3", tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    with pytest.raises(ConfigError, match="reward: the latents are by the VAE of"):
        one.refuse_latents_of(other, stage="reward")
    one.refuse_latents_of(one, stage="reward")


def test_the_settings_beside_the_weights_say_what_they_are(trained):
    stored = json.loads((trained[1] / "export" / SETTINGS_FILE).read_text())
    assert stored["model"] == {
        "class": "TaskTokenReward",
        "dimensions": ["overall"],
        "kind": "task_tokens",
        "task_tokens": 2,
    }
    assert stored["backbone"]["class"] == "MiniatureFamily"


def slrm_in(world, **changes):
    model = SLRM(**changes)
    objective = objective_of(world, family="sd3", model=model)
    torch.manual_seed(0)
    return objective, objective.prepare(torch.device("cpu"))


def test_slrm_measures_the_usual_error_once_and_a_reloaded_model_scores_as_the_trained_one(sd3_world, tmp_path):
    objective, network = slrm_in(sd3_world)
    assert network.usual_errors.shape == (10,)
    assert (network.usual_errors > 0).all()
    before = network.usual_errors.clone()
    losses = objective.losses(network, [draw(1), draw(2), draw(3)], means={}).losses
    losses.sum().backward()
    assert torch.equal(before, network.usual_errors)
    parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
    objective.export(parameters, tmp_path)
    again = objective.model.loaded(tmp_path, backbone=objective.policy, device="cpu")
    x, target = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    condition = objective._ready.data.texts(["1text1", "1text2"], device=torch.device("cpu"))
    given = {"t": torch.tensor([0.1, 0.9]), "condition": condition, "target": target}
    torch.testing.assert_close(again(x, **given), network(x, **given), rtol=0, atol=1e-5)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    del tensors["usual_errors"]
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ConfigError, match="lacks 'usual_errors'"):
        objective.model.loaded(tmp_path, backbone=objective.policy, device="cpu")


def test_slrm_of_the_untouched_generator_halves_a_score_of_the_usual_error(sd3_world):
    """exp(-ln 4 / 2) = 1/2 on average over the training pairs, whatever the size of the errors."""
    objective, network = slrm_in(sd3_world)
    network.place.active = False
    data = objective._ready.data
    penalties = []
    for sample, condition in calibration_points(data, path=network.generator.path, device=torch.device("cpu")):
        with torch.no_grad():
            error = per_sample_error(network._predict(sample.x_t, sample.t, condition), target=sample.target)
        usual = network.usual_errors[bin_of(sample.t)]
        penalties.append(network.settings.enhancement.penalty(error, usual=usual).mean().item())
    assert np.mean(penalties) == pytest.approx(np.log(2), rel=1e-4)


def test_the_members_of_a_pair_share_their_noise_or_have_their_own(sd3_world):
    seen = {}
    for kind in ("shared", "independent"):
        objective = objective_of(sd3_world, family="sd3")
        objective.pair_noise = kind
        network = objective.prepare(torch.device("cpu"))
        network.register_forward_pre_hook(lambda _, x, named: seen.update(x=x[0], target=named["target"]), with_kwargs=True)
        objective.losses(network, [draw(1), draw(2)], means={})
        batch = objective._ready.data.batch([1, 2], device=torch.device("cpu"))
        # target = noise - x_0, so the noises follow from it.
        noise = seen["target"] + torch.cat([batch.winners, batch.losers])
        seen[kind] = noise
        assert torch.allclose(noise[:2], noise[2:], atol=1e-5) == (kind == "shared")
    assert torch.allclose(seen["shared"][:2], seen["independent"][:2], atol=1e-5)
