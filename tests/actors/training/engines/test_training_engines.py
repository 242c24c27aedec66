"""Plain torch and DeepSpeed agree: curves, averages, bfloat16, offload, exact resume from one another."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from actors.training.engines.engine import Adafactor, EngineOptions
from actors.training.launch import Halt, here
from actors.training.trainer import STATE, Training, read_curve, train
from infra.config import ConfigError
from support.line import Line, Net, line_options, net_options

TORCH = EngineOptions(kind="torch")
ZERO = [EngineOptions(zero=1), EngineOptions(zero=2), EngineOptions(zero=3)]


def run(folder: Path, engine: EngineOptions, **options) -> Path:
    return here(train, Training(Net(), net_options(engine=engine, **options)), folder=folder, on_report=None)


def same(found: Path, expected: Path, *, atol: float = 1e-5) -> None:
    """Curves, states and exports of two checkpoints."""
    for metric in ("loss", "size", "gradient_norm", "learning_rate"):
        columns = [[row[metric] for row in read_curve(checkpoint)] for checkpoint in (found, expected)]
        np.testing.assert_allclose(*columns, atol=atol, err_msg=metric)
    for name in (STATE, "export/net.safetensors"):
        one, other = load_file(found / name), load_file(expected / name)
        assert one.keys() == other.keys()
        for key in one:
            # Adam divides by the root of the second moment: where a gradient is next to nothing, so is its share.
            np.testing.assert_allclose(one[key].numpy(), other[key].numpy(), atol=20 * atol, err_msg=key)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain"), TORCH, ema=0.8)


@pytest.mark.parametrize("engine", ZERO, ids=lambda engine: f"zero{engine.zero}")
def test_zero_in_several_passes_continued_once_is_plain_torch_with_its_average(tmp_path, plain, engine):
    run(tmp_path, engine, ema=0.8, steps=3)
    same(run(tmp_path, engine, ema=0.8, micro_batch=3), plain)


def test_engines_take_over_from_one_another_average_included(tmp_path, plain):
    for steps, engine in ((1, ZERO[2]), (2, TORCH), (3, ZERO[0]), (4, ZERO[1]), (5, ZERO[2])):
        run(tmp_path, engine, ema=0.8, steps=steps, checkpoint_every=1)
    same(run(tmp_path, TORCH, ema=0.8), plain)


def test_without_an_average_the_state_has_none_and_the_curve_is_the_same(tmp_path, plain):
    checkpoint = run(tmp_path, TORCH)
    assert read_curve(checkpoint) == read_curve(plain)
    state = load_file(checkpoint / STATE)
    assert {key.split("/")[0] for key in state} == {"param", "exp_avg", "exp_avg_sq", "step"}
    exported = load_file(checkpoint / "export" / "net.safetensors")
    assert all(np.array_equal(exported[name], state[f"param/{name}"]) for name in exported)


@pytest.mark.parametrize(("zero", "offload"), [(1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "all")])
def test_what_lies_in_the_hosts_memory_changes_no_number(tmp_path, plain, zero, offload):
    engine = EngineOptions(zero=zero, offload=offload)
    run(tmp_path, engine, ema=0.8, steps=3)
    same(run(tmp_path, engine, ema=0.8, micro_batch=3), plain)


@pytest.mark.parametrize("engine", [TORCH, *ZERO], ids=lambda engine: engine.kind + str(engine.zero))
def test_bfloat16_has_fp32_masters_and_errors_and_resumes_exactly(tmp_path, plain, engine):
    half = engine.model_copy(update={"bf16": True})
    whole = run(tmp_path / "whole", half, ema=0.8)
    losses = [[row["loss"] for row in read_curve(checkpoint)] for checkpoint in (whole, plain)]
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert losses[0] != losses[1]
    # A step of 1e-2 on a weight of bfloat16 would be rounded; the masters are not numbers of bfloat16.
    masters = load_file(whole / STATE)["param/1.weight"]
    assert (masters.bfloat16().float() != masters).any()
    run(tmp_path / "halves", half, ema=0.8, steps=3)
    same(run(tmp_path / "halves", half, ema=0.8), whole, atol=1e-7)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("engine", [TORCH, *ZERO], ids=lambda engine: engine.kind + str(engine.zero))
def test_a_gradient_that_is_no_number_stops(tmp_path, engine, bf16):
    options = line_options(batch=5, engine=engine.model_copy(update={"bf16": bf16}))
    with pytest.raises(Halt, match="gradient of step 1 is not a finite number, on row-0, row-1"):
        here(train, Training(Line(spoilt=3), options), folder=tmp_path, on_report=None)
    assert '"what": "gradient"' in (tmp_path / "halted.json").read_text()


def test_offload_where_it_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="offload = 'all' needs zero = 3, not 2"):
        EngineOptions(zero=2, offload="all")
    with pytest.raises(ConfigError, match="offload = 'optimizer' needs kind = 'deepspeed'"):
        EngineOptions(kind="torch", offload="optimizer")


def test_the_first_step_of_adafactor_along_a_gradient_of_rank_one_is_the_rate_times_its_sign():
    rows, columns = torch.tensor([[1.0], [-2.0], [5.0]]), torch.tensor([[3.0, -0.1]])
    weight, bias = torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.zeros(2))
    weight.grad, bias.grad = rows * columns, torch.tensor([7.0, -0.2])
    Adafactor().build([weight, bias], learning_rate=0.25).step()
    torch.testing.assert_close(weight.detach(), -0.25 * (rows * columns).sign())
    torch.testing.assert_close(bias.detach(), torch.tensor([-0.25, 0.25]))


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix_and_continues_exactly(tmp_path):
    options = {"ema": 0.8, "optimizer": Adafactor(weight_decay=0.01)}
    whole = run(tmp_path / "whole", TORCH, **options)
    run(tmp_path / "halves", TORCH, **options, steps=3)
    same(run(tmp_path / "halves", TORCH, **options), whole, atol=1e-7)
    state = load_file(whole / STATE)
    assert (state["exp_avg_sq_row/1.weight"].shape, state["exp_avg_sq_col/1.weight"].shape) == ((13,), (12,))
    assert state["exp_avg_sq/1.bias"].shape == (13,) and "exp_avg_sq/1.weight" not in state


def test_adafactor_on_divided_parameters_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"set engine\.kind to torch, or optimizer to adamw"):
        net_options(engine=ZERO[0], optimizer=Adafactor())
