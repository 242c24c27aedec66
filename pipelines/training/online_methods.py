"""The online algorithms: each is a plan of rollouts, what is learnt from them, and a loss.

An example is a state with its candidates as a rollout leaves it (`algorithms.online.states`). Its scores are kept with it,
and what is learnt from it may depend on the whole round: `valued` says so once the rollouts of all ranks are there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from infra.config import Config, ConfigError
from infra.lazy import lazy
from pipelines.algorithms.diffusion.flow import TimeSampler, UniformTimes
from pipelines.algorithms.online.advantage import GroupAdvantage
from pipelines.algorithms.online.grpo import GRPO
from pipelines.algorithms.online.keep import AnyThreshold, FixedThreshold
from pipelines.algorithms.online.moves import MoveMethod, MoveReference
from pipelines.algorithms.online.spo import SPO
from pipelines.algorithms.online.states import (
    MoveExamples,
    branch_pair_examples,
    group_examples,
    pair_examples,
    trajectory_examples,
)
from pipelines.algorithms.online.windows import EveryStep, SpreadSteps
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.models.rollout import Rollout, RolloutPlan
from pipelines.schemas.training import RolloutState
from pipelines.training.rollouts import valued

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

DATA = -1
"""The step of an example that is no step: finished samples that are noised anew."""


@dataclass(frozen=True, eq=False)
class Collected:
    """One example of a prompt, before it has an id."""

    start: int
    step: int
    s: float
    s_next: float
    score: list[float]
    value: list[float]
    old: list[float]
    reference: list[float]
    used: bool
    tensors: Mapping[str, torch.Tensor]
    """`x` float[states, *shape]; `candidates` float[used, *shape], `of` int[used], `times` fp32 (s, s_next, timestep)."""


class OnlineMethod(Config, ABC):
    """A plan of rollouts, what is learnt from them, and how they are sampled."""

    plan: RolloutPlan
    """How a rollout branches, spreads, scores and goes on."""
    sampling_steps: int = Field(20, ge=2)
    """T: steps of the sampler in rollouts."""
    guidance: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Classifier-free guidance of the policy, in rollouts, updates and for the reference alike; 1 reads the text alone."""
    free_gradient: bool = False
    """Whether gradients flow through the prediction without the text (SPO); without them (Flow-GRPO) half the memory."""

    @property
    @abstractmethod
    def reference(self) -> MoveReference:
        """What the loss needs of the reference."""

    @property
    @abstractmethod
    def moves(self) -> MoveMethod | None:
        """The loss on log-probabilities of steps; None where finished samples are learnt from."""

    @abstractmethod
    def per_prompt(self, number: int = 0) -> int:
        """MoveExamples of each prompt. ConfigError where the plan does not fit the sampling steps."""

    @abstractmethod
    def collected(self, rollout: Rollout, prompt: int) -> Iterator[Collected]:
        """The examples of one prompt of a rollout."""

    def valued(self, states: Sequence[RolloutState]) -> list[RolloutState]:
        """The states of a whole round with what is learnt from each; by default as they were collected."""
        return list(states)

    @property
    def parity(self) -> float | None:
        """Largest difference of stored and recomputed log-probabilities that is rounding: a tenth of the clip range."""
        clip = getattr(self.moves, "clip", None)
        return None if clip is None else clip / 10


class StateMethod(OnlineMethod):
    """Learns from steps of rollouts: each that the plan learns from is a state of every branch."""

    loss: MoveMethod
    """The loss on the log-probabilities of a state's candidates."""

    @property
    def reference(self) -> MoveReference:
        return self.loss.reference

    @property
    def moves(self) -> MoveMethod:
        return self.loss

    def per_prompt(self, number: int = 0) -> int:
        return self.plan.branches * len(self.plan.learnt(self.sampling_steps, number=number))


