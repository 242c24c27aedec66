"""One branching rollout: sampling, search and the collection of states for online training are settings of it.

Every prompt has `branches` latents that go from noise to data. At a stochastic step each branch draws k candidates from
the Gaussian of the step (`diffusion.stochastic`), which share one forward of the denoiser; they are scored at their own
time; a rule says which one the branch goes on with. All other steps are deterministic. Without a stochastic step it is the
generator's own sampler, bit for bit where that is Euler.

| | branches, start | stochastic steps | k | scored | goes on | learnt from (`online.states`) |
|---|---|---|---|---|---|---|
| Flow-GRPO | G, own noise | every | 1 | end | first | trajectory_examples |
| DanceGRPO | G, shared noise | every, Dance | 1 | end | first | a share 0.6 of the steps |
| Step-GRPO | 1 | every | 6 | steps | random | group_examples |
| SPO, LPO | 1 | every, from a first one | 4 | steps | random | pair_examples |
| TAPO | 2, shared noise | spread | 4 | steps | best, worst | branch_pair_examples |
| step-wise sampling | 1 | every | k | steps | best | |
| best of N | N, own noise | none | 1 | end | | |

All noise comes from seeds on the CPU: (seed of the prompt, branch, step, candidate), never from a place in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from jaxtyping import Float, Int
from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.identity import seed_of
from infra.lazy import lazy
from pipelines.algorithms.diffusion.stochastic import AnyStep, FlowSDE, Move, log_prob
from pipelines.algorithms.online.keep import Keep, kept
from pipelines.algorithms.online.states import RolloutStep
from pipelines.algorithms.online.windows import NoSteps, Window, random_share
from pipelines.algorithms.reward.enhanced import predicted_target

if TYPE_CHECKING:
    import torch

    from pipelines.models.families.steps import SamplingSteps
else:
    torch = lazy("torch")


class RolloutPlan(Config):
    """How a rollout branches, spreads, scores and goes on."""

    branches: int = Field(1, ge=1)
    """Latents per prompt."""
    shared_noise: bool = False
    """Whether the branches of a prompt begin with the same noise; until the first stochastic step they are then one."""
    candidates: int = Field(1, ge=1)
    """k: candidates per branch at a stochastic step; they share one forward of the denoiser."""
    window: Window = NoSteps()
    """Which steps are stochastic."""
    step: AnyStep = FlowSDE()
    """How far a stochastic step spreads."""
    scored: Literal["nothing", "steps", "end"] = "nothing"
    """What the reward is asked about: the candidates of every stochastic step at their own time, or the final latents."""
    scored_from: float = Field(0.0, ge=0, le=1)
    """Candidates are scored from this share of the steps on; where they are not, the first candidate goes on."""
    scored_until: float = Field(1.0, ge=0, le=1)
    """Candidates are scored until this share of the steps."""
    keep: tuple[Keep, ...] = ("first",)
    """Which candidate goes on: one rule for all branches, or one per branch."""
    learn_share: float = Field(1.0, gt=0, le=1)
    """Share of the stochastic steps that are learnt from, chosen anew in every round (DanceGRPO: 0.6)."""
    stored: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision that latents are rounded to before anything is made of them, so that what is stored is what was used."""

    @model_validator(mode="after")
    def _fits(self) -> RolloutPlan:
        if len(self.keep) not in (1, self.branches):
            raise ValueError(f"keep names {len(self.keep)} rules for {self.branches} branches; give one, or one per branch")
        if {"best", "worst"} & set(self.keep) and self.scored != "steps":
            raise ValueError("keep = best or worst needs scored = 'steps'")
        return self

    def stochastic(self, total: int, *, number: int = 0) -> tuple[int, ...]:
        """The stochastic steps of round `number`."""
        return self.window.steps(total, number=number)

    def learnt(self, total: int, *, number: int = 0) -> tuple[int, ...]:
        """Those of them that are learnt from."""
        steps = self.stochastic(total, number=number)
        if self.learn_share == 1 or not steps:
            return steps
        return random_share(steps, share=self.learn_share, seed=seed_of("learnt steps", number))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Latents to be scored."""

    x: Float[torch.Tensor, "rows *shape"]
    t: Float[torch.Tensor, " rows"]
    """Their own time in [0, 1): the end of the step that made them."""
    target: Float[torch.Tensor, "rows *shape"] | None
    """The velocity from x_0, as the policy predicted it at the start of the step, to x: what a reward that reads a target
    is told. The step's own prediction where t = 0. None for generators that are no flow."""
    prompts: Int[torch.Tensor, " rows"]
    """Whose each row is."""


CandidateReward = Callable[[Candidates], "torch.Tensor"]
"""float[rows]; higher is better, NaN is unknown."""


