"""The recipes for real generators, run whole on tiny ones: from files of pairs to weights that diffusers loads."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from actors.executor import RayExecutor
from infra.config import ConfigError
from infra.dag.compute import StoreInputs
from infra.dag.plan import HIT, MISS, CachePolicy, Foreseen, Planner
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.source import Sources
from infra.dag.stage import topological
from infra.store.artifacts import Store
from jobs.recipes import call_recipe
from pipelines.algorithms.preference.margin import Margin
from pipelines.recipes.arenapo import arenapo
from pipelines.recipes.flow_dpo_video import flow_dpo_video
from pipelines.recipes.parts.given import weights_of
from pipelines.recipes.parts.model import ClipModel, PictureModel
from pipelines.recipes.vipo_image import vipo_image
from pipelines.recipes.vipo_pickapic import vipo_pickapic
from pipelines.recipes.vipo_video import vipo_video
from pipelines.schemas.curves import Curve, by_metric, last_step
from pipelines.schemas.training import Example
from support.pair_files import pair, write_pairs
from support.tiny import write_tiny
from tests.benchmarks.quiet import Quiet

SMALL = {
    "steps": 2,
    "batch": 4,
    "workers": 2,
    "gpus": 0.0,
    "encode_workers": 2,
    "encode_gpus": 0.0,
    "micro_batch": 2,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def executor(ray_session):
    with RayExecutor(workers=2) as made:
        yield made


@pytest.fixture(scope="module")
def image_world(tmp_path_factory):
    """A tiny SD1.5, and pairs of which one differs in size, one picture is broken and one label is none."""
    root = tmp_path_factory.mktemp("image")
    rows = [pair(n) for n in range(10)] + [pair(10, size=(24, 40)), pair(11, size=(32, 32), other=(32, 64))]
    rows += [pair(12) | {"image_a": b"no picture"}, pair(13, choice="maybe"), pair(14, choice="tie")]
    write_pairs(root / "pairs", rows)
    write_tiny("sd15", root / "sd15")
    return root


def built(recipe, **flags):
    """The recipe's DAG as the command builds it."""
    return call_recipe(recipe, flags)


def settings(root, **changed):
    given = {"weights": str(root / "sd15"), "pairs": str(root / "pairs"), "side": 32, "zero": "1", "draws": 3, "alpha": "8"}
    return SMALL | given | {"preview_texts": ("a thing 1", "a castle"), "preview_every": 2} | changed


@pytest.fixture(scope="module")
def trained(executor, image_world, tmp_path_factory):
    """SFT, then Poly-DPO with cached reference errors, on two workers."""
    store = Store(tmp_path_factory.mktemp("store"))
    target = built(vipo_image, **settings(image_world))
    Runner(store, executor, Quiet(), recipe="vipo_image", name="first").run(target, Selection())
    return store, target


def node(target, name):
    return next(stage for stage in topological(target) if stage.node == name)


def test_bad_pairs_are_quarantined_each_with_its_reason(trained):
    store, target = trained
    reasons = {}
    for name in ("import", "import_labels", "examples"):
        errors = store.artifact(node(target, name)).directory / "errors.parquet"
        reasons[name] = pq.read_table(errors)["message"].to_pylist() if errors.exists() else []
    assert [message.split(": ")[:2] for message in reasons["import"]] == [
        ["pairs.parquet row 12", "image_a does not decode"]
    ]
    assert reasons["import_labels"] == [
        "pairs.parquet row 12: its picture a was not imported; the errors of the pictures say why",
        "pairs.parquet row 13: choice 'maybe' is none of a, b, tie",
    ]
    assert reasons["examples"] == []  # pairs of two shapes are trained on


