"""What is compared computes the same thing."""

import sys

import pytest
import torch

from actors.training.options import TrainerOptions
from infra.config import ConfigError
from pipelines.algorithms.diffusion.path import FlowPath
from pipelines.training.preference import PreferenceObjective
from tests.benchmarks.dpo_step import ADAPTERS, build, most_held, ratio
from tests.benchmarks.measure import Result
from tests.benchmarks.pairs import BETA, open_pairs, write_pairs
from tests.benchmarks.plain_dpo import PlainDPO


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("world") / "pairs"
    write_pairs(root, count=8)
    return open_pairs(root)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_plain_reading_has_salons_loss(pairs, kind):
    made: PreferenceObjective = pairs.objective(ADAPTERS[kind])
    salon = made.prepare(torch.device("cpu"))
    plain = PlainDPO(pairs, ADAPTERS[kind], beta=BETA)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        theirs = dict(plain.model.named_parameters())
        for name, parameter in salon.named_parameters():
            if parameter.requires_grad:
                parameter += 0.002 * torch.randn(parameter.shape, generator=generator)
            theirs[name].copy_(parameter)
    ready = made._ready
    batch = ready.data.batch(range(8), device=torch.device("cpu"))
    noise, t = torch.randn(batch.winners.shape, generator=generator), torch.linspace(0.3, 0.9, 8)
    data = torch.cat([batch.winners, batch.losers])
    sample = FlowPath().sample(data, noise=noise.repeat(2, 1, 1, 1), t=t.repeat(2))
    condition = batch.both
    answers = (
        ready.policy.predict(salon, sample, condition=condition),
        ready.policy.reference_predict(salon, sample, condition=condition),
    )
    mine, reference = ((answer - sample.target).square().flatten(1).mean(1) for answer in answers)
    won, lost = (mine - reference).chunk(2)
    expected = -torch.nn.functional.logsigmoid(-0.5 * BETA * (won - lost))
    found = plain.losses(*plain.pictures(range(8)), pairs.texts, noise=noise, timestep=t)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("variant", ["plain", "eager"])
def test_a_variant_steps(pairs, variant):
    step = build(variant, pairs, ADAPTERS["lora"], batch=4)
    assert step(0) == pytest.approx(0.6931, abs=1e-3)
    step(1)
    assert step(2) != pytest.approx(0.693147, abs=1e-6)


def test_cached_errors_begin_where_the_reference_is(pairs):
    made = pairs.objective(ADAPTERS["full"], cached=True)
    model = made.prepare(torch.device("cpu"))
    losses = made.losses(model, TrainerOptions(batch=8).draws(0, size=8), means={}).losses
    torch.testing.assert_close(losses, torch.full_like(losses, 0.693147), atol=1e-3, rtol=0)


def test_compiling_wraps_policy_and_reference_and_keeps_names(pairs, monkeypatch):
    """What torch's compiler makes of them is torch's to test, and takes a minute."""
    monkeypatch.setenv("CXX", sys.executable)
    plain = pairs.objective(ADAPTERS["full"]).prepare(torch.device("cpu"))
    made = pairs.objective(ADAPTERS["full"], compiled=True)
    model = made.prepare(torch.device("cpu"))
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert plain._compiled_call_impl is None
    assert model._compiled_call_impl is not None
    assert made._ready.policy.frozen._compiled_call_impl is not None


def test_compiling_without_a_compiler_is_refused(pairs, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match="no C\\+\\+ compiler 'no-such-compiler'"):
        pairs.objective(ADAPTERS["lora"], compiled=True).prepare(torch.device("cpu"))


def test_a_ratio_is_the_median_over_turns():
    assert ratio([2.0, 9.0, 4.0], [1.0, 1.0, 2.0]) == 2.0


def test_memory_only_grows():
    before = most_held()
    assert before > 10
    assert most_held() >= before


@pytest.mark.parametrize(("value", "bar", "holds"), [(1.3, "<= 1.3", True), (1.31, "<= 1.3", False), (1.6, ">= 1.6", True)])
def test_a_bar_is_met_or_not(value, bar, holds):
    result = Result("x", value, bar, {})
    assert result.holds == holds
    assert result.line().startswith("ok" if holds else "MISS")
