"""Laws of the branching rollout: without noise it is the sampler, and every draw belongs to its prompt alone."""

import math

import pytest
import torch

from infra.config import ConfigError
from pipelines.algorithms.diffusion.stochastic import DDIM, Dance, FlowSDE, log_prob
from pipelines.algorithms.online.advantage import GroupAdvantage
from pipelines.algorithms.online.keep import FixedThreshold
from pipelines.algorithms.online.states import (
    branch_pair_examples,
    group_examples,
    pair_examples,
    trajectory_examples,
)
from pipelines.algorithms.online.windows import EveryStep, SpreadSteps
from pipelines.models.families.steps import SamplingSteps
from pipelines.models.rollout import RolloutPlan, roll_out
from support.tiny import family_at, write_tiny

TEXTS, SEEDS, STEPS = ("a red circle", "two blue squares"), (5, 6), 5


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    root = tmp_path_factory.mktemp("rollout")
    return {
        name: family_at(name, write_tiny(name, root / name)).load(parts="all", device="cpu", dtype=torch.float32)
        for name in ("miniature", "sd3", "sd15")
    }


def shape_of(family):
    size = 24 if family.family.name == "miniature" else 32
    return family.family.latent_shape(frames=1, height=size, width=size)


def grid_of(family, *, texts=TEXTS, guidance=1.0, steps=STEPS):
    conditions = family.encode_texts(texts)
    given = {"negative": family.unconditional(), "shape": shape_of(family), "steps": steps, "guidance": guidance}
    return SamplingSteps(family, family.model, conditions, **given)


def darkness(candidates):
    """A reward for dark latents."""
    return -candidates.x.flatten(1).mean(1)