def test_examples_are_bucketed_and_latents_are_of_their_shape(trained):
    from safetensors.torch import load

    store, target = trained
    examples = store.artifact(node(target, "examples")).table(Example).to_pylist()
    assert {(row["height"], row["width"]) for row in examples} >= {(32, 32)}
    encode = node(target, "encode")
    reader = store.artifact(encode).reader(encode.row)
    found = reader.take([examples[0]["winner"], examples[0]["prompt"]], ["tensors"])["tensors"].to_pylist()
    assert load(found[0])["latent"].shape == (4, examples[0]["height"] // 8, examples[0]["width"] // 8)


def test_both_trainings_leave_pipelines_cards_logs_and_previews(trained):
    from diffusers import StableDiffusionPipeline

    store, target = trained
    for name in ("tune[sft]", "tune[poly]"):
        artifact = store.artifact(node(target, name))
        weights = artifact.weights()
        pipe = StableDiffusionPipeline.from_pretrained(weights, local_files_only=True)
        assert isinstance(pipe.unet.conv_in.weight, torch.Tensor)
        card = (weights / "README.md").read_text()
        assert "import\\_labels" in card and "implicit\\_accuracy" in card
        assert (weights / "tracked" / "metrics.jsonl").read_text().count("\n") >= 2
        assert list((weights / "tracked").rglob("events.out.tfevents.*"))
        assert len(list((weights / "previews" / "000002").glob("*.png"))) == 2
        assert last_step(artifact.rows(Curve)) == 2


def test_the_second_training_starts_at_the_first_and_its_reference_is_cached(trained):
    store, target = trained
    curve = by_metric(store.artifact(node(target, "tune[poly]")).rows(Curve))
    # At its start the policy is its reference: -log(1/2) + alpha (1 - 1/2).
    assert curve["loss"][0].value == pytest.approx(np.log(2) + 4, abs=1e-3)
    assert "drift" not in curve and curve["error_drift"][0].value == pytest.approx(0, abs=1e-5)
    assert (
        store.artifact(node(target, "reference_errors")).record.rows
        == 3 * store.artifact(node(target, "examples")).record.rows
    )


def test_a_second_run_does_nothing_and_another_loss_reuses_everything_before_it(trained, image_world):
    store, target = trained
    plans = {plan.node: plan for plan in map(Planner(store, CachePolicy(), Sources(None)).plan, topological(target))}
    assert {plan.state for plan in plans.values()} == {HIT}
    other = topological(built(vipo_image, **settings(image_world, alpha="auto")))
    states = {plan.node: plan.state for plan in map(Planner(store, CachePolicy(), Sources(None)).plan, other)}
    assert {name for name, state in states.items() if state == MISS} == {"tune[poly]"}


def test_a_video_recipe_with_dimensions_trains_an_adapter(executor, tmp_path):
    from diffusers import WanPipeline

    rows = [pair(n, clip=3 + 2 * (n % 2), margin_VQ=1.0 - 2 * (n % 2), margin_TA=1.0 - 2 * (n % 2)) for n in range(6)]
    write_pairs(tmp_path / "pairs", rows)
    write_tiny("wan", tmp_path / "wan")
    given = {"weights": str(tmp_path / "wan"), "pairs": str(tmp_path / "pairs"), "side": 32, "frames": (9, 5)}
    target = built(flow_dpo_video, **SMALL | given | {"dimensions": ("VQ", "TA=2"), "workers": 1})
    store = Store(tmp_path / "store")
    Runner(store, executor, Quiet(), recipe="flow_dpo_video").run(target, Selection())
    examples = store.artifact(node(target, "examples")).table(Example).to_pylist()
    assert {row["frames"] for row in examples} == {5, 9}  # 3 and 5 frames at 8 per second are 6 and 10 at Wan's 16
    weights = store.artifact(target).weights()
    pipe = WanPipeline.from_pretrained(tmp_path / "wan", local_files_only=True)
    pipe.load_lora_weights(str(weights), local_files_only=True)
    config = pipe.transformer.peft_config["default_0"]
    assert (config.r, config.lora_alpha) == (64, 128)


def scored(count, **columns):
    """Pairs of clips whose own scores rise with their number, so that each side's differ."""
    own = {"score_a_VQ": lambda n: 0.5 * n, "score_b_VQ": lambda n: -0.25 * n}
    return [pair(n, clip=5) | {name: score(n) for name, score in own.items()} | columns for n in range(count)]


def test_reward_weighted_regression_trains_on_each_clips_own_score(executor, tmp_path):
    write_pairs(tmp_path / "pairs", scored(6))
    write_tiny("wan", tmp_path / "wan")
    given = {"weights": str(tmp_path / "wan"), "pairs": str(tmp_path / "pairs"), "side": 32, "frames": (5,)}
    given |= {"method": "rwr", "dimensions": ("VQ",), "workers": 1, "zero": "0", "batch": 6, "steps": 1}
    target = built(flow_dpo_video, **SMALL | given)
    store = Store(tmp_path / "store")
    Runner(store, executor, Quiet(), recipe="flow_dpo_video").run(target, Selection())
    own = np.array([[0.5 * n for n in range(6)], [-0.25 * n for n in range(6)]])
    standard = (own - own.mean()) / own.std()
    examples = store.artifact(node(target, "examples")).table(Example).to_pylist()
    found = [value for row in examples for value in (row["reward_winner"], row["reward_loser"])]
    assert sorted(found) == pytest.approx(sorted(standard.ravel()))
    # Eq. 9: the weight of a clip is the exponential of its own reward, not of its lead over the other one.
    weight = next(row.value for row in store.artifact(target).rows(Curve) if row.metric == "weight")
    assert weight == pytest.approx(np.minimum(np.exp(standard), 10).mean(), rel=1e-5)


def test_reward_weighted_regression_without_scores_is_refused_with_the_column_and_another_way(tmp_path):
    write_pairs(tmp_path / "pairs", [pair(n, clip=5, margin_VQ=1.0) for n in range(2)])
    given = {"pairs": str(tmp_path / "pairs"), "method": "rwr"}
    with pytest.raises(ConfigError, match="in VQ, which --method rwr needs; add columns score_a_VQ and score_b_VQ"):
        built(flow_dpo_video, **given, dimensions=("VQ",))
    with pytest.raises(ConfigError, match="score_a_overall"):
        built(flow_dpo_video, **given, overall=True)
    with pytest.raises(ConfigError, match="--scores labels: .*add --overall"):
        built(flow_dpo_video, **given, scores="labels")
    fitted = built(flow_dpo_video, **given, scores="labels", overall=True)
    assert fitted.examples.scores.name == "jury_scores"
    assert built(flow_dpo_video, method="rwr").examples.scores.name == "import_scores"  # plan works without pairs


def read_by(recipe, tmp_path, **flags):
    """Prompts of the pairs that a recipe learns from, as plan foresees them."""
    labels = next(s.labels for s in topological(built(recipe, **flags)) if s.name == "examples")
    return sorted(Foreseen(store=Store(tmp_path / "nothing")).table(labels)["text"].to_pylist())


def test_sd15_learns_without_the_subset_of_text_rendering_unless_asked_for(tmp_path):
    parts = ["Text_Rendering", "composition", "human", None]
    write_pairs(tmp_path / "pairs", [pair(n, prompt=str(part), subset=part) for n, part in enumerate(parts)])
    folder = {"pairs": str(tmp_path / "pairs")}
    assert read_by(vipo_image, tmp_path, **folder) == ["None", "composition", "human"]
    assert read_by(vipo_image, tmp_path, **folder, model="sdxl") == sorted(map(str, parts))
    assert read_by(vipo_image, tmp_path, **folder, exclude_subset=("none",)) == sorted(map(str, parts))
    assert read_by(vipo_image, tmp_path, **folder, exclude_subset=("human",)) == ["None", "Text_Rendering", "composition"]
    assert read_by(vipo_image, tmp_path, **folder, subset=("human", "text rendering")) == ["Text_Rendering", "human"]
    assert read_by(vipo_image, tmp_path, **folder, subset=("human", "composition"), exclude_subset=("composition",)) == [
        "human"
    ]
    with pytest.raises(ConfigError, match="subset 'humans': no pair of .* they have Text_Rendering, composition, human"):
        built(vipo_image, **folder, subset=("humans",))


@pytest.mark.parametrize(
    ("recipe", "model"),
    [(vipo_image, m) for m in get_args(PictureModel)]
    + [(vipo_video, m) for m in get_args(ClipModel)]
    + [(flow_dpo_video, "wan2.1-1.3b"), (arenapo, "sd15"), (arenapo, "sdxl")],
)
def test_every_recipe_is_planned_without_weights_or_pairs(recipe, model, tmp_path):
    stages = topological(recipe(model=model))
    plans = [Planner(Store(tmp_path), CachePolicy(), Sources(None)).plan(stage) for stage in stages]
    for plan in plans:
        assert plan.rows is None if plan.stage in ("arena", "tune") else plan.rows > 0
    assert all("GiB per rank" in plan.demand for plan in plans if plan.stage == "tune")


def told(recipe, tmp_path, **flags):
    """What plan says of the trainings, without GPUs and memory."""
    planner = Planner(Store(tmp_path / "empty"), CachePolicy(), Sources(None))
    plans = [planner.plan(stage) for stage in topological(built(recipe, **flags))]
    return [plan.demand.split("; ")[0] for plan in plans if plan.stage == "tune"]


def test_plan_says_how_many_epochs_a_training_is_and_warns_above_ten(tmp_path):
    assert told(vipo_image, tmp_path) == ["8000 steps, about 5.1 epochs"] * 2  # of 800,000 pairs, by 512
    write_pairs(tmp_path / "pairs", [pair(n) for n in range(12)])
    given = {"pairs": str(tmp_path / "pairs"), "batch": 6, "workers": 2}
    assert told(vipo_image, tmp_path, **given, steps=20) == ["20 steps, about 10.0 epochs"] * 2
    many = told(vipo_image, tmp_path, **given, steps=21)
    assert many == ["21 steps, about 10.5 epochs, which is many: above 10, tuning is known to deteriorate"] * 2
    assert told(vipo_image, tmp_path, **given, epochs=3) == ["6 steps, about 3.0 epochs"] * 2


def test_log_and_card_say_how_many_epochs_a_training_was(trained):
    store, target = trained
    artifact = store.artifact(node(target, "tune[poly]"))
    counted = store.artifact(node(target, "examples")).table(Example)["tie"].to_pylist().count(False)
    epochs = 2 * 4 / counted
    assert artifact.record.metrics["epochs"] == pytest.approx(epochs, abs=0.01)
    assert f"2 steps, {epochs:.1f} epochs" in (artifact.weights() / "README.md").read_text()
    # Once the examples are there they are counted; the run's log has this line.
    assert node(target, "tune[poly]").demand(StoreInputs(store)).startswith(f"2 steps, {epochs:.1f} epochs; ")


def test_pairs_that_keep_their_own_shapes_are_reckoned_by_their_area(tmp_path):
    tune = vipo_video(model="wan2.1-14b", adapter="lora")
    rank = float(tune.demand(Foreseen(store=Store(tmp_path))).split(" GiB per rank")[0].split()[-1])
    assert rank > 100  # 81 frames of 720p: 75,600 tokens of each member


def test_the_papers_settings_are_the_recipes():
    def trained_by(recipe, **flags):
        return {s.label: s for s in topological(recipe(**flags)) if s.name == "tune"}

    vipo = trained_by(vipo_image, model="sd3.5-medium")
    assert (vipo["sft"].trainer.steps, vipo["sft"].trainer.batch) == (4000, 2048)
    assert vipo["sft"].trainer.learning_rate == pytest.approx(2.048e-5)
    assert vipo["poly"].trainer.learning_rate == pytest.approx(2.56e-6)
    assert (vipo["poly"].method.beta, vipo["poly"].start) == (500.0, vipo["sft"])
    assert trained_by(vipo_image, model="sdxl")["poly"].method.beta == 1000
    noisy = trained_by(vipo_pickapic)["poly"]
    assert (noisy.trainer.steps, noisy.trainer.batch, noisy.method.polynomial.alpha) == (4500, 512, 8.0)
    assert noisy.trainer.learning_rate == pytest.approx(2.048e-6) and noisy.start is None
    assert (noisy.caption_dropout, noisy.trainer.optimizer.weight_decay, noisy.trainer.warm_up) == (0.2, 0.01, 500)
    assert noisy.flips and noisy.examples.encoded.buckets.only == (1, 512, 512)
    video = trained_by(flow_dpo_video)["flow_dpo"]
    assert (video.adapter.rank, video.adapter.alpha, video.trainer.batch, video.method.beta) == (64, 128, 64, 500)
    assert video.trainer.learning_rate == 5e-6
    assert video.trainer.epochs == 1 and video.trainer.resolved(5000).steps == 78
    assert json.dumps(video.description)


def tuning(**flags):
    return next(s for s in topological(built(arenapo, **flags)) if s.name == "tune")


def test_arenapo_has_the_rate_and_the_optimiser_of_the_public_launchers_and_the_printed_rate_as_an_option():
    small, large = tuning(), tuning(model="sdxl")
    assert [one.trainer.learning_rate for one in (small, large)] == pytest.approx([2.048e-5] * 2)
    assert (small.method.beta, large.method.beta) == (5000.0, 5000.0)
    assert (small.trainer.warm_up, large.trainer.warm_up) == (500, 200)
    assert (small.trainer.optimizer.kind, small.trainer.engine.kind, small.trainer.engine.zero) == ("adamw", "deepspeed", 2)
    assert (large.trainer.optimizer.kind, large.trainer.engine.kind) == ("adafactor", "torch")
    assert tuning(batch=64).trainer.learning_rate == pytest.approx(64e-8)
    assert tuning(rate="paper").trainer.learning_rate == pytest.approx(8.192e-9)
    assert tuning(rate="paper", beta=2000).trainer.learning_rate == pytest.approx(2.048e-8)
    assert tuning(learning_rate=1e-6, adapter="lora", rank=8).trainer.learning_rate == 1e-6
    assert tuning(adapter="lora", rank=8).adapter.alpha == 16


def test_arenapo_has_the_data_side_of_the_public_launchers_in_every_form():
    for one in (tuning(), tuning(model="sdxl"), tuning(form="sft"), tuning(form="dspo", gap=None)):
        assert (one.caption_dropout, one.flips, one.trainer.optimizer.weight_decay) == (0.2, True, 0.01)
        assert one.examples.encoded.flips and one.examples.encoded.buckets.ratio == 1
    assert not tuning(flips=False).flips and not tuning(flips=False).examples.encoded.flips
    errors = tuning(draws=4).errors
    assert (errors.caption_dropout, errors.flips) == (0.2, True)


def test_a_uniform_margin_replaces_the_gap_and_not_the_product():
    assert tuning(gap=2.0, scale=0.1).method.margin == Margin(scale=0.1, gap=2.0)
    assert tuning(gap=2.0).examples.arena is None and tuning().examples.arena is not None
    assert tuning(gap=None).method.margin == Margin() and tuning(gap=None).examples.arena is None


def test_a_margin_of_rewards_is_made_of_the_scores_that_pairs_carry(tmp_path):
    assert tuning(gap="reward").examples.scores.name == "import_scores" and tuning(gap="reward").examples.arena is None
    write_pairs(tmp_path / "pairs", [pair(n) for n in range(2)])
    with pytest.raises(ConfigError, match="add columns score_a_overall and score_b_overall"):
        tuning(gap="reward", pairs=str(tmp_path / "pairs"))


@pytest.mark.parametrize("form", ["sft", "mapo", "diffusion_dpo", "dspo", "sdpo", "kto"])
def test_every_baseline_is_planned_at_the_budget_of_arenapo(form, tmp_path):
    stages = topological(built(arenapo, form=form))
    assert stages[-1].trainer == tuning().trainer and stages[-1].label == form
    assert all(Planner(Store(tmp_path), CachePolicy(), Sources(None)).plan(stage) for stage in stages)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"form": "mapo", "gap": 2.0}, "--gap 2.0: mapo has no margin"),
        ({"form": "sft", "beta": 5.0}, "--beta 5: sft has no beta"),
        ({"form": "kto", "dspo_sums": True}, "choose --form dspo"),
        ({"rank": 8}, "--rank 8: all weights are trained"),
        ({"model": "sdxl", "zero": "2"}, "--zero 2: adafactor needs whole parameters"),
    ],
)
def test_what_means_nothing_for_a_form_is_refused_with_the_remedy(flags, message):
    with pytest.raises(ConfigError, match=message):
        built(arenapo, **flags)


