"""What a question shows, made ready for a model: pictures as they are, clips as frames with their times.

Sizes are read first and pixels last: of a thousand questions only those of one forward pass are in memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from actors.media import clip_timing, decode_at, is_clip, measures, open_picture
from actors.serving.engine import Answer, Picture, Question
from infra.config import Config

if TYPE_CHECKING:
    from PIL.Image import Image


class ClipFrames(Config):
    """Which frames of a clip are shown, and how."""

    fps: float = Field(2.0, gt=0, le=1000)
    """Frames shown per second of the clip, from its first frame on."""
    most: int = Field(16, ge=1)
    """Most frames of one clip; a longer clip is shown in as many, further apart."""
    as_video: bool = False
    """Whether the model's own video input takes them; its processor must have one. Otherwise they are pictures, each after
    a text with its time ("at 0.5 s: ")."""

    def times(self, *, seconds: float) -> tuple[float, ...]:
        """Times in seconds, evenly spaced from 0, of the frames of a clip of that length."""
        count = min(self.most, max(1, round(seconds * self.fps)))
        return tuple(number * seconds / count for number in range(count))


KEPT_PIXELS = 2**24
"""Pixels of the pictures that are kept decoded while questions are asked: 48 MB."""


class Recent:
    """The pictures decoded last: one that stands in many questions is decoded once. Threads may share it."""

    def __init__(self, most: int = KEPT_PIXELS) -> None:
        self.most, self.pixels = most, 0
        self.kept: OrderedDict[bytes, Image] = OrderedDict()
        self.lock = threading.Lock()

    def of(self, picture: Picture) -> Image:
        """The picture as RGB; raises OSError for bytes that are no picture. It is shared: not to be changed in place."""
        if not isinstance(picture, bytes):
            return decoded(picture)
        with self.lock:
            if picture in self.kept:
                self.kept.move_to_end(picture)
                return self.kept[picture]
            found = self.kept[picture] = decoded(picture)
            self.pixels += found.width * found.height
            while self.pixels > self.most:
                _, gone = self.kept.popitem(last=False)
                self.pixels -= gone.width * gone.height
            return found


@dataclass(frozen=True)
class Medium:
    """One picture or clip of a question, not decoded yet."""

    source: Picture
    size: tuple[int, int]
    """Width and height in pixels."""
    times: tuple[float, ...] = ()
    """Times in seconds of the frames of a clip; empty for a picture."""
    fps: float = 0.0
    """Frames per second of a clip."""
    frames: int = 1
    """Frames of the whole clip."""
    recent: Recent = field(default_factory=Recent, compare=False)
    """What decodes a picture."""

    @classmethod
    def of(cls, source: Picture, *, clips: ClipFrames, recent: Recent) -> Medium:
        """Reads sizes; raises OSError or ValueError for bytes that are neither picture nor clip."""
        if not isinstance(source, bytes):
            return cls(source, (source.shape[1], source.shape[0]))
        if not is_clip(source):
            return cls(source, open_picture(source).size, recent=recent)
        known = measures(source, clip=True)
        fps, frames = clip_timing(source)
        if not fps > 0:
            raise ValueError("the clip does not say its frame rate, so its frames have no times; write it anew with one")
        return cls(source, (known.width, known.height), clips.times(seconds=frames / fps), fps, frames)

    def load(self) -> list[Image]:
        """RGB: the picture, or the frames of the clip."""
        from PIL import Image

        if not self.times:
            return [self.recent.of(self.source)]
        return [Image.fromarray(frame) for frame in decode_at(bytes(self.source), times=self.times)]


@dataclass(frozen=True)
class Loaded:
    """The pixels of one question."""

    pictures: list[Image]
    videos: list[tuple[np.ndarray, dict[str, Any]]]
    """uint8[frames, height, width, 3] and what the transformers library calls a video's metadata."""