class GRPOMethod(StateMethod):
    """Flow-GRPO and DanceGRPO: groups of samples of one prompt, rewarded at their end."""

    kind: Literal["grpo"] = "grpo"
    plan: RolloutPlan = RolloutPlan(branches=24, window=EveryStep(), scored="end")
    sampling_steps: int = Field(10, ge=2)
    """T: steps of the sampler in rollouts; 10 in Flow-GRPO, 16 in DanceGRPO."""
    loss: GRPO = GRPO()
    advantage: GroupAdvantage = GroupAdvantage()

    @model_validator(mode="after")
    def _fits(self) -> GRPOMethod:
        if self.plan.scored != "end" or self.plan.branches < 2 or self.plan.candidates != 1:
            raise ConfigError(
                "grpo compares finished samples of one prompt: its plan has scored = 'end', two branches at least and one "
                "candidate; step_grpo compares candidates"
            )
        return self

    def collected(self, rollout: Rollout, prompt: int) -> Iterator[Collected]:
        assert rollout.scores is not None
        branches = self.plan.branches
        for step in rollout.steps:
            used = torch.ones(len(step.x), dtype=torch.bool, device=step.x.device)
            found = trajectory_examples(step, advantage=torch.zeros_like(rollout.scores), used=used)
            for branch in range(branches):
                yield _one(found, prompt * branches + branch, start=branch, score=[float(rollout.scores[prompt, branch])])

    def valued(self, states: Sequence[RolloutState]) -> list[RolloutState]:
        """Advantages within the samples of a prompt; groups of equal rewards are not used."""
        rewards = {(state.prompt, state.start): state.score[0] for state in states}
        prompts = sorted({prompt for prompt, _ in rewards})
        table = torch.tensor([[rewards[prompt, start] for start in range(self.plan.branches)] for prompt in prompts])
        found = self.advantage.of(table)
        place = {prompt: number for number, prompt in enumerate(prompts)}
        values = [[float(found.values[place[state.prompt], state.start])] for state in states]
        known = table.isfinite()
        used = [bool(found.used[place[one.prompt]] & known[place[one.prompt], one.start]) for one in states]
        return valued(states, values, used)


class StepGRPOMethod(StateMethod):
    """Step-wise GRPO: k candidates of every state, scored at their own noise level, are the group."""

    kind: Literal["step_grpo"] = "step_grpo"
    plan: RolloutPlan = RolloutPlan(branches=4, candidates=6, window=EveryStep(), scored="steps", keep=("random",))
    sampling_steps: int = Field(10, ge=2)
    """T: steps of the sampler in rollouts."""
    loss: GRPO = GRPO()
    advantage: GroupAdvantage = GroupAdvantage(min_spread=0.1)
    """`min_spread` is a share of the round's median spread at the same step."""

    @model_validator(mode="after")
    def _fits(self) -> StepGRPOMethod:
        if self.plan.scored != "steps" or self.plan.candidates < 2:
            raise ConfigError(
                "step_grpo compares candidates of one state: its plan has scored = 'steps' and two candidates at least; "
                "grpo compares finished samples"
            )
        return self

    def collected(self, rollout: Rollout, prompt: int) -> Iterator[Collected]:
        branches = self.plan.branches
        for step in rollout.steps:
            found = group_examples(step, advantage=GroupAdvantage())
            for branch in range(branches):
                yield _one(found, prompt * branches + branch, start=branch, score=step.scores[prompt, branch].tolist())

    def valued(self, states: Sequence[RolloutState]) -> list[RolloutState]:
        """Advantages within the candidates of a state; states whose scores hardly differ for their step are not used."""
        table = torch.tensor([state.score for state in states])
        spread = self.advantage.of(table).spread
        by_step: dict[int, list[float]] = defaultdict(list)
        for state, one in zip(states, spread.tolist(), strict=True):
            by_step[state.step].append(one)
        median = {step: float(torch.tensor(found).median()) for step, found in by_step.items()}
        found = self.advantage.of(table, typical=torch.tensor([median[state.step] for state in states]))
        return valued(states, found.values.tolist(), found.used.tolist())


class PairMethod(StateMethod):
    """SPO and LPO: best and worst of k candidates of one state, where the best leads clearly."""

    kind: Literal["spo"] = "spo"
    plan: RolloutPlan = RolloutPlan(candidates=4, window=EveryStep(first=4), scored="steps", keep=("random",))
    loss: SPO = SPO()
    threshold: AnyThreshold = FixedThreshold()
    """Fixed (SPO), or growing with the noise of the step (LPO)."""

    @model_validator(mode="after")
    def _fits(self) -> PairMethod:
        if self.plan.scored != "steps" or self.plan.candidates < 2:
            raise ConfigError(
                "spo compares candidates of one state: its plan has scored = 'steps' and two candidates at least"
            )
        return self

    def collected(self, rollout: Rollout, prompt: int) -> Iterator[Collected]:
        levels = [step.sd for step in rollout.steps]
        branches = self.plan.branches
        for step in rollout.steps:
            found = pair_examples(step, threshold=self.threshold, low=min(levels), high=max(levels))
            for branch in range(branches):
                scores = step.scores[prompt, branch]
                best, worst = scores.nan_to_num(nan=-torch.inf).max(), scores.nan_to_num(nan=torch.inf).min()
                known = bool(scores.isfinite().any())
                score = [float(best), float(worst)] if known else [float("nan")] * 2
                yield _one(found, prompt * branches + branch, start=branch, score=score)


