"""Clips that begin with a picture of the same prompt: which picture, which generators, and what is computed again."""

from typing import Any, ClassVar

import numpy as np
import pytest

from actors.media import decode
from infra.config import ConfigError
from infra.store.artifacts import Store
from pipelines.miniature.prompts import Grammar
from pipelines.models.generators.generator import Generator
from pipelines.schemas.samples import Clip, Picture
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render, RenderClips
from support.inline import computed

PROMPTS = WritePrompts(source=Grammar(train=4, evaluation=6))


class Plain(Generator):
    """A picture of one grey level, by the seed; a text with a cross is refused."""

    medium: ClassVar = "image"

    def open(self, device: str, places: Any) -> Any:
        return self

    def sample(self, requests):
        return [
            ValueError("a cross") if "cross" in one.prompt else np.full((1, 16, 16, 3), one.seed % 200, np.uint8)
            for one in requests
        ]


class Fading(Generator):
    """The first frame, and two frames of its half; black where there is no first frame."""

    medium: ClassVar = "video"
    fps: ClassVar = 8.0

    def open(self, device: str, places: Any) -> Any:
        return self

    def sample(self, requests):
        black = np.zeros((1, 16, 16, 3), np.uint8)
        firsts = [black if one.first_frame is None else decode(one.first_frame, clip=False) for one in requests]
        return [np.concatenate([first, first // 2, first // 2]) for first in firsts]


def rows(store, stage, row):
    computed(stage.model_copy(update={"max_error_share": 1.0}), store, name=stage.key)
    return store.artifact(stage).table(row).to_pylist()


def stages(*, samples=1):
    pictures = Render(prompts=PROMPTS, roster=(Plain(name="plain"),), samples={"plain": samples}, max_error_share=1.0)
    roster = (Fading(name="fading"), Fading(name="blind"))
    return pictures, RenderClips(prompts=PROMPTS, roster=roster, first_frames=pictures, animate=("fading",))


def test_a_clip_begins_with_the_first_picture_of_its_prompt_and_its_row_names_it(tmp_path):
    store = Store(tmp_path)
    pictures, clips = stages(samples=2)
    made = rows(store, pictures, Picture)
    found = rows(store, clips, Clip)
    first = {row["prompt_id"]: row for row in made if row["sample"] == 0}
    assert 0 < len(first) < 4  # the others could not be rendered
    fading = [row for row in found if row["generator"] == "fading"]
    assert {row["prompt_id"]: row["first_frame"] for row in fading} == {name: row["id"] for name, row in first.items()}
    for row in fading:
        begun = decode(row["video"]["bytes"], clip=True)[0].astype(int)
        assert np.abs(begun - decode(first[row["prompt_id"]]["image"]["bytes"], clip=False)[0]).max() <= 3
    blind = [row for row in found if row["generator"] == "blind"]
    assert len(blind) == 4 and {row["first_frame"] for row in blind} == {None}


def test_more_pictures_of_a_prompt_make_no_clip_anew(tmp_path):
    store = Store(tmp_path)
    _, clips = stages()
    before = rows(store, clips, Clip)
    _, wider = stages(samples=2)
    after = rows(store, wider, Clip)
    assert before == after and store.artifact(wider).record.computed_rows == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"animate": ()}, "first_frames and animate belong together"),
        ({"animate": ("nobody",)}, "'nobody', which is not in the roster"),
        ({"first_frames": RenderClips(prompts=PROMPTS, roster=(Fading(name="fading"),))}, "first_frames must be pictures"),
    ],
)
def test_what_cannot_be_animated_is_refused_when_it_is_declared(options, reason):
    _, clips = stages()
    given = {"prompts": PROMPTS, "roster": clips.roster, "first_frames": clips.first_frames, "animate": ("fading",)}
    with pytest.raises(ConfigError, match=reason):
        RenderClips(**given | options)