def test_arenapo_rates_known_generators_and_takes_a_step_with_its_margins(executor, tmp_path):
    known = [{"generator_a": "x", "generator_b": "y"}, {"generator_a": "y", "generator_b": "x"}]
    rows = [pair(n) | (known[n % 2] if n % 3 else {"generator_a": "unknown"}) for n in range(12)]
    write_pairs(tmp_path / "pairs", rows)
    write_tiny("sd15", tmp_path / "sd15")
    store = Store(tmp_path / "store")
    given = {"weights": str(tmp_path / "sd15"), "pairs": str(tmp_path / "pairs"), "side": 32, "optimizer": "adafactor"}
    target = built(arenapo, **SMALL | given | {"steps": 1, "workers": 1, "adapter": "lora", "rank": 2})
    Runner(store, executor, Quiet(), recipe="arenapo").run(target, Selection())
    gaps = [row["gap"] for row in store.artifact(node(target, "examples")).table(Example).to_pylist()]
    assert sum(gap is None for gap in gaps) == 4 and min(gap for gap in gaps if gap is not None) > 0
    row = {one.metric: one.value for one in store.artifact(target).rows(Curve)}
    # At its start the policy is its reference: the loss of a pair is ln(1 + exp(margin)), its margin c times its gap.
    losses = np.log1p(np.exp(0.1 * np.array([gap or 0.0 for gap in gaps])))
    assert losses.min() <= row["loss"] <= losses.max() and row["loss"] > np.log(2)
    assert row["gradient_norm"] > 0