class Prediction(Protocol):
    """What a denoiser answers after all guidance, as `SamplingSteps.predict` does."""

    def __call__(self, x: torch.Tensor, index: int, *, prompts: torch.Tensor) -> torch.Tensor:
        """fp32[rows, *shape] of latents at step `index`."""
        ...


@dataclass(frozen=True, eq=False)
class Rollout:
    """Where a rollout ended, and what it passed through."""

    x: Float[torch.Tensor, "prompts branches *shape"]
    """Final latents, as the generator's own sampler returns them."""
    scores: Float[torch.Tensor, "prompts branches"] | None
    """Rewards of the final latents; None where the plan does not score them."""
    steps: tuple[RolloutStep, ...]
    """The stochastic steps that are learnt from, or that were scored, in order."""

    @property
    def best(self) -> Float[torch.Tensor, "prompts *shape"]:
        """The final latent of each prompt's best branch; the first where nothing is scored or known."""
        if self.scores is None:
            return self.x[:, 0]
        index = kept(self.scores, rule="best", uniform=torch.zeros(len(self.scores), device=self.scores.device))
        return self.x[torch.arange(len(index), device=index.device), index]


def roll_out(
    grid: SamplingSteps,
    *,
    plan: RolloutPlan,
    seeds: Sequence[int],
    reward: CandidateReward | None = None,
    predict: Prediction | None = None,
    reference: Prediction | None = None,
    learn: bool = True,
    number: int = 0,
) -> Rollout:
    """Rolls out every prompt of `grid` without gradient and without dropout; `seeds`: one per prompt.

    `predict`: in place of `grid.predict`, which is the policy's own (a guided one, for instance). `reference` is asked at
    the steps that are learnt from. `learn` = False keeps no steps. `number`: the round, which windows may depend on.
    """
    if len(seeds) != grid.prompts:
        raise ConfigError(f"{grid.prompts} prompts but {len(seeds)} seeds; give one per prompt")
    if (plan.scored != "nothing") != (reward is not None):
        raise ConfigError(f"a plan with scored = {plan.scored!r} {'needs' if reward is None else 'reads no'} reward")
    with quiet(grid.model), torch.no_grad():
        return _Rolling(grid, plan, seeds, reward, predict or grid.predict, reference, learn=learn, number=number).run()


