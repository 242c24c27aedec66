"""A generator behind an HTTP server in OpenAI's form, as vLLM-Omni, SGLang, Ray Serve and hosted services speak it.

Pictures are asked for by POST /v1/images/generations and come as base64; clips are jobs: POST /v1/videos, then
GET /v1/videos/ID until the job is completed, then GET /v1/videos/ID/content.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Sequence
from mimetypes import guess_type
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, JsonValue, model_validator

from actors.media import clip_timing, decode, ending
from actors.serving.endpoint import Endpoint
from actors.serving.http import HttpClient, Part, RequestFailed
from infra.config import Config
from infra.dag.stage import Places
from pipelines.models.generators.generator import Generator, Medium, Pixels, Request

IMAGES = "/v1/images/generations"
VIDEOS = "/v1/videos"
OWN = frozenset({"model", "prompt", "n", "seed", "size", "num_frames", "fps", "num_inference_steps", "guidance_scale",
                 "true_cfg_scale", "negative_prompt", "response_format", "extra_params", "input_reference"})  # fmt: skip
"""Fields of a request that have an option of their own."""
ENDED = frozenset({"completed", "failed", "cancelled", "canceled", "expired"})
"""States of a job that change no more."""
RATES = 0.01
"""Share by which a clip's frame rate may differ from the declared one: 23.976 counts as 24."""


class JobLost(RequestFailed):
    """The server does not know a job that it created: it was started again since."""


class Polling(Config):
    """How the job of a clip is waited for."""

    every_s: float = Field(2.0, gt=0)
    """Seconds between two questions whether it is done."""
    longest_s: float = Field(600.0, gt=0)
    """Seconds after which a job counts as failed; keep it below the `stall_s` of the stage's resources."""


class Served(Generator):
    """A generator that a server offers; its identity is the model, its revision and the settings, never the address.

    The same seed gives the same noise where the server says so (vLLM-Omni: `extra_body={"generator_device": "cpu"}`), not
    the same bytes: those depend on the server's version, attention and caches.

        Served(name="qwen", model="Qwen/Qwen-Image", revision="2025-12-31", steps=30, height=1024, width=1024,
               endpoint=Endpoint(base_url="http://127.0.0.1:8091", in_flight=16))
    """

    makes: Medium = "image"
    """Whether it is asked for pictures or for clips."""
    model: str = Field(min_length=1)
    """The model, as the server calls it."""
    revision: str = Field(min_length=1)
    """Which weights the server has under that name: a commit, a date or a version. Another one makes all rows anew."""
    steps: int | None = Field(None, ge=1, le=1000)
    """Sampling steps (`num_inference_steps`); like every option below, None leaves it to the server."""
    guidance: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Guidance scale (`guidance_scale`): how far samples are led away from `negative_prompt`."""
    true_cfg: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Scale of classifier-free guidance where `guidance_scale` is an input of the model (`true_cfg_scale`)."""
    negative_prompt: str | None = None
    """What guidance leads away from."""
    height: int | None = Field(None, ge=8)
    """Pixels; with `width`, or neither."""
    width: int | None = Field(None, ge=8)
    """Pixels."""
    frames: int | None = Field(None, ge=2)
    """Frames of a clip (`num_frames`)."""
    frame_rate: float = Field(16.0, gt=0, le=240)
    """Frames per second of its clips (`fps`); a clip of another rate is refused. Not used for pictures."""
    seed_bits: int = Field(63, ge=0, le=63)
    """Bits of the seed that are sent, for servers that take 31 or 32; 0: no seed is sent, and nothing repeats."""
    response_format: Literal["b64_json"] | None = "b64_json"
    """What pictures are asked to come as; None for services that refuse the field and send base64 anyway."""
    extra_params: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the model, sent as the field `extra_params` (vLLM-Omni)."""
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of the request itself, for instance {"quality": "high"}."""
    endpoint: Endpoint = Field(exclude=True)
    """The server, and how it is asked; no part of the identity."""
    polling: Polling = Field(Polling(), exclude=True)
    """How clips are waited for; no part of the identity."""

    @model_validator(mode="after")
    def _possible(self) -> Served:
        if (self.height is None) != (self.width is None):
            raise ValueError("height and width are sent as one size; give both or neither")
        if self.makes == "image" and self.frames is not None:
            raise ValueError("frames is for clips; leave it out, or give makes = 'video'")
        if taken := sorted(OWN & set(self.extra_body)):
            raise ValueError(f"extra_body repeats {taken[0]!r}, which has an option of its own")
        return self

    @property
    def medium(self) -> Medium:
        return self.makes

    @property
    def fps(self) -> float | None:
        return self.frame_rate if self.medium == "video" else None

    def open(self, device: str, places: Places) -> OpenServed:
        """A client of the server; raises ConfigError where the variable of the key is not set."""
        del device, places
        return OpenServed(self)

    def body(self, request: Request) -> dict[str, Any]:
        """The fields of one request but the first frame."""
        clips = self.medium == "video"
        rate = int(self.frame_rate) if self.frame_rate.is_integer() else self.frame_rate
        given = {
            "model": self.model,
            "prompt": request.prompt,
            "size": f"{self.width}x{self.height}" if self.width else None,
            "seed": request.seed & ((1 << self.seed_bits) - 1) if self.seed_bits else None,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "true_cfg_scale": self.true_cfg,
            "negative_prompt": self.negative_prompt,
            "extra_params": self.extra_params or None,
        }
        kind = {"num_frames": self.frames, "fps": rate} if clips else {"n": 1, "response_format": self.response_format}
        return {name: value for name, value in (given | kind | self.extra_body).items() if value is not None}


