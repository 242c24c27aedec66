"""The law of the cache, over recipes: after any other run, a run leaves the bytes that it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from infra.dag.stage import Stage, topological
from infra.store.artifacts import Store
from jobs.recipes import call_recipe
from pipelines.recipes.arenapo import arenapo
from pipelines.recipes.flow_dpo_video import flow_dpo_video
from pipelines.recipes.miniature import miniature
from pipelines.recipes.vipo_image import vipo_image
from support.cache_law import content, copied, differing, only, run_alone
from support.pair_files import pair, write_pairs
from support.tiny import write_tiny

SMALL = {"prompts": 6, "evaluation": 6, "policy_samples": 2, "steps": 2, "batch": 4, "reward_steps": 2}
SMALL |= {"zero": "0", "tune_workers": 1, "workers": 1, "held_out": 0.3}
OFFLINE = {
    "encode_gpus": 0.0,
    "steps": 2,
    "batch": 4,
    "workers": 1,
    "gpus": 0.0,
    "micro_batch": 2,
    "precision": "fp32",
    "side": 32,
}
FLAGS = [
    {"policy_samples": 3},
    {"prompts": 12},
    {"seed": 1},
    {"guidance": 2.0},
    {"roster": ("policy", "late")},
    {"sources": ("policy", "late")},
    {"other_pairs": 1},
]


def until(target: Stage, name: str) -> Stage:
    """The stage with that name, which stands for everything before it."""
    return next(stage for stage in topological(target) if stage.name == name)


def small(last: str = "examples", **changed: Any) -> Stage:
    return until(call_recipe(miniature, SMALL | changed), last)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Store:
    """A store in which recipe miniature ran up to its examples."""
    store = Store(tmp_path_factory.mktemp("law") / "first")
    run_alone(store, small())
    return store


def assert_alike(before: Store, target: Stage, folder, *, last: Stage) -> Store:
    """Runs the target after what is in a store and alone, compares, and returns the store in which it ran alone."""
    after, alone = copied(before, folder / "after"), only(before, target, folder / "alone")
    run_alone(after, target)
    run_alone(alone, target)
    there = content(alone, target)
    assert differing(content(after, target), there) == []
    assert there != content(before, last), "the flag changed nothing, so the comparison says nothing"
    return alone


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: next(iter(flag)))
def test_another_flag_after_a_run_leaves_the_bytes_that_it_leaves_alone(first, flag, tmp_path):
    name = "pair" if "sources" in flag else "examples"
    assert_alike(first, small(name, **flag), tmp_path, last=small(name))


def test_a_smaller_jury_after_a_larger_one_and_a_larger_one_after_it(first, tmp_path):
    alone = assert_alike(first, small(jury=("idefics3-fine",)), tmp_path, last=small())
    run_alone(alone, small())
    assert differing(content(alone, small()), content(first, small())) == []


def test_a_run_of_the_whole_recipe_leaves_the_same_bytes_after_another_adapter_and_after_another_beta(
    first, ray_session, tmp_path
):
    """Rows that two runs which differ in one flag each left there are not this run's, and weights come out the same."""
    target, found = call_recipe(miniature, SMALL | {"beta": 100.0}), []
    for flags in ({"beta": 100.0, "adapter": "lora"}, {}):
        other = call_recipe(miniature, SMALL | flags)
        store = only(first, other, tmp_path / f"{len(found)}")
        run_alone(store, other)
        run_alone(store, target)
        found.append(content(store, target))
        assert differing(content(store, other), found[-1]), "the flag changed nothing, so the comparison says nothing"
    assert differing(*found) == []
    assert any("weights/" in name and name.endswith(".safetensors") for name in found[0])


def video(root, **changed: Any) -> Stage:
    given = {"weights": str(root / "wan"), "pairs": str(root / "pairs"), "frames": (5,)}
    return until(call_recipe(flow_dpo_video, OFFLINE | given | changed), "examples")


def test_dimensions_their_weights_and_the_overall_label_leave_the_bytes_that_they_leave_alone(tmp_path):
    margins = [(-1.0, -2.0), (-1.0, 0.5), (0.5, 2.0), (-2.0, -1.0)]
    rows = [pair(n, clip=5, margin_VQ=vq, margin_TA=ta) for n, (vq, ta) in enumerate(margins)]
    write_pairs(tmp_path / "pairs", rows)
    write_tiny("wan", tmp_path / "wan")
    before = Store(tmp_path / "store")
    last = video(tmp_path, dimensions=("VQ",))
    run_alone(before, last)
    for number, changed in enumerate([{"dimensions": ("VQ", "TA")}, {"dimensions": ("VQ", "TA=3")}, {"overall": True}]):
        given = {"dimensions": ("VQ",)} | changed
        target = video(tmp_path, **given)
        assert_alike(before, target, tmp_path / str(number), last=last)


def image(recipe, root, *, last: str = "examples", **changed: Any) -> Stage:
    given = {"weights": str(root / "sd15"), "pairs": str(root / "pairs")}
    return until(call_recipe(recipe, OFFLINE | given | changed), last)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A tiny SD1.5, and pairs of three generators."""
    root = tmp_path_factory.mktemp("pairs")
    makers = [("x", "y"), ("y", "x"), ("x", "z"), ("z", "y")]
    write_pairs(root / "pairs", [pair(n, generator_a=a, generator_b=b) for n, (a, b) in enumerate(makers)])
    write_tiny("sd15", root / "sd15")
    return root


def test_arenapo_after_vipo_image_and_after_another_scale_leaves_the_bytes_that_it_leaves_alone(pairs, tmp_path):
    before = Store(tmp_path / "store")
    last = image(vipo_image, pairs)
    run_alone(before, last)
    alone = assert_alike(before, image(arenapo, pairs), tmp_path / "rated", last=last)
    uniform = image(arenapo, pairs, scale=0.0)
    assert_alike(alone, uniform, tmp_path / "unrated", last=image(arenapo, pairs))


@pytest.mark.parametrize(
    ("recipe", "last", "flag"), [(arenapo, "tune", {"gap": 2.0}), (vipo_image, "tune", {"alpha": "8", "sft": False})]
)
def test_training_after_a_training_with_another_flag_leaves_the_bytes_that_it_leaves_alone(
    pairs, ray_session, tmp_path, recipe, last, flag
):
    fixed = {"zero": "0"} | {name: value for name, value in flag.items() if name == "sft"}
    before, other = Store(tmp_path / "store"), image(recipe, pairs, last=last, **fixed)
    run_alone(before, other)
    target = image(recipe, pairs, last=last, **fixed | flag)
    alone = assert_alike(before, target, tmp_path, last=other)
    assert any("weights/" in name and name.endswith(".safetensors") for name in content(alone, target))
