"""Laws of the online losses at the first update, where the policy is the reference and the rollout's own."""

import math

import pytest
import torch

from pipelines.algorithms.diffusion.path import FlowPath
from pipelines.algorithms.diffusion.stochastic import FlowSDE, kl, log_prob
from pipelines.algorithms.online.grpo import GRPO
from pipelines.algorithms.online.moves import Moves, state_weights
from pipelines.algorithms.online.spo import SPO

TIMES = torch.tensor([0.9, 0.6, 0.3])


class Toy:
    """A policy with a velocity theta_0 x + theta_1, rolled out for two stochastic steps in `count` branches."""

    def __init__(self, *, count=6):
        generator = torch.Generator().manual_seed(0)
        self.theta = torch.tensor([0.3, -0.2], requires_grad=True)
        self.x, self.s, self.s_next, self.next = [], [], [], []
        x = torch.randn(count, 2, 3, generator=generator)
        for k in range(2):
            s, s_next = (TIMES[place].expand(count) for place in (k, k + 1))
            with torch.no_grad():
                point = self.move(x, s, s_next).point(torch.randn(count, 2, 3, generator=generator))
            for column, value in zip((self.x, self.s, self.s_next, self.next), (x, s, s_next, point), strict=True):
                column.append(value)
            x = point
        self.x, self.s, self.s_next, self.next = (torch.cat(c) for c in (self.x, self.s, self.s_next, self.next))

    def move(self, x, s, s_next):
        return FlowSDE().move(x, self.theta[0] * x + self.theta[1], s=s, s_next=s_next, path=FlowPath())

    def log_probs(self):
        return log_prob(self.next, move=self.move(self.x, self.s, self.s_next))


def gradient(loss, theta):
    return torch.autograd.grad(loss, theta, retain_graph=True)[0]


def test_grpos_first_gradient_is_that_of_minus_advantage_times_log_probability():
    toy = Toy()
    advantage = torch.linspace(-1, 1, 6).repeat(2)  # every step of a branch has its branch's
    lp = toy.log_probs()
    move = toy.move(toy.x, toy.s, toy.s_next)
    moves = Moves(
        log_prob=lp[:, None],
        old=lp.detach()[:, None],
        reference=None,
        value=advantage[:, None],
        weight=torch.ones(12),
        kl=kl(move, reference=move.mean),
    )
    loss = GRPO(kl_weight=0.04).losses(moves).losses.mean()
    torch.testing.assert_close(gradient(loss, toy.theta), gradient(-(advantage * lp).mean(), toy.theta))
    assert gradient(loss, toy.theta).abs().min() > 0


def test_grpos_ratio_has_no_gradient_beyond_the_clip_range_on_the_side_that_the_advantage_favours():
    lp = torch.tensor([[0.1], [0.1], [-0.1], [-0.1]], requires_grad=True)
    value = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    moves = Moves(log_prob=lp, old=torch.zeros(4, 1), reference=None, value=value, weight=torch.ones(4), kl=None)
    found = GRPO(clip=0.01, kl_weight=0.0).losses(moves)
    (slopes,) = torch.autograd.grad(found.losses.sum(), lp)
    assert (slopes != 0).flatten().tolist() == [False, True, True, False]
    assert found.metrics["clip_share"].tolist() == [1.0] * 4


@pytest.mark.parametrize(("beta", "clip"), [(10.0, 0.1), (1000.0, None)])
def test_the_first_loss_of_spo_and_tapo_is_ln_2_with_a_gradient_that_is_not_zero(beta, clip):
    toy = Toy()
    lp = toy.log_probs().view(2, 6).T  # TAPO: each candidate at a state of its own
    value = torch.tensor([[1.0, -1.0]]).expand(6, 2)
    moves = Moves(log_prob=lp, old=lp.detach(), reference=lp.detach(), value=value, weight=torch.ones(6), kl=None)
    found = SPO(beta=beta, clip=clip).losses(moves)
    assert found.losses.tolist() == [pytest.approx(math.log(2), abs=1e-7)] * 6
    assert found.metrics["implicit_accuracy"].tolist() == [0.5] * 6
    first = gradient(found.losses.mean(), toy.theta)
    torch.testing.assert_close(first, gradient(-0.5 * beta * (lp[:, 0] - lp[:, 1]).mean(), toy.theta))
    assert first.abs().min() > 0


def test_spos_clip_stops_a_ratio_that_has_gone_far_enough():
    lp = torch.tensor([[0.2, -0.05]], requires_grad=True)
    zero, value = torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])
    moves = Moves(log_prob=lp, old=zero, reference=zero, value=value, weight=torch.ones(1), kl=None)
    (slopes,) = torch.autograd.grad(SPO(clip=0.1).losses(moves).losses.sum(), lp)
    assert (slopes != 0).tolist() == [[False, True]]


def test_the_mean_over_a_round_is_the_mean_over_what_is_used():
    used = torch.tensor([True, False, True, False, False])
    weight = state_weights(used)
    losses = torch.tensor([1.0, 7.0, 3.0, 7.0, 7.0])
    assert float((weight * losses).mean()) == pytest.approx(2.0)
    assert not state_weights(torch.zeros(3, dtype=torch.bool)).any()
