"""plan foretells time, GPU-hours and disk of a row-wise stage from the records of earlier runs of the same stage."""

import json

import pytest

from infra.dag.experience import foretell
from infra.dag.foretold import Foretold, GpuTime
from infra.dag.plan import CachePolicy, Planner
from infra.dag.source import Sources
from infra.dag.stage import Resources
from infra.store.artifacts import Store
from jobs.progress import describe
from support.inline import computed
from support.numbers import Numbers, Squares


def squares(count, **resources):
    return Squares(numbers=Numbers(count=count), resources=Resources(**resources))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store in which two workers took 20 s for ten squares."""
    store = Store(tmp_path_factory.mktemp("store"))
    stage = squares(10, workers=2)
    computed(stage, store)
    path = store.directory(stage) / "artifact.json"
    record = json.loads(path.read_text())
    assert record["metrics"] == {"workers": 2, "gpus": 0.0}
    path.write_text(json.dumps(record | {"seconds": 20.0}))
    return store


def test_seconds_are_divided_among_the_workers_and_bytes_are_in_proportion(store):
    two, eight = (foretell(squares(100, workers=n), store, 100) for n in (2, 8))
    assert two is not None and eight is not None
    assert (two.seconds, eight.seconds, two.gpu_hours) == (200.0, 50.0, 0.0) and two.bytes == eight.bytes > 0


def test_workers_with_another_share_of_a_gpu_tell_nothing_and_an_empty_store_neither(store, tmp_path):
    assert foretell(squares(100, gpus=1.0), store, 100) is None
    assert foretell(squares(100), Store(tmp_path), 100) is None


def test_plan_says_what_is_foretold_of_the_rows_to_do(store):
    plans = Planner(store, CachePolicy(), Sources(None))
    larger = squares(40, workers=1)
    plans.plan(larger.numbers)
    plan = plans.plan(larger)
    assert isinstance(plan.foretold, Foretold) and plan.to_do == 30
    assert plan.foretold.seconds == pytest.approx(30 * 4.0) and "about 2m00s" in describe(plan)


class Timed(Squares):
    """A square takes half an hour of a GPU, others say."""

    def gpu_time(self, inputs, rows):
        return None if rows is None else GpuTime(1800.0 * rows, "published rates: squares on an abacus")


def test_what_others_measured_is_used_and_named_until_a_run_of_this_store_tells(tmp_path):
    def planned(store):
        stage = Timed(numbers=Numbers(count=40), resources=Resources(workers=2, gpus=1.0))
        plans = Planner(store, CachePolicy(), Sources(None))
        plans.plan(stage.numbers)
        return describe(plans.plan(stage))

    store = Store(tmp_path)
    assert "40 rows to do, about 10h00m, 20.0 GPU-hours (published rates: squares on an abacus)" in planned(store)
    own = Timed(numbers=Numbers(count=10), resources=Resources(workers=2))
    computed(own, store)
    path = store.directory(own) / "artifact.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"seconds": 20.0, "metrics": {"workers": 2, "gpus": 1.0}}))
    said = planned(store)
    assert "about 1m00s" in said and "published" not in said and "MB" in said
