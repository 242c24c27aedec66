"""The whole loop at small size: every stage, hits, row reuse, what the jurors may see, and the datasets it leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from actors.executor import RayExecutor
from actors.media import encode_png
from infra.dag.plan import HIT, PARTIAL, CachePolicy, Planner
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.source import Sources
from infra.dag.stage import topological
from infra.store.artifacts import Store
from infra.store.files import Folder
from infra.store.garbage import Collector
from infra.store.runs import run_named
from infra.store.views import Database
from pipelines.miniature.family import MiniatureFamily
from pipelines.miniature.gallery import chosen, draw, newest
from pipelines.miniature.world.draw import SIZE
from pipelines.models.adapter import LoRA
from pipelines.models.generators.generator import Request
from pipelines.models.weights import Made
from pipelines.recipes.miniature import miniature
from pipelines.recipes.parts.steering import SteeredArms
from pipelines.schemas.evaluation import EvaluationSummary, GateReason
from pipelines.schemas.samples import Picture
from pipelines.schemas.training import Example
from pipelines.schemas.votes import Pair, Preference, Vote
from pipelines.stages.encode import Encode, Encoders
from pipelines.stages.pair import PairSamples
from pipelines.stages.render import Render
from pipelines.stages.tune import Tune
from tests.benchmarks.quiet import Quiet
from tests.support.places import NOWHERE

STAGES = ["prompts", "render", "pair", "judge", "label", "arena", "encode", "examples"]
STAGES += ["reward", "tune", "evaluate", "report", "gate"]
STAGES += [f"{name}[evaluation]" for name in ("render", "pair", "judge", "label", "score")]
SMALL = {"prompts": 12, "evaluation": 12, "policy_samples": 2, "steps": 3, "batch": 8, "reward_steps": 3, "zero": "0"}
SMALL |= {"tune_workers": 1, "workers": 2, "held_out": 0.3}


@pytest.fixture(scope="module")
def executor(ray_session):
    with RayExecutor(workers=2) as made:
        yield made


@pytest.fixture(scope="module")
def finished(executor, tmp_path_factory):
    """A store with one small run."""
    store = Store(tmp_path_factory.mktemp("miniature"))
    runner = Runner(store, executor, Quiet(), recipe="miniature", arguments=SMALL, name="first")
    outcomes = runner.run(miniature(**SMALL), Selection())
    return store, outcomes


def plans(store, **changed):
    planner = Planner(store, CachePolicy(), Sources(None))
    return {stage.node: planner.plan(stage) for stage in topological(miniature(**SMALL | changed))}


def stage(name, **changed):
    return next(s for s in topological(miniature(**SMALL | changed)) if s.node == name)


def test_every_stage_is_computed_and_then_hits(finished):
    store, outcomes = finished
    assert sorted(outcome.node for outcome in outcomes.values()) == sorted(STAGES)
    assert {plan.state for plan in plans(store).values()} == {HIT}


def test_train_and_evaluation_captions_are_disjoint_and_balanced(finished):
    store, _ = finished
    prompts = store.artifact(stage("prompts")).table(stage("prompts").row).to_pylist()
    split = {name: [p for p in prompts if p["split"] == name] for name in ("train", "evaluation")}
    assert not {p["text"] for p in split["train"]} & {p["text"] for p in split["evaluation"]}
    for rows in split.values():
        assert {sum(p["task"] == task for p in rows) for task in {p["task"] for p in rows}} == {2}


def test_nothing_is_rendered_or_learnt_from_evaluation_captions(finished):
    store, _ = finished
    prompts = store.artifact(stage("prompts")).table(stage("prompts").row).to_pylist()
    held_out = {p["id"] for p in prompts if p["split"] == "evaluation"}
    pictures = store.artifact(stage("render")).table(Picture, ["prompt_id", "generator", "sample"]).to_pylist()
    assert not held_out & {p["prompt_id"] for p in pictures}
    assert len({p["generator"] for p in pictures}) >= 4


def test_every_juror_sees_every_pair_in_both_orders(finished):
    store, _ = finished
    votes = store.artifact(stage("judge")).table(Vote).to_pylist()
    pairs = {vote["pair_id"] for vote in votes}
    jurors = {vote["juror"] for vote in votes}
    seen = {(vote["pair_id"], vote["juror"], vote["order"]) for vote in votes}
    assert len(jurors) >= 3 and seen == {(p, j, o) for p in pairs for j in jurors for o in ("ab", "ba")}
    assert len(votes) == len(seen) and all(vote["raw"] for vote in votes)


def test_jurors_are_never_shown_the_expectation(finished):
    store, _ = finished
    from infra.dag.compute import StoreInputs

    cells = stage("judge").cells(StoreInputs(store))
    assert "expectation" not in cells.column_names


def test_more_prompts_another_juror_and_another_generator_compute_only_new_cells(finished):
    store, _ = finished
    votes = store.artifact(stage("judge")).record.rows
    more = plans(store, prompts=18)
    assert more["render"].state == PARTIAL and more["render"].to_reuse == store.artifact(stage("render")).record.rows
    assert (more["judge"].to_reuse, more["judge"].to_do) == (votes, votes // 2)
    fewer = plans(store, jury=("idefics3-pointwise", "idefics3-fine"))
    assert (fewer["judge"].to_do, fewer["judge"].to_reuse) == (0, votes * 2 // 3)


def test_what_plan_predicts_is_what_run_does(finished, executor):
    store, _ = finished
    changed = {"prompts": 18}
    foreseen = plans(store, **changed)
    runner = Runner(store, executor, Quiet(), recipe="miniature", arguments=SMALL | changed, name="second")
    runner.run(miniature(**SMALL | changed), Selection(until="arena"))
    for name in ("prompts", "render", "pair", "judge", "label", "arena"):
        record = store.artifact(stage(name, **changed)).record
        assert record.computed_rows == foreseen[name].to_do, name
        assert record.rows == foreseen[name].rows, name


def test_preferences_name_both_pictures_and_examples_have_no_gap_where_no_arena_gives_one(finished):
    store, _ = finished
    preferences = store.artifact(stage("label")).table(Preference).to_pylist()
    assert {p["choice"] for p in preferences} <= {"a", "b", "tie"}
    arena = store.artifact(stage("arena"))
    gaps = store.artifact(stage("examples")).table(Example, ["gap"])["gap"]
    assert stage("examples").arena is None and gaps.null_count == len(gaps) > 0
    order = arena.table(stage("arena").tables["matches"], name="matches")["position"].to_pylist()
    assert order == list(range(len(order)))


def test_evaluation_has_intervals_for_every_measure_and_the_gates_word(finished):
    store, _ = finished
    evaluate = store.artifact(stage("evaluate"))
    rows = evaluate.table(EvaluationSummary).to_pylist()
    taught = {(row["measure"], row["dimension"]): row["trained_on"] for row in rows}
    held_out = {("checker", name): False for name in ("strict", "partial", "quality")}
    assert taught == held_out | {("reward", "overall"): True, ("jury", "overall"): True}
    assert all(row["low"] <= row["difference"] <= row["high"] for row in rows if row["n"])
    reasons = evaluate.table(GateReason, name="gate").to_pylist()
    assert reasons == store.artifact(stage("gate")).table(GateReason).to_pylist() and len(reasons) >= 3


def test_both_arms_render_the_held_out_captions_with_the_same_seeds(finished):
    store, _ = finished
    rows = store.artifact(stage("render[evaluation]")).table(Picture, ["generator", "prompt_id", "seed"]).to_pylist()
    seeds = {arm: {r["prompt_id"]: r["seed"] for r in rows if r["generator"] == arm} for arm in ("policy", "policy-tuned")}
    assert seeds["policy"] == seeds["policy-tuned"] and len(seeds["policy"]) == SMALL["evaluation"]


def test_the_readmes_query_goes_from_a_picture_of_the_gallery_to_its_votes_and_to_the_pairs_that_taught(finished):
    store, _ = finished
    page = (store.artifact(stage("report")).weights() / "report.html").read_text()
    picture = re.findall(r"<code>([0-9a-f]{32})</code></figcaption>", page)[1]
    query = re.search(r"```sql\n(WITH votes.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert query and "PICTURE" in query[1]
    names, found = Database(store, [run_named(store, "first")]).query(query[1].replace("PICTURE", picture))
    rows = [dict(zip(names, row, strict=True)) for row in found]
    pairs = store.artifact(stage("pair[evaluation]")).rows(Pair)
    shown = {pair.id for pair in pairs if picture in (pair.picture_a, pair.picture_b)}
    votes = [vote for vote in store.artifact(stage("judge[evaluation]")).rows(Vote) if vote.pair_id in shown]
    given = {(vote.juror, vote.order, vote.raw, vote.choice) for vote in votes}
    assert len(votes) == 6 and {(r["juror"], r["order"], r["raw"], r["choice"]) for r in rows} == given
    learnt = [example for example in store.artifact(stage("examples")).rows(Example) if not example.tie]
    assert {(r["winner"], r["loser"]) for r in rows} == {(example.winner, example.loser) for example in learnt}


def test_the_readmes_gallery_is_drawn_from_the_evaluations_tables(finished):
    store, _ = finished
    rows = newest(store.root)
    assert len(rows) == SMALL["evaluation"]
    sides = {row[side] for row in rows for side in ("base", "tuned")}
    pictures = store.artifact(stage("render[evaluation]")).rows(Picture)
    assert sides == {picture.image.bytes for picture in pictures}
    size = draw(chosen(rows)).size
    assert size == (12 * (4 * SIZE + 8) + 8, 2 * (4 * SIZE + 6 + 8) + 8)


def test_records_hold_lineage_libraries_and_weights(finished):
    store, _ = finished
    record = store.artifact(stage("tune")).record
    assert set(record.parents) == {"examples", "encode"} and "torch" in record.libraries
    assert any(file.name.endswith(".safetensors") for file in record.weights)
    assert not any(file.name.endswith((".bin", ".pt", ".pkl", ".ckpt")) for file in record.weights)
    json.dumps(record.identity)


def test_the_jurys_pairs_are_exported_as_it_judged_them(finished, tmp_path):
    from pipelines.exchange.judged import judged_of, write_judged
    from support.pairs import essence, read

    store, _ = finished
    pictures = {row.id: row.image.bytes for row in store.artifact(stage("render")).rows(Picture)}
    said = [
        (row.text, row.choice, row.generator_a, row.generator_b, pictures[row.picture_a], pictures[row.picture_b])
        for row in store.artifact(stage("label")).rows(Preference)
    ]
    for name in ("salon", "pickapic"):
        write_judged(judged_of(store, "first", None), tmp_path / name, format=name, renamed={})
        found, wrong = read(tmp_path / name, format=name)
        assert not wrong
        assert essence(found) == sorted(said)


def test_a_plain_duckdb_client_reads_the_files(finished):
    import duckdb

    store, _ = finished
    files = [str(store.directory(stage("judge")) / f.name) for f in store.artifact(stage("judge")).record.files]
    count = duckdb.read_parquet(files).aggregate("count(*)").fetchall()
    assert count == [(store.artifact(stage("judge")).record.rows,)]


def test_the_same_pictures_come_from_any_shard_size(finished, executor, tmp_path):
    store, _ = finished
    small = stage("render").model_copy(update={"shard_rows": 7})
    other = Store(tmp_path)
    Runner(other, executor, Quiet(), recipe="render").run(small, Selection())
    there = other.artifact(small).table(Picture).sort_by("id")
    here = store.artifact(stage("render")).table(Picture).sort_by("id")
    assert isinstance(there, pa.Table) and there.equals(here)


@pytest.mark.parametrize("steer", ["best_of_n", "stepwise", "flow_nrg"])
def test_the_trained_reward_steers_further_arms_and_is_part_of_their_identity(finished, executor, steer):
    store, _ = finished
    given = {"steering": SteeredArms(steer=steer, candidates=2)}
    shown = stage("render[evaluation]", **given)
    other = stage("render[evaluation]", **given, reward_steps=4)
    assert shown.key != other.key
    assert stage("render[evaluation]").key == stage("render[evaluation]", reward_steps=4).key
    Runner(store, executor, Quiet(), recipe="steered", name=steer).run(shown, Selection())
    pictures = store.artifact(shown).rows(Picture)
    by_arm = {}
    for row in pictures:
        by_arm.setdefault(row.generator, {})[row.prompt_id] = row.image.bytes
    ending = steer.replace("_", "-")
    assert set(by_arm) == {"policy", "policy-tuned", f"policy-{ending}", f"policy-tuned-{ending}"}
    assert {len(arm) for arm in by_arm.values()} == {SMALL["evaluation"]}
    assert by_arm["policy"] != by_arm[f"policy-{ending}"]
    assert stage("reward").key in {parent.key for parent in store.artifact(shown).record.parents.values()}


def test_what_stages_trained_renders_and_encodes_through_the_store_and_is_kept_with_what_used_it(finished, executor):
    store, _ = finished
    tune, prompts, encode = stage("tune"), stage("prompts"), stage("encode")
    options = {name: getattr(tune, name) for name in Tune.model_fields}
    adapter = Tune(**options | {"adapter": LoRA(), "label": "adapter"})
    policy = next(one for one in stage("render").roster if one.name == "policy")
    adapted = policy.tuned(Made(stage=adapter), adapter="lora", name="adapted")
    whole = policy.tuned(Made(stage=tune), adapter="full", name="whole")
    render = Render(prompts=prompts, roster=(policy, adapted, whole), splits=("evaluation",), label="made")
    encoders = Encoders(family=MiniatureFamily(weights=Made(stage=tune)))
    pairs = PairSamples(pictures=render, label="made")
    latents = Encode(pairs=pairs, pictures=render, encoders=encoders, buckets=encode.buckets, label="latents")
    Runner(store, executor, Quiet(), recipe="made", name="made").run(latents, Selection())

    pictures = store.artifact(render).rows(Picture)
    shown = {(row.prompt_id, row.generator): row.image.bytes for row in pictures}
    assert len(shown) == 3 * SMALL["evaluation"]
    folder = Folder(path=str(store.artifact(adapter).weights()))
    prompt = next(row for row in prompts_of(store) if row["split"] == "evaluation")
    seed = next(
        row.seed
        for row in store.artifact(render).rows(Picture)
        if (row.prompt_id, row.generator) == (prompt["id"], "adapted")
    )
    alone = policy.tuned(folder, adapter="lora").open("cpu", NOWHERE).pictures([Request(prompt["text"], seed)])
    assert encode_png(alone[0]).bytes == shown[prompt["id"], "adapted"]

    def parents(node):
        return {parent.key for parent in store.artifact(node).record.parents.values()}

    assert parents(render) == {prompts.key, tune.key, adapter.key} and parents(latents) == {pairs.key, render.key, tune.key}
    waste = {found.path for found in Collector(store, keep_runs=1).waste()}
    assert not waste & {store.directory(one) for one in topological(latents)}
    assert store.directory(stage("evaluate")) in waste


def prompts_of(store):
    return store.artifact(stage("prompts")).table(stage("prompts").row).to_pylist()
