"""Tuning: what is exported is what was trained, and what cannot be trained is refused before anything is computed."""

import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from actors.training.engines.engine import EngineOptions
from actors.training.launch import here
from actors.training.options import TrainerOptions
from actors.training.trainer import read_curve, train
from infra.config import ConfigError
from infra.dag.plan import Foreseen
from infra.store.artifacts import Store
from pipelines.algorithms.preference.confidence import SoftLabels, WeightedLabels
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.dspo import DSPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.margin import Margin
from pipelines.miniature.pipeline import load_pipeline
from pipelines.models.adapter import Full, LoRA
from pipelines.models.card import summary
from pipelines.models.sizes import ARCHITECTURES
from pipelines.models.weights import Hub
from pipelines.schemas.curves import curve_rows
from pipelines.stages.encode import Encode, Encoders
from pipelines.stages.examples import Examples
from pipelines.stages.imported import ImportedLabels, ImportedPictures, ImportedScores, PairFiles
from pipelines.stages.reference_errors import ReferenceErrors
from pipelines.stages.tune import Tune
from pipelines.training.arithmetic import Arithmetic
from pipelines.training.previews import Previews
from support.tiny import KINDS, family_at, write_tiny
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
        trained = job.objective._ready.policy.loaded.pipeline
        assert torch.equal(velocities(tuned.transformer, tuned), velocities(trained.transformer, tuned))


