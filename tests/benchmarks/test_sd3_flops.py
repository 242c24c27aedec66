"""The formula counts what torch counts."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.gpu_tune import MEDIUM, RANK, TINY, build
from tests.benchmarks.sd3_flops import sd3_flops

CPU = torch.device("cpu")
TOKENS = 7


def counted(adapter: str, *, gradient: bool, pictures: int = 2) -> float:
    """Of the policy's pass alone, a picture; attention as plain products, which torch counts on a CPU."""
    model, _ = build(TINY, adapter=adapter, checkpointing=False, device=CPU)
    model = model.float()
    side = TINY["sample_size"]
    given = (
        torch.randn(pictures, 16, side, side),
        torch.randn(pictures, TOKENS, TINY["joint_attention_dim"]),
        torch.randn(pictures, TINY["pooled_projection_dim"]),
        torch.full((pictures,), 500.0),
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.set_grad_enabled(gradient):
        answer = model(*given, return_dict=False)[0]
        if gradient:
            answer.square().mean().backward()
    return counter.get_total_flops() / pictures


def formula():
    return sd3_flops(TINY, height=TINY["sample_size"], width=TINY["sample_size"], text=TOKENS, rank=RANK)


def test_a_forward_pass_is_exact():
    assert formula().forward == counted("full", gradient=False)


def test_a_loras_forward_pass_is_exact():
    assert formula().forward + formula().lora == counted("lora", gradient=False)


@pytest.mark.parametrize(("adapter", "within"), [("full", 0.02), ("lora", 0.06)])
def test_a_step_is_a_policys_forward_and_backward_and_a_references_forward(adapter, within):
    """But for what goes into the first layers, which needs no gradient."""
    policy = formula().step(adapter=adapter) - formula().forward
    assert policy == pytest.approx(counted(adapter, gradient=True), rel=within)
    assert policy >= counted(adapter, gradient=True)


def test_a_megapixel_through_sd35_medium_is_exact():
    """Counted without numbers: shapes are enough."""
    from diffusers import SD3Transformer2DModel

    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = SD3Transformer2DModel(**MEDIUM)
        model(
            torch.randn(1, 16, 128, 128), torch.randn(1, 333, 4096), torch.randn(1, 2048), torch.ones(1), return_dict=False
        )
    assert sd3_flops(MEDIUM, height=128, width=128, text=333).forward == counter.get_total_flops()
