"""A generator behind a server: the requests it sends, the pixels it gives, and each failure as one row's."""

import base64
import json
import re
import threading
import time
from email.parser import BytesParser
from email.policy import HTTP

import numpy as np
import pyarrow as pa
import pytest

from actors.media import decode, encode_mp4, encode_png
from actors.serving.endpoint import Endpoint
from actors.serving.http import ServerUnavailable
from infra.config import ConfigError
from infra.identity import canonical, key_of
from pipelines.models.generators.generator import Request
from pipelines.models.generators.served import Polling, Served
from pipelines.schemas.samples import Clip, Picture
from pipelines.stages.render import RenderWorker
from tests.support.http_server import Reply, serving
from tests.support.places import NOWHERE

FAST = {"first_wait_s": 0.01, "longest_wait_s": 1.0, "timeout_s": 5.0, "unreachable_s": 0.2, "tries": 3}
KEY = "sk-never-to-be-seen-77a0"


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (16, 24, 3), np.uint8)


def b64(data):
    return {"created": 0, "data": [{"b64_json": base64.b64encode(data).decode()}]}


def draw(asked):
    return Reply(body=b64(encode_png(picture(asked.body["seed"])).bytes))


def served(url, *, endpoint=None, **options):
    endpoint = Endpoint(base_url=url, **FAST | (endpoint or {}))
    return Served(name="far", model="some/model", revision="r1", endpoint=endpoint, **options)


def clips(url, *, polling=None, **options):
    polling = Polling(**{"every_s": 0.01, "longest_s": 5.0} | (polling or {}))
    return served(url, makes="video", frames=3, frame_rate=8.0, polling=polling, **options)


def form(asked):
    """Fields and files of a multipart request."""
    head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
    parts = BytesParser(policy=HTTP).parsebytes(head + asked.raw).iter_parts()
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}


class Studio:
    """A server of clips: a job is done at its second question, and dies with `forget`."""

    def __init__(self, *, error=None, clip=None, fps=8.0):
        self.jobs, self.lock = {}, threading.Lock()
        self.error = error
        self.clip = clip or encode_mp4(np.stack([picture(1)] * 3), fps=fps).bytes
        self.forms = []

    def __call__(self, asked):
        with self.lock:
            if asked.method == "POST":
                self.forms.append(form(asked))
                name = f"video {len(self.forms)}"
                self.jobs[name] = 0
                return Reply(body={"id": name, "status": "queued"})
            name = re.fullmatch("/v1/videos/(video%20[0-9]+)(/content)?", asked.path)
            key = name and name[1].replace("%20", " ")
            if key not in self.jobs:
                return Reply(404, {"error": {"message": "no such job"}})
            if name[2]:
                return Reply(body=self.clip)
            self.jobs[key] += 1
            if self.jobs[key] < 2:
                return Reply(body={"id": key, "status": "in_progress"})
            return Reply(body={"id": key, "status": "failed" if self.error else "completed", "error": self.error})


def test_pictures_are_the_servers_and_the_request_says_every_setting():
    options = {
        "steps": 30, "guidance": 3.5, "true_cfg": 4.0, "negative_prompt": "blur", "height": 16, "width": 24,
        "extra_params": {"layers": 4}, "extra_body": {"generator_device": "cpu"},
    }  # fmt: skip
    with serving(draw) as server:
        found = served(server.url, **options).open("cpu", NOWHERE).sample([Request("a b", seed) for seed in (5, 2**62)])
        assert np.array_equal(found[0], picture(5)[None]) and np.array_equal(found[1], picture(2**62)[None])
        first = min((asked.body for asked in server.asked), key=lambda body: body["seed"])
    assert server.asked[0].path == "/v1/images/generations"
    assert first == {
        "model": "some/model", "prompt": "a b", "n": 1, "size": "24x16", "seed": 5, "response_format": "b64_json",
        "num_inference_steps": 30, "guidance_scale": 3.5, "true_cfg_scale": 4.0, "negative_prompt": "blur",
        "extra_params": {"layers": 4}, "generator_device": "cpu",
    }  # fmt: skip


def test_what_is_not_set_is_left_to_the_server_and_seeds_have_the_bits_it_takes():
    with serving(lambda asked: Reply(body=b64(encode_png(picture(0)).bytes))) as server:
        served(server.url, seed_bits=31, response_format=None).open("cpu", NOWHERE).sample([Request("a", 2**62 + 7)])
        served(server.url, seed_bits=0).open("cpu", NOWHERE).sample([Request("a", 7)])
    assert server.asked[0].body == {"model": "some/model", "prompt": "a", "n": 1, "seed": 7}
    assert "seed" not in server.asked[1].body


def test_a_clip_is_a_job_that_is_created_asked_for_and_fetched():
    studio = Studio()
    first = encode_png(picture(3)).bytes
    with serving(studio) as server:
        opened = clips(server.url, height=16, width=24, extra_params={"shift": 3.0}).open("cpu", NOWHERE)
        [found] = opened.sample([Request("a kite", 9, first_frame=first)])
    assert np.array_equal(found, decode(studio.clip, clip=True))
    [fields] = studio.forms
    assert fields.pop("input_reference") == first
    assert {name: value.decode() for name, value in fields.items()} == {
        "model": "some/model", "prompt": "a kite", "size": "24x16", "seed": "9", "num_frames": "3", "fps": "8",
        "extra_params": json.dumps({"shift": 3.0}),
    }  # fmt: skip


def test_a_job_that_fails_is_one_rows_error_and_says_the_servers_reason():
    with serving(Studio(error={"code": "moderation", "message": "not this"})) as server:
        [failed] = clips(server.url).open("cpu", NOWHERE).sample([Request("a", 1)])
    assert "the job is failed" in str(failed) and "not this" in str(failed)


