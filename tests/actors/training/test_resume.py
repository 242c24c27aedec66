"""What a run may be continued with: the same objective and options, whatever holds the devices."""

import pytest

from actors.training.engines.engine import AdamW, EngineOptions
from actors.training.launch import here
from actors.training.trainer import Training, read_curve, train
from infra.config import ConfigError
from support.line import Line, line_options


def go(folder, objective=None, **options):
    job = Training(
        objective or Line(), line_options(steps=4, checkpoint_every=2) if not options else line_options(**options)
    )
    return read_curve(here(train, job, folder=folder, on_report=None))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"learning_rate": 0.2}, r"trainer\.learning_rate was 0\.1 and is now 0\.2"),
        ({"optimizer": AdamW(betas=(0.9, 0.95))}, r"trainer\.optimizer\.betas\.1 was 0\.99 and is now 0\.95"),
        ({"ema": 0.9}, r"trainer\.ema was null and is now 0\.9"),
        ({"seed": 1}, r"trainer\.seed was 0 and is now 1"),
        ({"schedule": "cosine", "steps": 6}, r'trainer\.schedule was "constant" and is now "cosine"'),
        ({"engine": EngineOptions(kind="torch", bf16=True)}, r"trainer\.engine\.bf16 was false and is now true"),
    ],
)
def test_another_option_is_refused_by_name_with_both_values(tmp_path, changed, named):
    go(tmp_path)
    with pytest.raises(ConfigError, match=f"{named}; give it its old value, or train under another name"):
        go(tmp_path, **{"steps": 4} | changed)


@pytest.mark.parametrize(
    ("objective", "named"),
    [
        (Line(slope=2.0), r"objective\.slope was 3\.0 and is now 2\.0"),
        (Line(shapes=[0] * 5), r"objective\.shapes was null and is now \[0, 0, 0, 0, 0\]"),
    ],
)
def test_another_objective_is_refused_by_name(tmp_path, objective, named):
    go(tmp_path)
    with pytest.raises(ConfigError, match=named):
        go(tmp_path, objective)


def test_more_steps_are_the_same_run_only_at_a_constant_rate(tmp_path):
    go(tmp_path / "constant", steps=4)
    assert go(tmp_path / "constant", steps=8) == go(tmp_path / "at_once", steps=8)
    go(tmp_path / "cosine", steps=4, schedule="cosine")
    with pytest.raises(ConfigError, match=r"trainer\.steps was 4 and is now 8"):
        go(tmp_path / "cosine", steps=8, schedule="cosine")


def test_where_and_in_how_many_passes_it_runs_may_change(tmp_path):
    go(tmp_path / "a", steps=4)
    changed = {"micro_batch": 1, "checkpoint_every": 1, "preview_every": 3, "engine": EngineOptions(zero=2)}
    found = go(tmp_path / "a", steps=8, **changed)
    whole = go(tmp_path / "b", steps=8)
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in whole], rel=1e-4)
