"""Bad input ends with status 2 before any work, and says where and what would be right."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from jobs.cli import main

CASES = {
    "unknown command": (["rn"], "did you mean run?"),
    "unknown recipe": (["plan", "miniatur"], "did you mean miniature?"),
    "unknown flag": (["plan", "support.numbers:numbers", "--cuont", "3"], "unknown flag --cuont; did you mean --count?"),
    "out of bounds": (["plan", "support.numbers:numbers", "--count", "-1"], "--count -1: Input should be greater"),
    "no number": (["run", "support.numbers:numbers", "--count", "many"], "--count many: Input should be a valid integer"),
    "unknown stage": (["plan", "support.numbers:numbers", "--until", "cube"], "its stages are numbers, squares, sum"),
    "no such module": (["plan", "nowhere:at_all"], "cannot be imported"),
    "too short a zoo": (["plan", "zoo", "--generator-steps", "6"], "--generator-steps 6: too few"),
    "no weights": (["plan", "vipo_image", "--weights", "./nothing"], "no such folder, and no hub id (OWNER/NAME)"),
    "no pairs": (["plan", "vipo_image", "--pairs", "./nothing"], "no such folder"),
    "flipped gradient": (
        ["plan", "vipo_image", "--alpha", "-3"],
        "--alpha -3: FixedAlpha: alpha = -3 is below -1",
    ),
    "negative weight": (["plan", "flow_dpo_video", "--dimensions", "VQ,TA=-1"], "the preference must not be turned round"),
    "offload without zero 3": (["plan", "vipo_image", "--offload", "all"], "offload"),
    "cached errors of DSPO": (
        ["plan", "arenapo", "--form", "dspo", "--draws", "4"],
        "--draws 4: dspo reads the reference's predictions",
    ),
    "cached errors of no reference": (
        ["plan", "flow_dpo_video", "--method", "sft", "--draws", "8"],
        "--draws 8: sft reads no reference; give --draws 0",
    ),
    "frames that Wan does not take": (
        ["plan", "flow_dpo_video", "--frames", "81,8"],
        "--frames 8: wan takes clips of 4k + 1",
    ),
    "no frames": (["plan", "vipo_video", "--frames", "-3"], "--frames -3: wan takes clips of 4k + 1 frames; give 1 or 5"),
    "more workers than pairs": (
        ["plan", "vipo_image", "--batch", "7", "--workers", "8"],
        "batch = 7 is less than the 8 training workers",
    ),
    "a pair for two workers": (["plan", "miniature", "--batch", "1"], "--batch 1: Tune: batch = 1 is less than the 2"),
    "unknown contender": (["plan", "lab", "--methods", "dpoo"], "--methods: unknown name 'dpoo'; known are dpo, "),
    "no tracking server": (
        ["run", "vipo_image", "--gpus", "0", "--mlflow", "http://127.0.0.1:1"],
        "--mlflow http://127.0.0.1:1: no server takes connections there"
        if find_spec("mlflow")
        else "mlflow is not installed",
    ),
    "half a list": (["plan", "vipo_image", "--preview-texts", '["a, b"'], "no JSON list"),
    "keys of no adapter": (["plan", "vipo_image", "--comfyui"], "set adapter to lora"),
    "miniature out of bounds": (["plan", "miniature", "--zero", "9"], "--zero 9"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_status_2_with_the_remedy(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv, message = CASES[case]
    try:
        status = main(argv)
    except SystemExit as exit:
        status = exit.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing may be written"


def test_a_recipe_whose_tables_do_not_fit_is_refused_when_built():
    from infra.config import ConfigError
    from support.numbers import Numbers, Sum

    with pytest.raises(ConfigError, match=r"Sum: squares = .* is refused"):
        Sum(squares=Numbers())  # type: ignore[arg-type]


OFFLINE = ["vipo_image", "vipo_video", "flow_dpo_video", "arenapo"]


@pytest.mark.parametrize("recipe", ["miniature", "zoo", *OFFLINE, "support.numbers:numbers"])
def test_plan_imports_neither_torch_nor_ray(recipe, tmp_path):
    code = f"""
import sys
from jobs.cli import main
status = main(["plan", {recipe!r}, "--root", {str(tmp_path)!r}])
heavy = [name for name in ("torch", "ray", "transformers", "diffusers", "matplotlib") if name in sys.modules]
print("status", status, "heavy", heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("status 3 heavy []"), done.stdout + done.stderr