def test_a_job_that_a_restarted_server_forgot_is_created_again():
    studio = Studio()

    def forgetful(asked):
        if asked.number == 1:
            studio.jobs.clear()
        return studio(asked)

    with serving(forgetful) as server:
        [found] = clips(server.url).open("cpu", NOWHERE).sample([Request("a", 1)])
    assert found.shape == (3, 16, 24, 3) and len(studio.forms) == 2


def test_a_job_without_an_end_fails_in_time():
    start = time.monotonic()
    with serving(lambda asked: Reply(body={"id": "x", "status": "in_progress"})) as server:
        [failed] = clips(server.url, polling={"longest_s": 0.2}).open("cpu", NOWHERE).sample([Request("a", 1)])
    assert "not done after 0.2 s" in str(failed) and time.monotonic() - start < 3


def test_a_clip_of_another_frame_rate_is_refused_with_the_rate_it_has():
    with serving(Studio(fps=30.0)) as server:
        [failed] = clips(server.url).open("cpu", NOWHERE).sample([Request("a", 1)])
    assert "30 frames per second, not 8" in str(failed)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(400, {"error": {"message": "prompt is refused"}}), "status 400: prompt is refused"),
        (Reply(404, b"no route"), "status 404: no route"),
        (Reply(500, b"cuda"), "status 500: cuda, 3 times"),
        (Reply(429), "status 429: , 3 times"),
        (Reply(200, b"<html>"), "no JSON"),
        (Reply(200, {"data": []}), "no data"),
        (Reply(200, {"data": [{"url": "http://elsewhere/x.png"}]}), "no data"),
        (Reply(200, {"data": [{"b64_json": "%%%"}]}), "no data"),
        (Reply(200, b64(b"no picture")), "does not decode"),
        (Reply(200, b64(encode_png(picture(0)).bytes[:60])), "does not decode"),
        (Reply(wait_s=60), "no answer within 0.5 s, 3 times"),
    ],
)
def test_a_bad_answer_is_one_rows_error_and_the_other_rows_stand(reply, reason):
    with serving(lambda asked: reply if asked.body["prompt"] == "bad" else draw(asked)) as server:
        worker = RenderWorker([served(server.url, endpoint={"timeout_s": 0.5})], row=Picture, resident=1)
        worker.open("cpu", NOWHERE)
        given = {"prompt_id": "0" * 12, "generator": "far", "sample": 0}
        cells = [given | {"id": str(n), "text": text, "seed": n} for n, text in enumerate(["a", "bad", "b"])]
        first, failed, last = worker.run(pa.Table.from_pylist(cells))
    assert isinstance(first, Picture) and isinstance(last, Picture) and (first.height, first.width) == (16, 24)
    assert isinstance(failed, RuntimeError) and reason in str(failed)


def test_a_clips_row_has_its_file_its_rate_and_its_size():
    with serving(Studio()) as server:
        worker = RenderWorker([clips(server.url)], row=Clip, resident=1)
        worker.open("cpu", NOWHERE)
        given = {"prompt_id": "0" * 12, "generator": "far", "sample": 0, "id": "0", "text": "a", "seed": 0}
        [row] = worker.run(pa.Table.from_pylist([given]))
    assert (row.fps, row.frames, row.height, row.width) == (8.0, 3, 16, 24)


def test_the_budget_is_the_opened_generators_whole_life():
    with serving(draw) as server:
        opened = served(server.url, endpoint={"requests": 3}).open("cpu", NOWHERE)
        first = opened.sample([Request("a", 1), Request("a", 2)])
        second = opened.sample([Request("a", 3), Request("a", 4)])
        assert len(server.asked) == 3
    assert all(isinstance(one, np.ndarray) for one in first)
    assert "budget of 3 requests is spent" in str(next(one for one in second if isinstance(one, Exception)))


@pytest.mark.parametrize("status", [401, None])
def test_a_refused_key_or_no_server_ends_the_stage_and_shows_no_key(monkeypatch, status):
    monkeypatch.setenv("TEST_SERVER_KEY", KEY)
    with serving(lambda asked: Reply(status or 200, f"bad key {KEY[:12]}***".encode())) as server:
        url = server.url
        if status:
            worker = served(url, endpoint={"key_variable": "TEST_SERVER_KEY"}).open("cpu", NOWHERE)
            with pytest.raises(ServerUnavailable, match="401: it refuses the key") as caught:
                worker.sample([Request("a", seed) for seed in range(30)])
    if not status:
        with pytest.raises(ServerUnavailable, match="cannot be reached") as caught:
            served(url, endpoint={"key_variable": "TEST_SERVER_KEY"}).open("cpu", NOWHERE).sample([Request("a", 1)])
    assert KEY[:12] not in str(caught.value)


def test_the_identity_is_model_revision_and_settings_and_never_the_address(monkeypatch):
    monkeypatch.setenv("TEST_SERVER_KEY", KEY)
    one = served("http://one:1", steps=3)
    other = served(
        "https://other/v1", steps=3, endpoint={"key_variable": "TEST_SERVER_KEY", "in_flight": 64, "requests": 9}
    )
    assert key_of(one) == key_of(other)
    assert len({key_of(served("http://one:1", **o)) for o in ({}, {"steps": 4}, {"seed_bits": 32}, {"guidance": 1.0})}) == 4
    assert key_of(one) != key_of(one.model_copy(update={"revision": "r2"}))
    assert "http" not in json.dumps(canonical(other)) and KEY not in f"{other!r} {other.model_dump_json()}"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"height": 16}, "both or neither"),
        ({"frames": 5}, "makes = 'video'"),
        ({"extra_body": {"seed": 1}}, "repeats 'seed'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        served("http://one:1", **options)
