"""Online training of a tiny policy, with a reward for darker pictures."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from actors.media import decode
from actors.training.engines.engine import EngineOptions
from actors.training.options import TrainerOptions
from actors.training.trainer import Training
from infra.identity import canonical
from pipelines.algorithms.online.grpo import GRPO
from pipelines.algorithms.online.keep import FixedThreshold
from pipelines.algorithms.online.spo import SPO
from pipelines.algorithms.online.windows import EveryStep, SpreadSteps
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.models.adapter import Full, LoRA
from pipelines.models.rollout import RolloutPlan
from pipelines.models.scorers.scorer import Scorer
from pipelines.training.online import OnlineObjective
from pipelines.training.online_methods import GRPOMethod, OnlineDPOMethod, PairMethod, StepGRPOMethod, TAPOMethod
from pipelines.training.preference import PolicySpec
from pipelines.training.rewarding import FoundWeights, OnlinePrompt, ScorerTerm
from support.tiny import family_at
from support.training import SMALL, TEXTS, reader


class Darkness(Scorer):
    """Ten times the share of black; NaN for pictures of texts in `fails`."""

    convention: ClassVar = "10 (1 - mean of all channels)"
    name: str = "darkness"
    sign: float = 1.0
    fails: tuple[str, ...] = ()

    @property
    def dimensions(self) -> tuple[str, ...]:
        return ("overall",)

    def open(self, device, places):
        return OpenDarkness(self)


@dataclass
class OpenDarkness:
    config: Darkness

    def score(self, samples):
        found = [10 * self.config.sign * (1 - decode(one.media, clip=False).mean() / 255) for one in samples]
        failed = [one.prompt in self.config.fails for one in samples]
        return np.where(failed, np.nan, found)[:, None]


STEPS = 6
METHODS = {
    "tapo": TAPOMethod(
        plan=RolloutPlan(
            branches=2,
            shared_noise=True,
            candidates=4,
            window=SpreadSteps(count=2, first=1),
            scored="steps",
            keep=("best", "worst"),
        ),
        sampling_steps=STEPS,
        loss=SPO(beta=200.0, clip=None),
    ),
    "step_grpo": StepGRPOMethod(
        plan=RolloutPlan(branches=1, candidates=4, window=EveryStep(first=1), scored="steps", keep=("random",)),
        sampling_steps=STEPS,
        loss=GRPO(clip=1e-2, kl_weight=0.01),
    ),
    "flow_grpo": GRPOMethod(
        plan=RolloutPlan(branches=6, window=EveryStep(first=1), scored="end"),
        sampling_steps=STEPS,
        loss=GRPO(clip=1e-2, kl_weight=0.01),
    ),
    "spo": PairMethod(
        plan=RolloutPlan(candidates=4, window=EveryStep(first=1), scored="steps", keep=("random",)),
        sampling_steps=STEPS,
        loss=SPO(beta=100.0),
        threshold=FixedThreshold(value=0.0),
    ),
    "dpo": OnlineDPOMethod(plan=RolloutPlan(branches=4, scored="end"), sampling_steps=STEPS, loss=FlowDPO(beta=100.0)),
}


@dataclass
class Counted(OnlineObjective):
    """Counts the rounds that it rolls out."""

    rolled: list = field(default_factory=list)

    def _share(self, model, number, session):
        self.rolled.append(number)
        return super()._share(model, number, session)


def online(
    root: Path, name: str = "tapo", *, method=None, rewards=None, adapter: LoRA | Full = SMALL, **other: Any
) -> Counted:
    """An objective on the texts of `support.training.write_world`, 4 prompts per round."""
    method = method or METHODS[name]
    prompts = tuple(OnlinePrompt(f"1text{1 + number}", text, "") for number, text in enumerate(TEXTS))
    rewards = rewards or (ScorerTerm(scorer=Darkness()),)
    given: dict[str, Any] = {
        "policy": PolicySpec(family_at("miniature", root / "policy"), adapter, guidance=method.guidance),
        "method": method,
        "rewards": rewards,
        "prompts": prompts,
        "encoded": reader(root),
        "empty": "1text0",
        "shape": (1, 24, 24),
        "prompts_per_round": 4,
        "steps_per_round": 1,
        "reference": "adapter" if adapter.kind == "lora" else "copy",
        "places": FoundWeights({}),
        "described": {"method": canonical(method)},
    }
    return Counted(**given | other)


def online_training(job: Counted, **options: Any) -> Training:
    """Updates of one whole round each."""
    batch = job.prompts_per_round * job.method.per_prompt() // job.steps_per_round
    given = {"steps": 4, "batch": batch, "learning_rate": 2e-3, "warm_up": 1, "checkpoint_every": 2}
    return Training(job, TrainerOptions(engine=EngineOptions(kind="torch"), **given | options))


def numbers(curve: list[dict]) -> list[dict]:
    """A curve without what clocks say."""
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in curve]
