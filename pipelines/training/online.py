"""Online training as an objective of the trainer: rounds of rollouts, rewards and updates in the training processes.

Before the first step of a round every rank rolls out its share of the round's prompts with the policy as it is, scores what
the method wants scored, and keeps the states with their log-probabilities (`training.rollouts`). The updates of the round
read them. All that is random follows from seeds of (run, round, prompt), so a round that is replayed has the same states
whether its rollouts are found on disk or made again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.training.draws import Draw
from actors.training.engines.engine import Cast, uncast
from actors.training.launch import Halt, Session
from actors.training.objective import Losses
from actors.training.statistics import together
from infra.identity import seed_of
from infra.lazy import lazy
from infra.store.artifacts import RowReader
from pipelines.algorithms.diffusion.path import PathSample, per_sample_error
from pipelines.algorithms.diffusion.stochastic import kl, log_prob
from pipelines.algorithms.online.moves import Moves, state_weights
from pipelines.algorithms.online.stop import StopRule
from pipelines.algorithms.preference.pairwise import Member, PairBatch
from pipelines.models.policy import ReferenceModel
from pipelines.schemas.training import RolloutState
from pipelines.training.data import Latents
from pipelines.training.noise import NoiseDraws
from pipelines.training.online_methods import AnyOnlineMethod, OnlineDPOMethod
from pipelines.training.online_rollouts import HELD_OUT, Roller
from pipelines.training.online_summary import summary
from pipelines.training.preference import PolicySpec
from pipelines.training.previews import PreviewSpec, draw_previews
from pipelines.training.rewarding import AnyReward, FoundWeights, OnlinePrompt, OpenRewards
from pipelines.training.rollouts import RolloutFiles, RolloutPart, RolloutRound

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.models.policy import Policy
else:
    torch = lazy("torch")

PARITY_EVERY = 50  # rounds
PARITY_STATES = 8
EXACT, ROUNDED = 1e-5, 1e-3  # largest difference of log-probabilities without a clip range, in fp32 and in bf16


@dataclass(frozen=True)
class HeldOut:
    """What is measured on held-out prompts, and what follows from it."""

    prompts: tuple[OnlinePrompt, ...] = ()
    terms: tuple[AnyReward, ...] = ()
    """Measures that are not rewarded; their weighted sum is what the rule watches."""
    every: int = 10
    """Rounds between two measurements."""
    rule: StopRule | None = None


@dataclass
class OnlineObjective:
    """Picklable; `prepare` loads the policy and the rewards."""

    policy: PolicySpec
    method: AnyOnlineMethod
    rewards: tuple[AnyReward, ...]
    prompts: tuple[OnlinePrompt, ...]
    encoded: RowReader
    empty: str
    """Id of the encoded empty text."""
    shape: tuple[int, int, int]
    """Frames, height and width of a sample, in pixels."""
    prompts_per_round: int
    steps_per_round: int
    reference: ReferenceModel
    places: FoundWeights
    described: dict[str, Any]
    seed: int = 0
    measured: HeldOut = HeldOut()
    at_once: int = 8
    """Prompts that one rollout of a rank has at most."""
    rounds_kept: int = 2
    previews: PreviewSpec | None = None
    comfyui: bool = False
    _ready: Any = field(default=None, init=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """The stage's identity, as the artifact's record has it."""
        return self.described

    def prepare(self, device: torch.device, *, cast: Cast = uncast) -> nn.Module:
        """Loads the policy, the rewards and the embedded texts."""
        policy = self.policy.load(device, reference=self.reference, cast=cast)
        rewards = OpenRewards(self.rewards, policy=policy.loaded, device=device, places=self.places)
        measures = OpenRewards(self.measured.terms, policy=policy.loaded, device=device, places=self.places)
        frames, height, width = self.shape
        latent = self.policy.family.latent_shape(frames=frames, height=height, width=width)
        self._ready = _Collecting(
            Roller(
                policy=policy,
                method=self.method,
                rewards=rewards,
                measures=measures,
                texts=Latents(self.encoded),
                empty=self.empty,
                latent=latent,
                seed=self.seed,
                at_once=self.at_once,
                device=device,
            )
        )
        return policy.model

    @property
    def size(self) -> int:
        """Examples of a round."""
        return self.prompts_per_round * self.method.per_prompt()

    @property
    def groups(self) -> None:
        """All samples have one shape."""
        return None

    @property
    def round(self) -> int:
        """Optimiser steps per round."""
        return self.steps_per_round

    def name_of(self, index: int) -> str:
        """Id of a state of the current round."""
        return self._ready.states[index].id

    def prefetch(self, draws: list[Draw]) -> None:
        """The round is in memory."""

    @property
    def needs_means(self) -> bool:
        return False

    def statistics(self, model: nn.Module, draws: list[Draw]) -> dict[str, torch.Tensor]:
        return {}

    def collect(self, model: nn.Module, number: int, session: Session) -> dict[str, float]:
        """Finds the rollouts of a round or makes them; the round's figures, equal on all ranks."""
        ready: _Collecting = self._ready
        updated = time.perf_counter() - ready.collected_at if ready.collected_at else None
        files = RolloutFiles(session.folder, rounds_kept=self.rounds_kept)
        found = self._agreed(files.read(number), session)
        if found is None:
            part = self._share(model, number, session)
            files.write(number, part, rank=session.rank, world=session.world)
            together([""], session.world)  # every part is there
            found = self._agreed(files.read(number), session)
            if found is None:
                raise OSError(f"the rollouts just written to {files.folder} cannot be read; is the disk full or at fault?")
        states = self.method.valued(found.states)
        if not any(math.isfinite(score) for state in states for score in state.score):
            raise Halt(
                f"every reward of round {number} is NaN, so there is nothing to learn from; look at the rewards' log"
            )
        weights = state_weights(torch.tensor([state.used for state in states]))
        ready.states, ready.found, ready.weights = states, found, weights
        figures = summary(states, found.notes, method=self.method)
        if updated is not None:
            figures["update_seconds"] = updated
        if number % PARITY_EVERY == 0 and self.method.moves is not None:
            figures["parity"] = self._parity(model, session)
        if session.rank == 0:
            files.settle(number, states)
        together([""], session.world)
        ready.collected_at = time.perf_counter()
        return figures

    def _agreed(self, found: RolloutRound | None, session: Session) -> RolloutRound | None:
        """What was found, if every rank found it."""
        all_found = together([] if found is None else ["found"], session.world)
        return found if len(all_found) == session.world else None

    def chosen(self, number: int) -> list[OnlinePrompt]:
        """The prompts of a round: pieces of endless shuffled passes over all of them."""
        first, found = number * self.prompts_per_round, []
        for place in range(first, first + self.prompts_per_round):
            turn, position = divmod(place, len(self.prompts))
            order = np.random.default_rng(seed_of(self.seed, "prompts", turn)).permutation(len(self.prompts))
            found.append(self.prompts[int(order[position])])
        return found

    def _share(self, model: nn.Module, number: int, session: Session) -> RolloutPart:
        """This rank's share of a round, with the measurements that are due."""
        mine = list(enumerate(self.chosen(number)))[session.rank :: session.world]
        part = self._ready.roller.rolled(model, mine, number=number)
        if self.measured.prompts and number % self.measured.every == 0:
            part.notes[HELD_OUT] = self._ready.roller.measured(model, self.measured.prompts[session.rank :: session.world])
        return part

    def _parity(self, model: nn.Module, session: Session) -> float:
        """Largest difference of stored and recomputed log-probabilities of a few states; Halt where it is no rounding."""
        ready: _Collecting = self._ready
        index = list(range(session.rank, len(ready.states), session.world))[:PARITY_STATES]
        with torch.enable_grad():
            moves = self._moves(model, index, means=False)
        now, old = moves.log_prob.detach().flatten(), moves.old.flatten()
        place = int((now - old).abs().argmax())
        every = together([f"{float(now[place])!r} {float(old[place])!r}"], session.world)
        pairs = [tuple(map(float, one.split())) for one in every]
        worst = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
        allowed = self.method.parity or (EXACT if next(model.parameters()).dtype == torch.float32 else ROUNDED)
        difference = abs(worst[0] - worst[1])
        if not difference <= allowed:
            raise Halt(
                f"the policy's log-probabilities cannot be reproduced: the rollout stored {worst[1]:.6f}, the update "
                f"computes {worst[0]:.6f}, and {allowed:g} may be rounding; usual reasons are dropout, another guidance "
                "scale, another precision or other texts in the update than in the rollout"
            )
        return difference

    def losses(self, model: nn.Module, draws: list[Draw], *, means: Mapping[str, float]) -> Losses:
        """The method's loss of each state, and what is logged of it."""
        ready: _Collecting = self._ready
        index = [draw.index for draw in draws]
        if isinstance(self.method, OnlineDPOMethod):
            return self._pair_losses(self.method, model, draws)
        assert self.method.moves is not None
        found = self.method.moves.losses(self._moves(model, index, means=self.method.reference == "means"))
        used = torch.tensor([ready.states[place].used for place in index])
        shown = {name: value[used.to(value.device)] for name, value in found.metrics.items()}
        return Losses(found.losses, metrics={name: value if len(value) else None for name, value in shown.items()})

    def _moves(self, model: nn.Module, index: Sequence[int], *, means: bool) -> Moves:
        """Log-probabilities of the candidates of these states, with gradient."""
        ready: _Collecting = self._ready
        states = [ready.states[place] for place in index]
        tensors = [ready.found.tensors(place) for place in index]
        x = torch.stack([one["x"] for one in tensors]).to(ready.device)
        candidates = torch.stack([one["candidates"] for one in tensors]).to(ready.device)
        times = torch.stack([one["times"] for one in tensors]).to(ready.device)
        each, chosen = x.shape[1], candidates.shape[1]
        flat = x.flatten(0, 1)
        s, s_next, timestep = times.repeat_interleave(each, dim=0).T
        grid = ready.roller.grid(model, [state.prompt for state in states])
        rows = torch.arange(len(states), device=ready.device).repeat_interleave(each)
        move = self._move(grid.at(flat, timestep, prompts=rows), flat, s, s_next)
        of = torch.stack([one["of"] for one in tensors]).to(ready.device)
        place = (torch.arange(len(states), device=ready.device)[:, None] * each + of).flatten()
        found = log_prob(candidates.flatten(0, 1), move=move.take(place)).unflatten(0, (len(states), chosen))
        divergence = None
        if means:
            with torch.no_grad(), ready.policy.referring(model) as reference:
                grid.model = reference
                theirs = self._move(grid.at(flat, timestep, prompts=rows), flat, s, s_next).mean
                grid.model = model
            divergence = kl(move, reference=theirs, **self._kl_options()).unflatten(0, (len(states), each)).mean(1)
        old = torch.tensor([state.old for state in states], device=ready.device)
        stored = [state.reference for state in states]
        return Moves(
            log_prob=found,
            old=old,
            reference=torch.tensor(stored, device=ready.device) if all(stored) else None,
            value=torch.tensor([state.value for state in states], device=ready.device),
            weight=ready.weights[list(index)].to(ready.device),
            kl=divergence,
        )

    def _kl_options(self) -> dict[str, bool]:
        return {"without_dt": bool(getattr(self.method.moves, "kl_without_dt", False))}

    def _move(self, prediction: torch.Tensor, x: torch.Tensor, s: torch.Tensor, s_next: torch.Tensor) -> Any:
        path = self._ready.policy.loaded.path
        return self.method.plan.step.move(x, prediction, s=s, s_next=s_next, path=path)

    def _pair_losses(self, method: OnlineDPOMethod, model: nn.Module, draws: list[Draw]) -> Losses:
        """DPO on best and worst at one noise and time, with the reference's errors there."""
        ready: _Collecting = self._ready
        index = [draw.index for draw in draws]
        states = [ready.states[place] for place in index]
        x = torch.stack([ready.found.tensors(place)["x"] for place in index]).to(ready.device)
        shape, loaded = x.shape[2:], ready.policy.loaded
        sampled = NoiseDraws(method.times, draws=None).sample(
            [draw.seed for draw in draws], shape=shape, own_shift=loaded.time_shift(shape)
        )
        noise, t = (value.to(ready.device).repeat_interleave(2, dim=0) for value in sampled)
        sample = loaded.path.sample(x.flatten(0, 1), noise=noise, t=t)
        rows = torch.arange(len(states), device=ready.device).repeat_interleave(2)
        grid = ready.roller.grid(model, [state.prompt for state in states])
        told = loaded.path.timesteps(sample.t)
        ours = grid.at(sample.x_t, told, prompts=rows)
        with torch.no_grad(), ready.policy.referring(model) as reference:
            grid.model = reference
            theirs = grid.at(sample.x_t, told, prompts=rows)
        unknown = torch.full((len(states),), torch.nan, device=ready.device)
        winner, loser = (_member(sample, ours, theirs, side) for side in (0, 1))
        ties = torch.zeros(len(states), dtype=torch.bool, device=ready.device)
        batch = PairBatch(
            winner, loser, t[::2].float(), unknown, unknown, ties, torch.zeros_like(unknown), torch.zeros_like(unknown)
        )
        found = method.loss.losses(batch, means={})
        return Losses(found.losses * ready.weights[index].to(ready.device), metrics=dict(found.metrics))

    def ended(self, curve: Sequence[Mapping[str, Any]]) -> str | None:
        """Why the training ends early, by the rule on held-out prompts."""
        if self.measured.rule is None:
            return None
        rows = [row for row in curve if row.get("held_out_reward") is not None and row.get("held_out_measure") is not None]
        return self.measured.rule.reason(
            [row["held_out_reward"] for row in rows], [row["held_out_measure"] for row in rows]
        )

    def preview(self, model: nn.Module, *, step: int, folder: Path | None) -> None:
        """One picture a text, its first frame where it is a clip."""
        if self.previews is not None:
            draw_previews(self.previews, self._ready.policy, model, texts=self._ready.roller.texts, folder=folder)

    def export(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """Writes the trained parameters as a LoRA or a whole pipeline; see `Policy.export`."""
        self._ready.policy.export(parameters, folder, comfyui=self.comfyui)


@dataclass
class _Collecting:
    """A prepared objective, and its current round."""

    roller: Roller
    states: list[RolloutState] = field(default_factory=list)
    found: Any = None
    weights: Any = None
    collected_at: float = 0.0

    @property
    def policy(self) -> Policy:
        return self.roller.policy

    @property
    def device(self) -> torch.device:
        return self.roller.device


def _member(sample: PathSample, ours: torch.Tensor, theirs: torch.Tensor, side: int) -> Member:
    """Winner (0) or loser (1) of rows that alternate."""
    prediction, target, reference = ours[side::2], sample.target[side::2], theirs[side::2]
    errors = (per_sample_error(one, target=target) for one in (prediction, reference))
    error, reference_error = errors
    return Member(prediction, target, error, reference, reference_error)