class _Rolling:
    """A rollout under way; rows are prompt by prompt, branch by branch."""

    def __init__(
        self,
        grid: SamplingSteps,
        plan: RolloutPlan,
        seeds: Sequence[int],
        reward: CandidateReward | None,
        predict: Prediction,
        reference: Prediction | None,
        *,
        learn: bool,
        number: int,
    ) -> None:
        self.grid, self.plan, self.seeds, self.reward = grid, plan, seeds, reward
        self.predict, self.reference = predict, reference
        self.total = len(grid.timesteps)
        self.stochastic = frozenset(plan.stochastic(self.total, number=number))
        self.learnt = frozenset(plan.learnt(self.total, number=number)) if learn else frozenset()
        self.steps: list[RolloutStep] = []
        self.branches = 1 if plan.shared_noise else plan.branches

    def run(self) -> Rollout:
        x = self.rounded(self.start())
        prediction = x
        for index in range(self.total):
            prompts = self.prompts
            prediction = self.predict(x, index, prompts=prompts)
            if index in self.stochastic:
                x = self.branched(x, prediction, index)
            else:
                x = self.rounded(self.move(x, prediction, index, noisy=False).mean)
        if self.branches < self.plan.branches:  # nothing stochastic parted them
            x, prediction = self.parted(x), self.parted(prediction)
        scores = None
        if self.plan.scored == "end":
            scores = self.scored(x, self.total - 1, target=prediction).unflatten(0, (-1, self.branches))
        final = self.grid.loaded.finished(x, {name: value[self.prompts] for name, value in self.grid.condition.items()})
        return Rollout(x=final.unflatten(0, (-1, self.branches)), scores=scores, steps=tuple(self.steps))

    @property
    def prompts(self) -> torch.Tensor:
        return torch.arange(self.grid.prompts, device=self.grid.device).repeat_interleave(self.branches)

    def start(self) -> torch.Tensor:
        """The noise of each row: the first branch has the prompt's own seed, as the plain sampler."""
        seeds = [seed if not branch else seed_of("branch", seed, branch) for seed, branch in self.rows()]
        return torch.stack([self.normal(seed) for seed in seeds]).to(self.grid.device)

    def rows(self) -> Iterator[tuple[int, int]]:
        return ((seed, branch) for seed in self.seeds for branch in range(self.branches))

    def normal(self, seed: int) -> torch.Tensor:
        return torch.randn(*self.grid.shape, generator=torch.Generator().manual_seed(seed))

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.plan.stored == "float32" else x.to(getattr(torch, self.plan.stored)).float()

    def parted(self, values: torch.Tensor) -> torch.Tensor:
        """Rows of one branch per prompt as rows of all branches; from now on there are so many."""
        self.branches = self.plan.branches
        return values.repeat_interleave(self.branches // (len(values) // self.grid.prompts), dim=0)

    def move(self, x: torch.Tensor, prediction: torch.Tensor, index: int, *, noisy: bool) -> Move:
        step = self.plan.step if noisy else self.plan.step.still
        s, s_next = (self.grid.times[place].expand(len(x)) for place in (index, index + 1))
        return step.move(x, prediction, s=s, s_next=s_next, path=self.grid.path)

    def branched(self, x: torch.Tensor, prediction: torch.Tensor, index: int) -> torch.Tensor:
        """Candidates of every row, scored and recorded; the latents that go on."""
        own = {"x": x, "prediction": prediction}
        if self.branches < self.plan.branches:
            own = {name: self.parted(value) for name, value in own.items()}
        x, prediction = own["x"], own["prediction"]
        k, rows = self.plan.candidates, len(x)
        move = self.move(x, prediction, index, noisy=True)
        every = torch.arange(rows, device=x.device).repeat_interleave(k)
        of_all = move.take(every)
        noise = [
            self.normal(seed_of("candidate", seed, branch, index, candidate))
            for seed, branch in self.rows()
            for candidate in range(k)
        ]
        candidates = self.rounded(of_all.point(torch.stack(noise).to(x.device)))
        scores = torch.full((rows, k), torch.nan, device=x.device)
        share = index / self.total
        is_scored = self.plan.scored == "steps" and self.plan.scored_from <= share < self.plan.scored_until
        if is_scored:
            target = self.predicted(x[every], prediction[every], candidates, index)
            scores = self.scored(candidates, index, target=target).unflatten(0, (rows, k))
        chosen = self.chosen(scores, index)
        if index in self.learnt:
            self.steps.append(self.record(x, candidates, scores, chosen, index, of_all))
        return candidates.unflatten(0, (rows, k))[torch.arange(rows, device=x.device), chosen]

    def predicted(self, x: torch.Tensor, v: torch.Tensor, candidates: torch.Tensor, index: int) -> torch.Tensor | None:
        """What a reward that reads a target is told of candidates; None where there is no velocity."""
        if self.grid.path.prediction != "flow":
            return None
        s, s_next = (self.grid.times[place].expand(len(x)) for place in (index, index + 1))
        return predicted_target(x, v, s=s, candidate=candidates, s_next=s_next)

    def scored(self, x: torch.Tensor, index: int, *, target: torch.Tensor | None) -> torch.Tensor:
        """float[rows] of latents at the end of a step."""
        assert self.reward is not None
        prompts = self.prompts.repeat_interleave(len(x) // (self.grid.prompts * self.branches))
        flow = self.grid.path.prediction == "flow"
        times = self.grid.times[index + 1].expand(len(x))
        return self.reward(Candidates(x=x, t=times, target=target if flow else None, prompts=prompts)).float()

    def chosen(self, scores: torch.Tensor, index: int) -> torch.Tensor:
        """Index of the candidate that each row goes on with."""
        draws = [torch.Generator().manual_seed(seed_of("kept", seed, branch, index)) for seed, branch in self.rows()]
        uniform = torch.stack([torch.rand((), generator=each) for each in draws]).to(scores.device)
        rules = self.plan.keep * (self.branches // len(self.plan.keep))
        by_rule = {rule: kept(scores, rule=rule, uniform=uniform).unflatten(0, (-1, self.branches)) for rule in set(rules)}
        return torch.stack([by_rule[rule][:, branch] for branch, rule in enumerate(rules)], dim=1).flatten()

    def record(
        self,
        x: torch.Tensor,
        candidates: torch.Tensor,
        scores: torch.Tensor,
        chosen: torch.Tensor,
        index: int,
        move: Move,
    ) -> RolloutStep:
        shape = (self.grid.prompts, self.branches)
        k = self.plan.candidates
        theirs = None
        if self.reference is not None:
            every = torch.arange(len(x), device=x.device).repeat_interleave(k)
            mean = self.move(x, self.reference(x, index, prompts=self.prompts), index, noisy=True).take(every)
            theirs = log_prob(candidates, move=mean).unflatten(0, (*shape, k))
        return RolloutStep(
            index=index,
            timestep=float(self.grid.timesteps[index]),
            s=float(self.grid.times[index]),
            s_next=float(self.grid.times[index + 1]),
            sd=float(move.sd[0]),
            x=x.unflatten(0, shape),
            candidates=candidates.unflatten(0, (*shape, k)),
            log_prob=log_prob(candidates, move=move).unflatten(0, (*shape, k)),
            reference=theirs,
            scores=scores.unflatten(0, shape),
            kept=chosen.unflatten(0, shape),
        )


@contextmanager
def quiet(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout meanwhile."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
