"""Writers on the engines: texts from seeds, and no text that is cut off or empty."""

from __future__ import annotations

import pytest

from actors.serving.endpoint import Endpoint
from actors.serving.engine import Answer
from actors.serving.openai import ChatServer
from actors.serving.transformers import TransformersEngine
from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.models.writers.vlm import ServedWriter, VlmWriter, Writing
from pipelines.models.writers.writer import WritingRequest
from tests.support.http_server import Reply, serving
from tests.support.places import NOWHERE
from tests.support.tiny_vlm import write_tiny_vlm

WRITING = Writing(instruction="Extend: {text}", max_tokens=6, temperature=1.0)


def test_a_seed_gives_the_same_text_alone_and_in_company_and_another_seed_another(tmp_path):
    folder = Folder(path=str(write_tiny_vlm("qwen2-vl", tmp_path)))
    opened = VlmWriter(name="w", weights=folder, writing=WRITING, engine=TransformersEngine(batch_size=4)).open(
        "cpu", NOWHERE
    )
    opened.engine.ends = list(range(300))  # whatever comes counts as an end: random weights end no text
    requests = [WritingRequest("a box", seed=seed) for seed in (1, 2, 1)]
    texts = [str(text) for text in opened.write(requests)]
    assert texts[0] == texts[2] != texts[1]
    assert [str(opened.write([request])[0]) for request in requests] == texts


def test_a_text_that_is_cut_off_or_empty_is_a_failure_and_reasoning_is_left_out():
    assert WRITING.text(Answer("<think>hm</think>\n a red box ")) == "a red box"
    assert "max_tokens" in str(WRITING.text(Answer("a red", ended=False)))
    assert isinstance(WRITING.text(Answer("<think>hm</think> ")), ValueError)


def test_a_served_writer_sends_its_instruction_seed_and_temperature():
    said = {"choices": [{"message": {"content": "a red box on a table"}, "finish_reason": "stop"}]}
    with serving(lambda _: Reply(body=said)) as running:
        server = ChatServer(model="m", revision="1", endpoint=Endpoint(base_url=running.url))
        opened = ServedWriter(name="w", server=server, writing=WRITING).open("cpu", NOWHERE)
        assert opened.write([WritingRequest("a box", seed=7)]) == ["a red box on a table"]
        body = running.asked[0].body
    assert (body["seed"], body["temperature"], body["max_tokens"]) == (7, 1.0, 6)
    assert body["messages"][0]["content"] == [{"type": "text", "text": "Extend: a box"}]


def test_an_instruction_without_the_text_is_refused():
    with pytest.raises(ConfigError, match="text"):
        Writing(instruction="Write something.")
