"""Trackers: what was told is read back, and a run that was killed and continued shows every step once."""

import json
import struct
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from actors.training.launch import here
from actors.training.trackers.mlflow_runs import MLflow
from actors.training.trackers.tracker import Trackers, open_trackers
from actors.training.trackers.weights_and_biases import WandB
from actors.training.trainer import Training, train
from infra.config import ConfigError
from support.line import Line, line_options


def events(folder: Path):
    """Every event of a folder of event files, in the order TensorBoard reads them: files by name, records one by one."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: a session's start at a step forgets that step and all later ones."""
    found = defaultdict(list)
    for event in events(folder):
        if event.HasField("session_log"):
            for name in found:
                found[name] = [point for point in found[name] if point[0] < event.step]
        for value in event.summary.value:
            content = value.image.height if value.HasField("image") else value.simple_value
            found[value.tag].append((event.step, content))
    return dict(found)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def tracker(folder: Path, *, resume_step: int = 0):
    return open_trackers(Trackers(), folder, run="tune-1", config={"a": 1}, resume_step=resume_step)


def test_numbers_and_pictures_are_read_back(tmp_path):
    Image.new("RGB", (3, 5), (255, 0, 0)).save(tmp_path / "red.png")
    told = tracker(tmp_path / "told")
    told.log(1, {"step": 1, "loss": 0.5, "kl": None})
    told.log(2, {"step": 2, "loss": 0.25, "kl": 2.0, "bad": float("nan")})
    told.pictures(2, {"red": tmp_path / "red.png"})
    told.close()
    assert lines(tmp_path / "told")[:2] == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "kl": 2.0}]
    assert lines(tmp_path / "told")[2] == {"step": 2, "pictures": {"red": str(tmp_path / "red.png")}}
    found = shown(tmp_path / "told" / "tensorboard")
    assert found == {"loss": [(1, 0.5), (2, 0.25)], "kl": [(2, 2.0)], "red": [(2, 5)]}


def test_steps_after_the_one_it_goes_on_from_are_replaced(tmp_path):
    killed = tracker(tmp_path)
    for step in range(1, 6):
        killed.log(step, {"loss": float(step)})
    killed.flush()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # it was writing
    for again in range(2):
        resumed = tracker(tmp_path, resume_step=3)
        for step in range(4, 7):
            resumed.log(step, {"loss": 10.0 * step + again})
        resumed.close()
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 41.0), (5, 51.0), (6, 61.0)]
    assert [(row["step"], row["loss"]) for row in lines(tmp_path)] == expected
    assert shown(tmp_path / "tensorboard")["loss"] == expected


def test_what_was_flushed_is_there_without_a_close(tmp_path):
    told = tracker(tmp_path)
    for step in range(1, 40):
        told.log(step, {"loss": 1.0})
    told.flush()
    assert len(lines(tmp_path)) == len(shown(tmp_path / "tensorboard")["loss"]) == 39
    told.close()


def test_every_tracker_is_closed_whatever_another_raises(tmp_path):
    told = tracker(tmp_path)
    told.sinks[-1].close()
    told.sinks[-1].writer = None
    with pytest.raises(AttributeError):
        told.close()
    assert told.sinks[0].file.closed


def missing(package: str):
    return pytest.mark.skipif(find_spec(package) is not None, reason=f"{package} is installed")


@pytest.mark.parametrize(
    ("options", "package"),
    [
        pytest.param(Trackers(wandb=WandB(project="salon")), "wandb", marks=missing("wandb")),
        pytest.param(Trackers(mlflow=MLflow(uri="sqlite:///runs.db")), "mlflow", marks=missing("mlflow")),
    ],
)
def test_a_missing_package_is_said_before_anything_is_computed(tmp_path, options, package):
    class Untouched(Line):
        def prepare(self, device, *, cast=None):
            raise AssertionError

    with pytest.raises(ConfigError, match=rf"{package} is not installed; pip install 'salon\[{package}\]'"):
        here(train, Training(Untouched(), line_options(), options), folder=tmp_path, on_report=None)