@dataclass(frozen=True)
class Prepared:
    """A question whose media have known sizes."""

    question: Question
    media: tuple[Medium, ...]
    """Pictures, and frames of clips, in reading order."""
    as_video: bool

    @property
    def sizes(self) -> tuple[Any, ...]:
        """Two questions with equal sizes and texts have as many tokens."""
        return tuple((one.size, len(one.times)) for one in self.media)

    @property
    def pictures(self) -> int:
        """Number of pictures that a model is given, frames that stand for a clip among them."""
        return sum(max(1, len(one.times)) for one in self.media if not (self.as_video and one.times))

    @property
    def conversation(self) -> list[dict[str, Any]]:
        """The question as the messages of a chat template."""
        return [{"role": "user", "content": list(self._content())}]

    def _content(self) -> Iterator[dict[str, Any]]:
        media = iter(self.media)
        for part in self.question.parts:
            if isinstance(part, str):
                yield {"type": "text", "text": part}
                continue
            medium = next(media)
            if self.as_video and medium.times:
                yield {"type": "video"}
            elif medium.times:
                for at in medium.times:
                    yield {"type": "text", "text": f"at {round(at, 2):g} s: "}
                    yield {"type": "image"}
            else:
                yield {"type": "image"}

    def load(self) -> Loaded:
        """Decodes everything that is shown; raises OSError or ValueError where something does not decode."""
        found = Loaded([], [])
        for one in self.media:
            if self.as_video and one.times:
                places = [round(at * one.fps) for at in one.times]
                about = {"fps": one.fps, "total_num_frames": one.frames, "frames_indices": places}
                found.videos.append((np.stack([np.asarray(frame) for frame in one.load()]), about))
            else:
                found.pictures.extend(one.load())
        return found


def decoded(picture: Picture) -> Image:
    """The picture as RGB; raises OSError for bytes that are no picture."""
    from PIL import Image

    if isinstance(picture, bytes):
        return open_picture(picture).convert("RGB")
    return Image.fromarray(picture)


class OpenedMedia:
    """The media of questions that are asked together: each is opened once, however many show it."""

    def __init__(self, clips: ClipFrames) -> None:
        self.clips, self.recent = clips, Recent()
        self.known: dict[bytes, Medium] = {}

    def of(self, source: Picture) -> Medium:
        """Reads sizes; raises OSError or ValueError for bytes that are neither picture nor clip."""
        if not isinstance(source, bytes):
            return Medium.of(source, clips=self.clips, recent=self.recent)
        if source not in self.known:
            self.known[source] = Medium.of(source, clips=self.clips, recent=self.recent)
        return self.known[source]


def prepare(question: Question, *, clips: ClipFrames, media: OpenedMedia | None = None) -> Prepared:
    """Reads the sizes of what is shown; raises OSError or ValueError for bytes that are neither picture nor clip.

    media: of the questions that are asked together.
    """
    opened = media or OpenedMedia(clips)
    shown = [opened.of(question.pictures[part]) for part in question.parts if isinstance(part, int)]
    return Prepared(question, tuple(shown), clips.as_video)


def ask_distinct(
    questions: Sequence[Question], *, clips: ClipFrames, ask: Callable[[list[Prepared]], list[Answer | Exception]]
) -> list[Answer | Exception]:
    """Answers in order: equal questions are asked once, and one whose pictures cannot be opened is not asked at all."""
    answers: dict[tuple[Any, ...], Answer | Exception] = {}
    ready: dict[tuple[Any, ...], Prepared] = {}
    keys = [question.content for question in questions]
    media = OpenedMedia(clips)
    for key, question in zip(keys, questions, strict=True):
        if key in ready or key in answers:
            continue
        try:
            ready[key] = prepare(question, clips=clips, media=media)
        except (OSError, ValueError) as error:
            answers[key] = error
    answers |= zip(ready, ask(list(ready.values())), strict=True)
    return [answers[key] for key in keys]


def load_each(
    asked: Sequence[Prepared], *, answers: dict[int, Answer | Exception], places: Sequence[int], at_once: int
) -> Iterator[tuple[list[int], list[Loaded]]]:
    """Batches of at most `at_once` of the places with their pixels; one that does not decode is answered by its error."""
    chosen: list[int] = []
    loaded: list[Loaded] = []
    for place in places:
        try:
            loaded.append(asked[place].load())
        except (OSError, ValueError) as error:
            answers[place] = error
            continue
        chosen.append(place)
        if len(chosen) == at_once:
            yield chosen, loaded
            chosen, loaded = [], []
    if chosen:
        yield chosen, loaded
