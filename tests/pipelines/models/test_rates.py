"""What is foretold before any run: published rates with their sources, and a reckoning that says that it is one."""

import pytest

from infra.dag.plan import CachePolicy, Planner
from infra.dag.source import Sources
from infra.dag.stage import Resources
from infra.store.artifacts import Store
from jobs.progress import describe
from pipelines.miniature.prompts import Grammar
from pipelines.models.adapter import Full, LoRA
from pipelines.models.generators.diffusers import Diffusers
from pipelines.models.generators.options import StepCache
from pipelines.models.rates import published_rates
from pipelines.models.sizes import ARCHITECTURES, PUBLISHED
from pipelines.models.weights import Hub
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render
from pipelines.training.buckets import Buckets
from pipelines.training.demand import ASSUMED_PEAK, ASSUMED_SHARE, reckoned_time
from tests.benchmarks.gpu_tune import MEDIUM
from tests.benchmarks.sd3_flops import sd3_flops


def test_every_rate_says_where_it_was_published_and_of_which_known_weights():
    rates = published_rates()
    for rate in (*rates.pictures, *rates.online):
        assert rate.source.startswith("https://") and rate.device
        assert rate.weights in PUBLISHED.values()


def test_the_rate_of_online_dpo_is_the_published_step():
    (rate,) = published_rates().online
    assert rate.samples_per_gpu_second == pytest.approx(64 / (408 * rate.gpus), rel=0.03)


def generator(name: str, **changes) -> Diffusers:
    given = {"steps": 28, "height": 1024, "width": 1024, "guidance": 3.5}
    return Diffusers(name=name, weights=Hub(repo=PUBLISHED[name], revision="main"), **given | changes)


def test_a_published_rate_is_in_proportion_to_the_steps():
    assert generator("flux.1-dev").published() == pytest.approx((12.339 * 28 / 50, "H100 80GB"))
    assert generator("sdxl", steps=30).published() == pytest.approx((3.31, "A100 80GB"))


@pytest.mark.parametrize(
    "other",
    [
        {"steps": None},
        {"height": 512},
        {"compiled": True},
        {"offload": "model"},
        {"dtype": "float32"},
        {"true_cfg": 4.0},
        {"cache": StepCache(method="first_block", options={"threshold": 0.1})},
    ],
)
def test_other_settings_than_the_measured_ones_are_unknown(other):
    assert generator("flux.1-dev", **other).published() is None


def test_guidance_that_takes_no_second_pass_is_unknown_where_it_was_measured_with_one():
    assert generator("sdxl", guidance=1.0).published() is None
    assert generator("sd3.5-medium").published() is None


def test_plan_counts_what_is_known_and_names_what_is_not(tmp_path):
    roster = (generator("flux.1-dev"), generator("sd3.5-medium"))
    prompts = WritePrompts(source=Grammar(train=10, evaluation=6))

    def line(*roster):
        samples = {one.name: 3 for one in roster if one.name == "flux.1-dev"}
        stage = Render(prompts=prompts, samples=samples, roster=roster, resources=Resources(workers=2, gpus=1.0))
        return describe(Planner(Store(tmp_path), CachePolicy(), Sources(None)).plan(stage))

    hours = 30 * 12.339 * 28 / 50 / 3600
    said = line(*roster)
    assert f"at least 1m43s, {hours:.1f} GPU-hours (published rates: flux.1-dev on H100 80GB; unknown" in said
    assert "not counted: sd3.5-medium)" in said
    assert "about 1m43s" in line(roster[0])
    assert "GPU-hours unknown" in line(roster[1])


SQUARE = Buckets(area=1024**2, multiple=64, ratio=1.0)
STEP = {"pairs": 1.0, "reference": "adapter", "trains_losers": True, "checkpointing": False, "buckets": SQUARE}


def flops(name: str, **changes) -> float:
    found = reckoned_time(ARCHITECTURES[name], **{"adapter": LoRA(rank=32)} | STEP | changes)
    assert found.basis.startswith("reckoned, not measured") and "assumed 30%" in found.basis
    return found.seconds * ASSUMED_SHARE * ASSUMED_PEAK


@pytest.mark.parametrize("side", [512, 768, 1024])
def test_a_step_is_reckoned_by_what_its_layers_take(side):
    exact = sd3_flops(MEDIUM, height=side // 8, width=side // 8, text=333, rank=32)
    given = {"buckets": Buckets(area=side**2, multiple=64, ratio=1.0)}
    assert flops("sd3.5-medium", **given) == pytest.approx(2 * exact.step(adapter="lora"), rel=0.05)
    full = {"adapter": Full(), "reference": "copy"}
    assert flops("sd3.5-medium", **given, **full) == pytest.approx(2 * exact.step(adapter="full"), rel=0.03)


def test_passes_that_are_left_out_are_not_reckoned():
    forward = flops("flux.1-dev") - flops("flux.1-dev", reference="cached")
    assert flops("flux.1-dev", checkpointing=True) - flops("flux.1-dev") == pytest.approx(forward)
    won = flops("flux.1-dev", reference="cached", trains_losers=False)
    assert forward * 1.5 < won < flops("flux.1-dev", reference="cached")