class OpenServed:
    """A client of one server, with what is left of its budget."""

    def __init__(self, config: Served) -> None:
        self.config = config
        self.client = HttpClient(config.endpoint)

    def sample(self, requests: Sequence[Request]) -> list[Pixels | Exception]:
        """See `OpenGenerator`; raises ServerUnavailable where the server cannot be reached or refuses the key."""
        ask = self._clip if self.config.medium == "video" else self._picture
        found = self.client.gather(ask, requests)
        return [one if isinstance(one, RequestFailed) else self._pixels(one) for one in found]

    async def _picture(self, request: Request) -> bytes:
        """The encoded picture."""
        if request.first_frame is not None:
            raise self.client.failed(IMAGES, "a picture of a first frame cannot be asked for; give makes = 'video'")
        answer = await self.client.post(IMAGES, self.config.body(request))
        try:
            return base64.b64decode(answer["data"][0]["b64_json"], validate=True)
        except (KeyError, IndexError, TypeError, binascii.Error, ValueError):
            raise self.client.failed(IMAGES, "the answer holds no data[0].b64_json in base64") from None

    async def _clip(self, request: Request) -> bytes:
        """The encoded clip; a job that the server has forgotten, for it was started again, is asked for once more."""
        parts = [
            Part(name, value if isinstance(value, str) else json.dumps(value))
            for name, value in self.config.body(request).items()
        ]
        if (first := request.first_frame) is not None:
            suffix = ending(first)
            kind = guess_type(f"first{suffix}")[0] or "application/octet-stream"
            parts.append(Part("input_reference", first, file=f"first{suffix}", kind=kind))
        for _ in range(self.config.endpoint.tries - 1):
            try:
                return await self._job(parts)
            except JobLost:
                continue
        return await self._job(parts)

    async def _job(self, parts: Sequence[Part]) -> bytes:
        """Creates a job, waits for it and fetches its clip."""
        created = await self.client.post_form(VIDEOS, parts)
        name = created.get("id") if isinstance(created, dict) else None
        if not isinstance(name, str) or not name:
            raise self.client.failed(VIDEOS, "the answer has no id of a job")
        path = f"{VIDEOS}/{quote(name, safe='')}"
        try:
            await self._ended(path, created)
            return await self.client.get(f"{path}/content")
        except RequestFailed as error:
            if error.status == 404:
                raise JobLost(str(error)) from None
            raise

    async def _ended(self, path: str, job: Any) -> None:
        """Waits until a job is completed; raises RequestFailed where it fails or takes too long."""
        until = time.monotonic() + self.config.polling.longest_s
        while isinstance(job, dict) and job.get("status") not in ENDED:
            if time.monotonic() > until:
                raise self.client.failed(path, f"the job is not done after {self.config.polling.longest_s:g} s")
            await asyncio.sleep(self.config.polling.every_s)
            job = await self.client.get_json(path)
        if not isinstance(job, dict):
            raise self.client.failed(path, "the answer is no job")
        if job["status"] != "completed":
            raise self.client.failed(path, f"the job is {job['status']}: {json.dumps(job.get('error'))[:300]}")

    def _pixels(self, data: bytes) -> Pixels | Exception:
        """The frames of an encoded picture or clip, or why it is not what was asked for."""
        clips = self.config.medium == "video"
        path = VIDEOS if clips else IMAGES
        try:
            pixels = decode(data, clip=clips)
            rate = clip_timing(data)[0] if clips else 0.0
        except Exception as error:  # of Pillow and FFmpeg, for bytes that anyone may have sent
            return self.client.failed(path, f"the answer does not decode ({type(error).__name__}: {error})")
        if clips and abs(rate - self.config.frame_rate) > RATES * self.config.frame_rate:
            asked = self.config.frame_rate
            return self.client.failed(path, f"the clip has {rate:g} frames per second, not {asked:g}; give that frame_rate")
        return pixels