@pytest.mark.parametrize("name", ["miniature", "sd3"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("window", [RolloutPlan().window, EveryStep()])
def test_one_candidate_without_noise_is_the_familys_own_sampler_bit_for_bit(loaded, name, guidance, window):
    family = loaded[name]
    given = {"negative": family.unconditional(), "shape": shape_of(family), "steps": STEPS, "guidance": guidance}
    plain = family.sample(family.model, family.encode_texts(TEXTS), **given, seeds=SEEDS)
    plan = RolloutPlan(window=window, step=FlowSDE(a=0.0))
    ours = roll_out(grid_of(family, guidance=guidance), plan=plan, seeds=SEEDS, learn=False)
    assert torch.equal(ours.x[:, 0], plain)


def test_without_noise_a_table_of_noise_levels_is_sampled_as_ddim_does(loaded):
    from diffusers import DDIMScheduler

    family = loaded["sd15"]
    grid = grid_of(family)
    ours = roll_out(grid, plan=RolloutPlan(step=DDIM()), seeds=SEEDS)
    before, family.pipeline.scheduler = (
        family.pipeline.scheduler,
        DDIMScheduler.from_config(family.pipeline.scheduler.config, clip_sample=False),
    )
    try:
        given = {"negative": None, "shape": shape_of(family), "steps": STEPS, "guidance": 1.0}
        plain = family.sample(family.model, family.encode_texts(TEXTS), **given, seeds=SEEDS)
    finally:
        family.pipeline.scheduler = before
    torch.testing.assert_close(ours.x[:, 0], plain, atol=1e-3, rtol=1e-3)


def test_the_candidates_of_a_step_share_one_forward_and_shared_noise_is_one_branch_until_it_parts(loaded):
    rows = []
    grid = grid_of(loaded["miniature"])

    def counted(x, index, *, prompts):
        rows.append(len(x))
        return grid.predict(x, index, prompts=prompts)

    plan = RolloutPlan(
        branches=2,
        shared_noise=True,
        candidates=3,
        window=SpreadSteps(count=2, first=1),  # steps 1 and 3 of 5
        scored="steps",
        keep=("best", "worst"),
    )
    found = roll_out(grid, plan=plan, seeds=SEEDS, reward=darkness, predict=counted)
    assert rows == [2, 2, 4, 4, 4]
    assert [step.index for step in found.steps] == [1, 3]
    first = found.steps[0]
    assert torch.equal(first.x[:, 0], first.x[:, 1])
    assert not torch.equal(first.candidates[:, 0], first.candidates[:, 1])
    means = found.x.flatten(2).mean(2)
    assert (means[:, 0] < means[:, 1]).all()  # the win branch ends darker


def test_what_is_recorded_is_what_was_drawn_scored_and_kept(loaded):
    plan = RolloutPlan(candidates=4, window=EveryStep(), scored="steps", keep=("best",), stored="bfloat16")
    grid = grid_of(loaded["miniature"])
    told = []

    def reward(candidates):
        told.append((candidates.t.unique().item(), candidates.target))
        return darkness(candidates)

    found = roll_out(grid, plan=plan, seeds=SEEDS, reward=reward, reference=grid.predict)
    assert [t for t, _ in told] == grid.times[1:STEPS].tolist()  # each at its own time
    for place, step in enumerate(found.steps):
        assert torch.equal(step.candidates, step.candidates.bfloat16().float())
        assert torch.equal(step.kept, step.scores.argmax(2))
        assert torch.equal(step.reference, step.log_prob)  # the reference is the policy here
        kept = step.candidates[torch.arange(2), 0, step.kept[:, 0]]
        if place + 1 < len(found.steps):
            assert torch.equal(found.steps[place + 1].x[:, 0], kept)
        with torch.no_grad():
            v = grid.predict(step.x[:, 0], step.index, prompts=torch.arange(2))
        s, s_next = torch.full((2,), step.s), torch.full((2,), step.s_next)
        move = plan.step.move(step.x[:, 0], v, s=s, s_next=s_next, path=grid.path)
        torch.testing.assert_close(log_prob(kept, move=move), step.log_prob[torch.arange(2), 0, step.kept[:, 0]])
        # The velocity from the predicted x_0 to the candidate.
        x_0 = step.x - step.s * v[:, None]
        target = (step.candidates[:, 0] - x_0) / step.s_next
        torch.testing.assert_close(told[place][1].unflatten(0, (2, 4)), target, atol=1e-4, rtol=1e-4)


def test_a_prompts_draws_do_not_depend_on_its_neighbours(loaded):
    plan = RolloutPlan(branches=2, candidates=2, window=EveryStep(), keep=("random",))
    both = roll_out(grid_of(loaded["miniature"]), plan=plan, seeds=SEEDS)
    alone = roll_out(grid_of(loaded["miniature"], texts=TEXTS[1:]), plan=plan, seeds=SEEDS[1:])
    torch.testing.assert_close(alone.x[0], both.x[1], atol=1e-4, rtol=1e-4)
    assert [step.kept[0].tolist() for step in alone.steps] == [step.kept[1].tolist() for step in both.steps]
    assert not torch.equal(both.x[0, 0], both.x[0, 1])


def test_best_of_n_returns_the_branch_with_the_highest_reward_and_its_first_branch_is_the_plain_picture(loaded):
    family = loaded["miniature"]
    found = roll_out(grid_of(family), plan=RolloutPlan(branches=3, scored="end"), seeds=SEEDS, reward=darkness)
    means = found.x.flatten(2).mean(2)
    torch.testing.assert_close(found.best.flatten(1).mean(1), means.amin(1))
    plain = roll_out(grid_of(family), plan=RolloutPlan(), seeds=SEEDS)
    torch.testing.assert_close(found.x[:, 0], plain.best, atol=1e-5, rtol=1e-5)


def test_scores_may_be_asked_for_a_part_of_the_steps_only(loaded):
    grid = grid_of(loaded["miniature"])
    plan = RolloutPlan(candidates=4, window=EveryStep(), scored="steps", keep=("best",))
    late = plan.model_copy(update={"scored_from": 0.5})
    scored = [bool(s.scores.isfinite().all()) for s in roll_out(grid, plan=late, seeds=SEEDS, reward=darkness).steps]
    assert scored == [False, False, False, True]


def test_every_algorithm_finds_its_examples_in_the_steps(loaded):
    grid = grid_of(loaded["miniature"])
    group = RolloutPlan(branches=3, shared_noise=True, window=EveryStep(), step=Dance(), scored="end", learn_share=0.6)
    found = roll_out(grid, plan=group, seeds=SEEDS, reward=darkness)
    assert len(found.steps) == 2
    advantage = GroupAdvantage().of(found.scores)
    examples = trajectory_examples(found.steps[0], advantage=advantage.values, used=advantage.used)
    assert examples.x.shape[:2] == examples.candidates.shape[:2] == (6, 1)
    assert examples.value.flatten().tolist() == advantage.values.flatten().tolist()

    plan = RolloutPlan(candidates=4, window=EveryStep(first=1), scored="steps", keep=("random",))
    step = roll_out(grid, plan=plan, seeds=SEEDS, reward=darkness).steps[0]
    k = group_examples(step, advantage=GroupAdvantage())
    assert k.value.sum(1).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    pairs = pair_examples(step, threshold=FixedThreshold(value=0.0), low=0.0, high=1.0)
    assert pairs.used.all()
    means = pairs.candidates.flatten(2).mean(2)
    assert (means[:, 0] < means[:, 1]).all()
    assert (pairs.old[:, 0] == step.log_prob[torch.arange(2), 0, step.scores[:, 0].argmax(1)]).all()

    tapo = RolloutPlan(
        branches=2,
        shared_noise=True,
        candidates=2,
        window=SpreadSteps(count=2),
        scored="steps",
        keep=("best", "worst"),
    )
    step = roll_out(grid, plan=tapo, seeds=SEEDS, reward=darkness).steps[-1]
    two = branch_pair_examples(step)
    assert two.of == (0, 1)
    assert two.used.all()
    assert torch.equal(two.candidates[:, 1], step.candidates[torch.arange(2), 1, step.kept[:, 1]])
    assert (two.candidates[:, 0].flatten(1).mean(1) < two.candidates[:, 1].flatten(1).mean(1)).all()


def test_an_unknown_reward_is_no_pair(loaded):
    plan = RolloutPlan(candidates=2, window=EveryStep(), scored="steps", keep=("random",))
    grid = grid_of(loaded["miniature"])
    step = roll_out(grid, plan=plan, seeds=SEEDS, reward=lambda c: torch.full((len(c.x),), math.nan)).steps[0]
    assert not pair_examples(step, threshold=FixedThreshold(), low=0.0, high=1.0).used.any()
    assert not group_examples(step, advantage=GroupAdvantage()).used.any()


def test_plans_that_contradict_themselves_are_refused(loaded):
    with pytest.raises(ConfigError, match="one per branch"):
        RolloutPlan(branches=3, keep=("best", "worst"), scored="steps")
    with pytest.raises(ConfigError, match="needs scored"):
        RolloutPlan(keep=("best",))
    with pytest.raises(ConfigError, match="needs a reward|needs reward|needs"):
        roll_out(grid_of(loaded["miniature"]), plan=RolloutPlan(scored="end"), seeds=SEEDS)