class TAPOMethod(OnlineMethod):
    """TAPO: a branch that keeps its best candidates against one that keeps its worst, from one noise."""

    kind: Literal["tapo"] = "tapo"
    plan: RolloutPlan = RolloutPlan(
        branches=2, shared_noise=True, candidates=4, window=SpreadSteps(), scored="steps", keep=("best", "worst")
    )
    loss: SPO = SPO(beta=1000.0, clip=None)

    @model_validator(mode="after")
    def _fits(self) -> TAPOMethod:
        if (self.plan.branches, self.plan.keep, self.plan.scored) != (2, ("best", "worst"), "steps"):
            raise ConfigError("tapo has two branches, keep = ('best', 'worst') and scored = 'steps'; change the plan")
        return self

    @property
    def reference(self) -> MoveReference:
        return self.loss.reference

    @property
    def moves(self) -> MoveMethod:
        return self.loss

    def per_prompt(self, number: int = 0) -> int:
        return len(self.plan.learnt(self.sampling_steps, number=number))

    def collected(self, rollout: Rollout, prompt: int) -> Iterator[Collected]:
        for step in rollout.steps:
            scores = step.scores[prompt].gather(1, step.kept[prompt][:, None])[:, 0]
            yield _one(branch_pair_examples(step), prompt, start=0, score=scores.tolist())


class OnlineDPOMethod(OnlineMethod):
    """Online DPO on the best and the worst of N finished samples, noised anew at every update."""

    kind: Literal["dpo"] = "dpo"
    plan: RolloutPlan = RolloutPlan(branches=8, scored="end")
    loss: Annotated[FlowDPO | DiffusionDPO, Field(discriminator="method")] = FlowDPO()
    times: TimeSampler = UniformTimes()
    """How noise levels of the updates are drawn."""

    @model_validator(mode="after")
    def _fits(self) -> OnlineDPOMethod:
        if self.plan.scored != "end" or self.plan.branches < 2:
            raise ConfigError("dpo compares finished samples: its plan has scored = 'end' and two branches at least")
        return self

    @property
    def reference(self) -> MoveReference:
        """Its predictions, at the noise of each update."""
        return "means"

    @property
    def moves(self) -> None:
        return None

    def per_prompt(self, number: int = 0) -> int:
        self.plan.stochastic(self.sampling_steps, number=number)
        return 1

    def collected(self, rollout: Rollout, prompt: int) -> Iterator[Collected]:
        assert rollout.scores is not None
        scores = rollout.scores[prompt]
        best, worst = int(scores.nan_to_num(nan=-torch.inf).argmax()), int(scores.nan_to_num(nan=torch.inf).argmin())
        score = [float(scores[best]), float(scores[worst])]
        used = score[0] > score[1]  # False for NaN
        yield Collected(
            start=0,
            step=DATA,
            s=0.0,
            s_next=0.0,
            score=score,
            value=[1.0 * used, -1.0 * used],
            old=[],
            reference=[],
            used=used,
            tensors={"x": rollout.x[prompt, [best, worst]]},
        )


AnyOnlineMethod = Annotated[
    GRPOMethod | StepGRPOMethod | PairMethod | TAPOMethod | OnlineDPOMethod, Field(discriminator="kind")
]
"""An online algorithm: the type of an option."""


def _one(found: MoveExamples, place: int, *, start: int, score: list[float]) -> Collected:
    """One example of a step."""
    step = found.step
    return Collected(
        start=start,
        step=step.index,
        s=step.s,
        s_next=step.s_next,
        score=score,
        value=found.value[place].tolist(),
        old=found.old[place].tolist(),
        reference=[] if found.reference is None else found.reference[place].tolist(),
        used=bool(found.used[place]),
        tensors={
            "x": found.x[place],
            "candidates": found.candidates[place],
            "of": torch.tensor(found.of),
            "times": torch.tensor([step.s, step.s_next, step.timestep], dtype=torch.float32),
        },
    )
