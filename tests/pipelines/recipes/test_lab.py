"""The laboratory at its smallest: two contenders, two noise levels; what it computes, takes over, and writes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from actors.executor import RayExecutor
from infra.config import ConfigError
from infra.dag.compute import StoreInputs
from infra.dag.plan import HIT, PARTIAL, CachePolicy, Foreseen, Planner
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.source import Sources
from infra.dag.stage import topological
from infra.store.artifacts import Store
from jobs.arguments import Parser, build
from pipelines.laboratory.contenders import BASE
from pipelines.laboratory.data import with_gaps
from pipelines.laboratory.rows import ClaimVerdict, KnownStrength, Trial
from pipelines.laboratory.trials import captions_key
from pipelines.miniature.world.grammar import split_of
from pipelines.recipes.lab import BUDGET, claims, contenders, lab, roster
from pipelines.schemas.prompts import Prompt
from pipelines.schemas.training import Example
from tests.benchmarks.quiet import Quiet

SMALL = {"methods": ("dpo", "sft"), "noises": (0.0, 0.3), "seeds": 1, "candidates": 2, "steps": 2, "batch": 4}
SMALL |= {"prompts": 6, "tuning": 6, "evaluation": 6}
CELLS = 4  # contenders x noise levels


@pytest.fixture(scope="module")
def finished(ray_session, tmp_path_factory):
    """A store with one small run."""
    store = Store(tmp_path_factory.mktemp("lab"))
    with RayExecutor(workers=2) as executor:
        runner = Runner(store, executor, Quiet(), recipe="lab", arguments=SMALL, name="first")
        runner.run(lab(**SMALL), Selection())
    return store


def stage(name: str, **changed: Any) -> Any:
    return next(one for one in topological(lab(**SMALL | changed)) if one.name == name)


def plans(store, **changed):
    planner = Planner(store, CachePolicy(), Sources(None))
    return {one.node: planner.plan(one) for one in topological(lab(**SMALL | changed))}


def test_a_trial_for_every_noise_level_and_seed_tries_every_setting_and_one_is_the_base(finished):
    rows = finished.artifact(stage("trials")).table(Trial).to_pylist()
    assert len(rows) == CELLS + 1 and {plan.state for plan in plans(finished).values()} == {HIT}
    assert all(len(row["strict"]) == 6 and not row["diverged"] and not row["failed"] for row in rows)
    for row in rows:
        assert len(row["tried"]) == (0 if row["contender"] == BASE else 2)
        assert not row["tried"] or row["tried"][row["candidate"]] == max(row["tried"])


def test_another_method_or_seed_computes_its_own_trials_only(finished):
    more = plans(finished, methods=("dpo", "sft", "rwr"))["trials"]
    assert (more.state, more.to_reuse, more.to_do) == (PARTIAL, CELLS + 1, 2)
    again = plans(finished, seeds=2)["trials"]
    assert (again.to_reuse, again.to_do) == (CELLS + 1, CELLS)


def test_tuning_captions_are_neither_rendered_nor_held_out(finished):
    prompts = finished.artifact(stage("prompts")).table(Prompt, ["text"])["text"].to_pylist()
    shown = [one.text for one in stage("trials").tuning_captions()]
    assert len(set(shown)) == 6 and not set(shown) & set(prompts)
    assert {split_of(text) for text in shown} == {"train"}


def test_a_trial_run_again_is_the_same_row(finished):
    inputs = StoreInputs(finished)
    trials = stage("trials")
    cells = trials.cells(inputs).filter(trials.cells(inputs).column("contender").to_numpy(zero_copy_only=False) == "dpo")
    worker = trials.worker(inputs)
    worker.open("cpu", inputs)
    rows = {row.id: row for row in finished.artifact(trials).rows(Trial)}
    again = worker.run(cells.slice(0, 1))[0]
    assert again == rows[again.id] and again.pairs > 0


def test_settings_that_diverge_are_not_chosen_and_a_trial_of_none_else_says_so(finished):
    inputs = StoreInputs(finished)
    trials = stage("trials")
    cell = next(row for row in trials.cells(inputs).to_pylist() if row["contender"] == "sft")
    phases = json.loads(cell["candidates"])[0]
    wild = [phases[0] | {"learning_rate": 1e30}]
    worker = trials.worker(inputs)
    worker.open("cpu", inputs)
    row = worker._trial(cell | {"candidates": json.dumps([wild, phases]), "steps": 4})
    assert (row.candidate, row.failed, row.diverged, row.tried[0]) == (1, 1, "", 0.0)
    row = worker._trial(cell | {"candidates": json.dumps([wild, wild]), "steps": 4})
    assert row.failed == 2 and "not a finite number" in row.diverged
    assert sum(row.strict) == sum(row.partial) == sum(row.quality) == 0


def test_gaps_of_unflipped_labels_are_the_arenas_own(finished):
    examples = stage("examples")
    table = finished.artifact(examples).table(Example)
    played = with_gaps(table, arena=examples.arena)
    assert played["gap"].to_pylist() == pytest.approx(table["gap"].to_pylist())
    assert all((gap is None) == tie for gap, tie in zip(table["gap"].to_pylist(), table["tie"].to_pylist(), strict=True))


def test_verdicts_come_with_intervals_budgets_known_strengths_and_a_figure_each(finished):
    made = stage("claims")
    artifact = finished.artifact(made)
    rows = list(artifact.rows(ClaimVerdict))
    assert {row.claim for row in rows} == {"dpo-base", "dpo-sft"} and len(rows) == 2 * 2 * 3
    assert all(row.low <= row.difference <= row.high and row.captions == 6 for row in rows)
    strengths = list(artifact.rows(KnownStrength, name="roster"))
    assert len(strengths) == len(roster()) >= 8
    assert [s.strict for s in strengths] == sorted((s.strict for s in strengths), reverse=True)
    folder = artifact.weights()
    page = (folder / "lab.html").read_text()
    assert "every contender tries 2 settings" in page and "http" not in page.replace("http-equiv", "")
    for claim in made.claims:
        assert ET.parse(folder / f"claim-{claim.name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert f"claim-{claim.name}.svg" in (folder / "lab.md").read_text()


def test_every_contender_has_the_same_budget_and_every_claim_its_contenders():
    compared = {one.name: one for one in contenders((0.0, 0.15, 0.3))}
    assert {len(one.candidates) for one in compared.values()} == {BUDGET}
    for claim in claims((0.0, 0.15, 0.3)):
        for side in {claim.better, claim.worse} - {BASE}:
            assert set(claim.noises) <= set(compared[side].noises)
    by_length = {one.name: one.length for one in compared.values()}
    assert by_length["dpo-long"] == by_length["decaying-long"] > by_length["dpo"] == by_length["decaying"]


def test_plan_says_how_long_it_takes_and_the_defaults_keep_to_their_time(tmp_path):
    nothing = Foreseen(store=Store(tmp_path))
    whole, quick = lab(), lab(quick=True)
    for made, most in ((whole, 60), (quick, 8)):
        minutes = float(made.demand(nothing).split("about ")[1].split(" min")[0])
        assert 0 < minutes <= most and "2 idle cores" in made.demand(nothing)
    assert whole.trials.expected_seconds() == pytest.approx(2 * lab(workers=4).trials.expected_seconds())


def test_quick_is_a_flag_and_an_unknown_method_is_named():
    _, target, values = build(Parser(), ["lab", "--quick", "--methods", "dpo,sft"])
    assert values == {"quick": True, "methods": ("dpo", "sft")}
    assert target.key == lab(quick=True, methods=("dpo", "sft")).key
    with pytest.raises(ConfigError, match="unknown name 'ppo'"):
        lab(methods=("ppo",))


def test_captions_are_known_by_their_order(finished):
    shown = stage("trials").held_out(StoreInputs(finished))
    assert captions_key(shown) != captions_key(shown[::-1])
