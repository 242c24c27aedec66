"""What a GPU would run, in small."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.benchmarks import gpu, gpu_tune

ALONE = """
import sys
from tests.benchmarks.gpu_tune import main
status = main(sys.argv[1:])
used = {name.split(".")[0] for name in sys.modules} & {"infra", "actors", "pipelines", "jobs", "ray"}
sys.exit(f"it imports {used}" if used else status)
"""


def test_it_runs_with_torch_diffusers_and_peft_alone_and_writes_a_file_of_the_devices_name(tmp_path):
    command = [sys.executable, "-c", ALONE, "--tiny", "--pairs", "1", "--peak-tflops", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert path.stem.startswith("tune-cpu-")
    assert {(row["adapter"], row["checkpointing"]) for row in found["rows"]} == {
        (adapter, checkpointing) for adapter in ("lora", "full") for checkpointing in (False, True)
    }
    assert set(found["versions"]) == {"torch", "diffusers", "peft", "python", "cuda"}
    for row in found["rows"]:
        assert row["pairs_per_second"] == pytest.approx(row["pairs"] / row["seconds"])
        assert row["model_flops_utilisation"] == pytest.approx(row["model_tflops_per_second"])
        assert not row["out_of_memory"]


def test_what_does_not_fit_is_a_row_that_says_so(monkeypatch):
    def full(*_args, **_named):
        raise torch.OutOfMemoryError("as a device would")

    monkeypatch.setattr(gpu_tune, "stepper", full)
    given = {"text": 7, "device": torch.device("cpu"), "peak": None, "steps": 1}
    row = gpu_tune.measure(gpu_tune.TINY, adapter="lora", checkpointing=False, pairs=4, **given)
    assert row == {"adapter": "lora", "checkpointing": False, "pairs": 4, "out_of_memory": True}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is there")
def test_without_a_device_it_says_so(capsys):
    assert gpu_tune.main([]) == 2
    assert "--tiny" in capsys.readouterr().err
    assert gpu_tune.run() == []


def test_a_step_trains_what_it_should():
    for adapter in ("lora", "full"):
        model, frozen = gpu_tune.build(gpu_tune.TINY, adapter=adapter, checkpointing=True, device=torch.device("cpu"))
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        step = gpu_tune.stepper(model, frozen, gpu_tune.TINY, pairs=2, text=7, device=torch.device("cpu"))
        assert step().item() == pytest.approx(0.6931, abs=0.05)
        changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        assert changed
        assert all("lora" in name for name in changed) == (adapter == "lora")


def test_a_step_is_reckoned_as_plan_reckons_it():
    lora, full = (gpu_tune.reckoned(adapter=adapter, checkpointing=True, pairs=1) for adapter in ("lora", "full"))
    assert lora > 2 * 2_243_171_520 / 2**30 and full > 16 * 2_243_171_520 / 2**30


def test_a_devices_peak_is_that_of_the_longest_name_that_fits():
    assert gpu.peak_of("NVIDIA H100 PCIe") < gpu.peak_of("NVIDIA H100 80GB HBM3")
    assert gpu.peak_of("NVIDIA L40S") != gpu.peak_of("NVIDIA L4")
    assert gpu.peak_of("an abacus") is None