def test_a_smaller_batch_takes_a_smaller_rate():
    run = next(s for s in topological(built(vipo_video, batch=64)) if s.name == "tune")
    assert run.trainer.learning_rate == pytest.approx(64 * 1e-8)
    unscaled = next(s for s in topological(built(flow_dpo_video, batch=8, workers=8)) if s.name == "tune")
    assert unscaled.trainer.learning_rate == 5e-6  # VideoAlign's table has no base rate


def test_videos_keep_the_shapes_that_the_models_take():
    own = next(s for s in topological(vipo_video()) if s.name == "encode").buckets
    assert own.shape(720, 1280) == (720, 1280) and own.shape(1024, 1024) == (1024, 1024)
    small = next(s for s in topological(flow_dpo_video()) if s.name == "encode").buckets
    assert small.shape(480, 832) == (480, 832) and small.rate == 16.0


def test_weights_of_dimensions_are_named_when_they_are_none():
    assert weights_of(("VQ", "TA=2.5")) == {"VQ": 1.0, "TA": 2.5}
    with pytest.raises(ConfigError, match="'TA=high' is not NAME or NAME=WEIGHT"):
        weights_of(("TA=high",))


def test_dimensions_that_no_pair_has_are_refused_when_the_recipe_is_built(tmp_path):
    write_pairs(tmp_path / "some", [pair(n, margin_VQ=1.0 if n else None) for n in range(3)])
    write_pairs(tmp_path / "none", [pair(0)])
    assert built(flow_dpo_video, pairs=str(tmp_path / "some"), dimensions=("VQ", "TA=0"))
    with pytest.raises(ConfigError, match=r"--dimensions TA, XX: no pair of .*/some has a margin in it; they have VQ"):
        built(flow_dpo_video, pairs=str(tmp_path / "some"), dimensions=("VQ", "XX", "TA"))
    with pytest.raises(ConfigError, match=r"--dimensions VQ: .*they have none; learn from the overall label \(--overall\)"):
        built(flow_dpo_video, pairs=str(tmp_path / "none"), dimensions=("VQ",))


def test_only_the_training_that_has_a_reference_caches_its_errors():
    tuned = {s.label: s for s in topological(built(vipo_image, draws=3)) if s.name == "tune"}
    assert (tuned["sft"].errors, tuned["poly"].errors.draws) == (None, 3)


def test_pairs_and_weights_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such folder, and no hub id"):
        built(vipo_image, weights=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="no such folder"):
        topological(built(vipo_image, pairs=str(tmp_path / "nothing")))[0].key  # noqa: B018


@pytest.mark.parametrize("zero", ["0", "3"])
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_cached_errors_and_bf16_go_together_whatever_trains(image_world, zero, adapter):
    given = settings(image_world, precision="bf16", zero=zero, adapter=adapter)
    target = built(vipo_image, **given)
    errors = node(target, "reference_errors")
    assert errors.arithmetic == target.arithmetic and errors.arithmetic.autocast
    assert errors.arithmetic.converted == (zero == "3")
