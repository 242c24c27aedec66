"""Rendering and judging as a GPU would run them, in small; and what is counted of them at their real size."""

import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks import gpu_judge, gpu_render
from tests.benchmarks.sd3_flops import sd3_flops

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("benchmark", "unit", "rate"),
    [(gpu_render, "pictures", "pictures_per_second"), (gpu_judge, "questions", "questions_per_second")],
)
def test_a_tiny_run_writes_a_file_of_the_devices_name(benchmark, unit, rate, tmp_path):
    assert benchmark.main(["--tiny", f"--{unit}", "1", "2", "--peak-tflops", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert path.stem == f"{benchmark.__name__.split('_')[-1]}-cpu-{found['device'].split()[1].replace('_', '-')}"
    assert found["seed"] == 0 and "2 m n k" in found["flops"]
    assert [row["batch"] for row in found["rows"]] == [1, 2] * (len(found["rows"]) // 2)
    for row in found["rows"]:
        assert row[rate] == pytest.approx(row["batch"] / row["seconds"])
        assert row["model_flops_utilisation"] == pytest.approx(row["model_tflops_per_second"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is there")
@pytest.mark.parametrize("benchmark", [gpu_render, gpu_judge])
def test_without_a_device_it_says_so(benchmark, capsys):
    assert benchmark.main([]) == 2
    assert "--tiny" in capsys.readouterr().err
    assert benchmark.run() == []


def test_the_operations_of_a_question_are_those_that_torch_counts():
    size = gpu_judge.TINIES["qwen2-vl-2b"]
    ask = gpu_judge.asking(size, 2, device=CPU)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        assert ask().shape == (2, size.text["vocab_size"])
    assert 2 * gpu_judge.flops_of(size) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_the_sizes_are_the_published_ones():
    sd3, klein = gpu_render.SIZES["sd3.5-medium"], gpu_render.SIZES["flux.2-klein-4b"]
    assert 2_243_171_520 < gpu_render.weights_of(sd3) * 2**29 < 2_243_171_520 + 90e6  # the VAE has 84 million
    assert 3_875_544_576 < gpu_render.weights_of(klein) * 2**29 < 3_875_544_576 + 90e6
    assert gpu_judge.weights_of(gpu_judge.SIZES["qwen2-vl-2b"]) * 2**29 == 2_208_985_600


def test_a_picture_is_two_denoiser_passes_per_step_and_one_decoding():
    size = gpu_render.SIZES["sd3.5-medium"]
    one, two = (gpu_render.flops_of(size, steps=steps) for steps in (1, 2))
    assert two - one == 2 * sd3_flops(size.config, height=128, width=128, text=333).forward
