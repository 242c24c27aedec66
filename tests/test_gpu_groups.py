"""The manifest with several kinds of GPU: its command is a recipe's, and every label that a flag names is a group's."""

import shlex
from pathlib import Path

import pytest
import yaml

from jobs.cli import main

ROOT = Path(__file__).parents[1]
JOB = yaml.safe_load((ROOT / "infra/cluster/manifests/align.yaml").read_text())["spec"]
WORDS = shlex.split(JOB["entrypoint"])


def labels(flag):
    return dict(pair.split("=") for pair in WORDS[WORDS.index(flag) + 1].split(","))


@pytest.mark.parametrize("flag", ["--render-on", "--judge-on"])
def test_one_group_with_a_gpu_has_all_labels_that_a_flag_names(flag):
    groups = JOB["rayClusterSpec"]["workerGroupSpecs"]
    [found] = [group for group in groups if labels(flag).items() <= group["labels"].items()]
    assert found["rayStartParams"]["num-gpus"] == "1"


def test_generators_and_jurors_run_on_different_cards_and_the_jurors_on_spot_nodes():
    assert labels("--render-on") != labels("--judge-on") and labels("--judge-on")["salon.io/market"] == "spot"
    groups = JOB["rayClusterSpec"]["workerGroupSpecs"]
    cards = [group["template"]["spec"]["nodeSelector"]["nvidia.com/gpu.product"] for group in groups]
    assert len(cards) == len(set(cards)) == 2


def test_the_command_of_the_manifest_plans(tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("".join(f"a red kite number {number}\n" for number in range(20)))
    command = " ".join(WORDS[3:]).replace("/store", str(tmp_path))
    assert main(["plan", *shlex.split(command)]) == 3  # there is work to do
    shown = capsys.readouterr().out
    assert "render" in shown and "judge" in shown
