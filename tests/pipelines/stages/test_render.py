"""Rendering: seeds by prompt and group, any generator of pictures or clips, one failure is one row's."""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from actors.media import clip_timing, decode
from actors.resident import CannotOpen
from infra.config import ConfigError
from pipelines.miniature.generators import shipped
from pipelines.miniature.prompts import Grammar
from pipelines.models.generators.generator import Generator
from pipelines.schemas.samples import Clip, Picture
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render, RenderWorker
from tests.support.places import NOWHERE

PROMPTS = [
    {"id": "0" * 12, "text": "a red circle", "split": "train"},
    {"id": "1" * 12, "text": "a blue square", "split": "train"},
    {"id": "2" * 12, "text": "two circles", "split": "evaluation"},
]


class Blinking(Generator):
    """Grey levels that follow the seed, frame by frame; texts of one word are refused."""

    frames: int = 4
    size: int = 16
    kind: Literal["image", "video"] = "video"
    broken: bool = False

    @property
    def medium(self):
        return self.kind

    @property
    def fps(self):
        return 12.5 if self.kind == "video" else None

    def open(self, device, places):
        if self.broken:
            raise OSError("no such weights")
        return self

    def sample(self, requests):
        def one(request):
            if " " not in request.prompt:
                return ValueError("one word is no prompt")
            levels = np.random.default_rng(request.seed).integers(0, 256, (self.frames, 1, 1, 1), np.uint8)
            return np.broadcast_to(levels, (self.frames, self.size, self.size, 3))

        return [one(request) for request in requests]


class Rows:
    """Prompts as a run would read them."""

    def table(self, parent, columns=None, *, name=None):
        return pa.Table.from_pylist(PROMPTS).select(columns)


def cells(**options):
    options = {"roster": shipped()[-2:]} | options
    return Render(prompts=WritePrompts(source=Grammar()), **options).cells(Rows()).to_pylist()


def seeds(rows):
    return {(row["text"], row["generator"], row["sample"]): row["seed"] for row in rows}


def test_only_the_chosen_splits_are_rendered():
    assert {row["text"] for row in cells()} == {"a red circle", "a blue square"}
    assert {row["text"] for row in cells(splits=("evaluation",))} == {"two circles"}
    assert len(cells(splits=("train", "evaluation"))) == 6


def test_generators_have_seeds_of_their_own_or_share_them():
    own, shared = seeds(cells()), seeds(cells(seeds="shared"))
    assert len(set(own.values())) == len(own) == 4
    assert len(set(shared.values())) == 2
    assert all(shared[text, "late", 0] == shared[text, "policy", 0] for text, _, _ in shared)


def test_shared_seeds_ignore_the_name_that_an_arm_has():
    policy = shipped()[-1]
    renamed = policy.model_copy(update={"name": "another name"})
    [first, second] = [cells(roster=(one,), seeds="shared", seed=3) for one in (policy, renamed)]
    assert [row["seed"] for row in first] == [row["seed"] for row in second]


def test_another_seed_gives_other_pictures_and_other_rows():
    first, second = cells(seed=0), cells(seed=1)
    assert not {row["seed"] for row in first} & {row["seed"] for row in second}
    assert not {row["id"] for row in first} & {row["id"] for row in second}


def test_more_samples_keep_the_first():
    few, many = cells(), cells(samples={"policy": 3})
    assert {row["id"] for row in few} < {row["id"] for row in many} and len(many) == len(few) + 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"roster": ()}, "distinct names"),
        ({"roster": (shipped()[0], shipped()[0])}, "distinct names"),
        ({"samples": {"nobody": 2}}, "'nobody', which is not in the roster"),
        ({"roster": (Blinking(name="clips"),)}, "use RenderClips"),
        ({"splits": ()}, "splits is empty"),
    ],
)
def test_what_cannot_be_rendered_is_refused_when_it_is_declared(options, reason):
    with pytest.raises(ConfigError, match=reason):
        cells(**options)


def worked(generator, texts, row):
    worker = RenderWorker([generator], row=row, resident=1)
    worker.open("cpu", NOWHERE)
    given = {"prompt_id": "0" * 12, "generator": generator.name, "sample": 0}
    rows = [given | {"id": str(n), "text": text, "seed": n} for n, text in enumerate(texts)]
    return worker.run(pa.Table.from_pylist(rows))


def test_a_clip_has_the_frames_and_the_rate_of_its_generator():
    [clip] = worked(Blinking(name="clips"), ["a grey field"], Clip)
    assert clip_timing(clip.video.bytes) == (12.5, 4) and (clip.fps, clip.first_frame) == (12.5, None)
    pixels = decode(clip.video.bytes, clip=True)
    wanted = Blinking(name="clips").sample([type("Asked", (), {"prompt": "a b", "seed": 0})])[0]
    assert np.abs(pixels.astype(int) - wanted).max() <= 3


def test_the_same_clip_has_the_same_bytes():
    first, second = (worked(Blinking(name="clips"), ["a grey field", "a b"], Clip) for _ in range(2))
    assert [row.video.bytes for row in first] == [row.video.bytes for row in second]


def test_a_request_that_fails_is_one_rows_error():
    first, failed, last = worked(Blinking(name="clips"), ["a grey field", "field", "a field"], Clip)
    assert isinstance(first, Clip) and isinstance(last, Clip)
    assert isinstance(failed, ValueError) and "one word" in str(failed)


@pytest.mark.parametrize(
    ("generator", "row", "reason"),
    [
        (Blinking(name="odd", size=15), Clip, "make both sides even"),
        (Blinking(name="many", kind="image"), Picture, "must give one frame, got 4"),
    ],
)
def test_pixels_that_are_no_sample_are_the_rows_error(generator, row, reason):
    [found] = worked(generator, ["a grey field"], row)
    assert isinstance(found, ValueError) and reason in str(found)


def test_a_generator_that_does_not_load_ends_the_stage_and_not_row_after_row():
    with pytest.raises(CannotOpen, match="broken could not be loaded: OSError: no such weights"):
        worked(Blinking(name="broken", broken=True), ["a grey field", "a b"], Clip)


class Counting(Generator):
    """Samples two requests at a time."""

    name: str = "counting"

    @property
    def medium(self):
        return "image"

    @property
    def together(self):
        return 2

    def open(self, device, places):
        return OpenCounting()


class OpenCounting:
    def __init__(self):
        self.asked = []

    def sample(self, requests):
        self.asked.append(len(requests))
        return [np.full((1, 8, 8, 3), request.seed, dtype=np.uint8) for request in requests]


def test_a_generator_is_handed_as_many_requests_as_it_samples_together():
    worker = RenderWorker([Counting()], row=Picture, resident=1)
    worker.open("cpu", NOWHERE)
    row = {"prompt_id": "p", "text": "a", "generator": "counting", "sample": 0}
    found = worker.run(pa.Table.from_pylist([{"id": str(seed), "seed": seed, **row} for seed in range(5)]))
    opened: Any = worker.opened.get("counting")
    assert opened.asked == [2, 2, 1]
    assert [one.id for one in found] == ["0", "1", "2", "3", "4"]