def test_a_reloaded_pipeline_is_the_fully_trained_policy(world, tmp_path):
    job = training(world, adapter=Full(), engine=TORCH)
    export = here(train, job, folder=tmp_path, on_report=None) / "export"
    assert not [path for path in export.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    tuned, trained = load_pipeline(export), job.objective._ready.policy.loaded.pipeline
    assert torch.equal(velocities(tuned.transformer, tuned), velocities(trained.transformer, tuned))


def test_the_winner_gains_on_the_loser(world, tmp_path):
    options = {"steps": 60, "batch": 24, "checkpoint_every": 60, "learning_rate": 1e-3}
    job = training(world, adapter=Full(), engine=TORCH, options=options)
    curve = read_curve(here(train, job, folder=tmp_path, on_report=None))
    assert np.mean([row["loss"] for row in curve[-10:]]) < 0.55 < np.log(2)
    assert np.mean([row["implicit_accuracy"] for row in curve[-10:]]) > 0.8


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("generators")
    return {name: write_tiny(name.split("-")[0], root / name, seed=len(name)) for name in ("sd15", "sd3", "sd15-other")}


def nodes(folder, *, family="sd15", texts=()):
    pictures = ImportedPictures(source=PairFiles())
    encoders = Encoders(family=family_at(family, folder))
    labels = ImportedLabels(pictures=pictures)
    return Examples(labels=labels, encoded=Encode(pairs=labels, pictures=pictures, encoders=encoders, texts=texts))


def tune(folder, *, family="sd15", examples=None, **options):
    chosen = {"method": DiffusionDPO(), "trainer": TrainerOptions(steps=2, engine=TORCH)} | options
    return Tune(examples=examples or nodes(folder, family=family), policy=family_at(family, folder), **chosen)


def test_a_generator_of_another_family_is_refused_when_the_recipe_is_built(folders):
    with pytest.raises(ConfigError, match="StableDiffusion3Pipeline"):
        tune(folders["sd3"], family="sd15", examples=nodes(folders["sd15"]))


def test_a_method_for_other_predictions_is_refused_with_the_right_one(folders):
    node = tune(folders["sd15"], method=FlowDPO())
    with pytest.raises(
        ConfigError, match="flow_dpo trains generators that predict flow; .* predicts epsilon; use diffusion_dpo"
    ):
        node._check_weights(SimpleNamespace())


def test_latents_of_another_vae_are_refused(folders):
    node = tune(folders["sd15"], examples=nodes(folders["sd15-other"]))
    with pytest.raises(ConfigError, match="the latents are by the VAE of .*run encode with the policy's own weights"):
        node._check_weights(SimpleNamespace())
    tune(folders["sd15"])._check_weights(SimpleNamespace())


@pytest.mark.parametrize("confidence", [SoftLabels(), WeightedLabels()])
def test_soft_labels_on_labels_without_a_probability_are_refused_when_the_recipe_is_built(folders, confidence):
    with pytest.raises(ConfigError, match="agree is no probability; use the panel `calibrated`"):
        tune(folders["sd15"], method=DiffusionDPO(confidence=confidence))


class TableOf:
    """A context with one table."""

    def __init__(self, rows):
        self.rows = rows

    def table(self, parent):
        return pa.Table.from_pylist(self.rows)


def test_a_margin_of_rewards_on_examples_without_rewards_is_refused_before_training(folders):
    method = DiffusionDPO(margin=Margin(scale=1.0, gap="reward"))
    with pytest.raises(ConfigError, match="a margin of gap `reward` and method rwr need a reward of every picture"):
        tune(folders["sd15"], method=method)
    examples = nodes(folders["sd15"])
    scored = examples.model_copy(update={"scores": ImportedScores(pictures=examples.labels.shown)})
    node = tune(folders["sd15"], method=method, examples=scored)
    rows = [{"tie": False, "reward_winner": 0.5, "reward_loser": one} for one in (None, 0.1)]
    with pytest.raises(ConfigError, match="1 of 2 examples have no reward_loser.*or choose gap `arena`"):
        node._examples(TableOf(rows))
    assert node._examples(TableOf(rows[1:])).num_rows == 1


def errors_of(folder, **options):
    return ReferenceErrors(examples=nodes(folder), policy=family_at("sd15", folder), draws=4, **options)


def test_cached_errors_must_be_of_the_same_draws_and_enough_for_the_method(folders):
    errors = errors_of(folders["sd15"])
    assert tune(folders["sd15"], errors=errors, draws=4).reference_kind == "cached"
    with pytest.raises(ConfigError, match="tune: draws = 8, but the cached errors have 4; make them agree"):
        tune(folders["sd15"], errors=errors, draws=8)
    with pytest.raises(ConfigError, match="tune: draws_seed = 1, but the cached errors have 0"):
        tune(folders["sd15"], errors=errors, draws=4, draws_seed=1)
    half = TrainerOptions(steps=2, engine=EngineOptions(kind="torch", bf16=True))
    with pytest.raises(ConfigError, match="tune: arithmetic = .*autocast=True.*but the cached errors have"):
        tune(folders["sd15"], errors=errors, draws=4, trainer=half)
    with pytest.raises(ConfigError, match="dspo needs the reference's predictions, not its errors"):
        tune(folders["sd15"], errors=errors, draws=4, method=DSPO())


def test_errors_of_a_base_in_another_precision_are_refused_and_both_named(folders):
    whole, four = (errors_of(folders["sd15"], arithmetic=Arithmetic(base=base)) for base in ("unquantised", "nf4"))
    assert whole.key != four.key
    known = tune(folders["sd15"], errors=four, draws=4, base_precision="nf4")
    assert known.reference_kind == "cached" and known.key != tune(folders["sd15"]).key
    message = "base_precision is {}, but the cached reference errors are of a base that is {}"
    for errors, wanted, had in ((whole, "nf4", "unquantised"), (four, "unquantised", "nf4")):
        with pytest.raises(ConfigError, match=message.format(wanted, had)):
            tune(folders["sd15"], errors=errors, draws=4, base_precision=wanted)


def test_a_quantised_base_is_neither_trained_in_full_nor_divided(folders):
    with pytest.raises(ConfigError, match="base precision nf4: quantised weights are frozen"):
        tune(folders["sd15"], adapter=Full(), base_precision="nf4")
    with pytest.raises(ConfigError, match="base precision nf4: quantised weights are frozen"):
        errors_of(folders["sd15"], arithmetic=Arithmetic(base="nf4"), merged=True)
    divided = TrainerOptions(steps=2, engine=EngineOptions(zero=3))
    with pytest.raises(ConfigError, match="ZeRO 3 cannot divide quantised weights.*use ZeRO 1 or 2"):
        tune(folders["sd15"], trainer=divided, base_precision="nf4")


def test_what_a_family_cannot_do_is_refused_when_the_recipe_is_built(folders):
    given = {"examples": nodes(folders["sd15"], texts=("a cat",)), "method": FlowDPO()}
    with pytest.raises(ConfigError, match="ComfyUI has other layers than hunyuanvideo in diffusers"):
        Tune(policy=KINDS["hunyuanvideo"](weights=Hub(repo="owner/name")), comfyui=True, **given)
    drawn = {"trainer": TrainerOptions(steps=2, preview_every=1), "previews": Previews(texts=("a cat",))}
    with pytest.raises(ConfigError, match="wan-i2v starts from a first frame, which a preview lacks"):
        Tune(policy=KINDS["wan-i2v"](weights=Hub(repo="owner/name")), **drawn, **given)


def test_texts_to_preview_must_be_encoded(folders):
    with pytest.raises(ConfigError, match="the preview text 'a cat' is not encoded; add it to encode's texts"):
        tune(folders["sd15"], previews=Previews(texts=("a cat",)))
    with pytest.raises(ConfigError, match=r"preview_every is set but previews\.texts is empty"):
        tune(folders["sd15"], trainer=TrainerOptions(steps=2, preview_every=1))
    tune(folders["sd15"], previews=Previews(texts=("a cat",)), examples=nodes(folders["sd15"], texts=("a cat",)))


def test_adapter_keys_of_a_whole_pipeline_are_refused(folders):
    with pytest.raises(ConfigError, match="comfyui writes an adapter under other keys, and none is trained"):
        tune(folders["sd15"], comfyui=True, adapter=Full())


def test_where_it_runs_and_what_it_shows_is_no_part_of_its_key(folders):
    plain = tune(folders["sd15"])
    assert plain.key == tune(folders["sd15"], checkpointing=True, architecture=ARCHITECTURES["sd15"]).key
    assert plain.key != tune(folders["sd15"], method=DiffusionDPO(beta=1.0)).key
    assert plain.key != tune(folders["sd15"], start=plain).key


def test_memory_is_reckoned_for_a_published_size(folders, tmp_path):
    nothing = Foreseen(store=Store(tmp_path))
    known = tune(folders["sd15"], architecture=ARCHITECTURES["sd15"], adapter=Full())
    assert "GiB per rank" in known.demand(nothing)
    assert "GiB" not in tune(folders["sd15"]).demand(nothing)


def test_the_card_compares_the_ends_of_the_curve():
    log = [{"step": n + 1, "loss": 1.0 - 0.1 * n, "winner_error": 1.0, "late": 2.0 if n else None} for n in range(10)]
    rows = {row["training metric"]: row for row in summary(list(curve_rows(log)))}
    assert rows["loss"]["first tenth"] == 1.0 and rows["loss"]["last tenth"] == pytest.approx(0.1)
    assert rows["winner_error"]["steps"] == 10 and set(rows) == {"loss", "winner_error"}


def test_every_family_names_what_an_adapter_changes():
    for kind in KINDS.values():
        assert "to_q" in kind.lora_targets


def test_broken_weights_are_refused_before_anything_is_imported_or_encoded(folders, tmp_path):
    shutil.copytree(folders["sd15"], tmp_path / "policy")
    (weights,) = (tmp_path / "policy" / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    node = tune(tmp_path / "policy")
    for stage in (node, node.examples.encoded):
        with pytest.raises(ConfigError, match="is cut off or damaged"):
            stage.require_here()
    tune(folders["sd15"]).require_here()
