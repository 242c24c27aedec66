import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pytest
from pydantic import TypeAdapter

from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.algorithms.prompting.pointwise import Pointwise
from pipelines.models.families.sd3 import SD3
from pipelines.models.jurors.vlm import VlmJuror
from pipelines.models.weights import Hub, Weights

REPO, COMMIT = "someone/generator", "0123456789abcdef0123456789abcdef01234567"


def resolved(cache, repo=REPO):
    """What `Hub.local` prints or raises in a process that must not use the network."""
    code = (
        "from infra.config import ConfigError\nfrom pipelines.models.weights import Hub\n"
        f"try: print(Hub(repo={repo!r}).local)\nexcept ConfigError as error: print('refused:', error)"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_repository_is_its_name_and_revision():
    assert Hub(repo=REPO).identity() == {"hub": REPO, "revision": "main"}
    assert Hub(repo=REPO, revision=COMMIT).identity() != Hub(repo=REPO).identity()
    with pytest.raises(ConfigError, match="repo"):
        Hub(repo="/some/folder")


def test_an_option_takes_a_folder_or_a_repository():
    read = TypeAdapter(Weights).validate_python
    assert isinstance(read({"path": "weights"}), Folder)
    assert isinstance(read({"repo": REPO}), Hub)


def test_what_the_cache_holds_needs_no_network(tmp_path):
    home = tmp_path / f"models--{REPO.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    for path, text in {
        home / "refs" / "main": COMMIT,
        snapshot / "model_index.json": '{"_class_name": "FluxPipeline", "unet": ["diffusers", "U"]}',
        snapshot / "unet" / "config.json": "{}",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert resolved(tmp_path) == str(snapshot)


def test_without_network_and_cache_the_remedy_is_named(tmp_path):
    found = resolved(tmp_path)
    assert found.startswith(f"refused: weights '{REPO}' at revision 'main' are not to be had")
    assert "set HF_HUB_OFFLINE=0" in found
    assert "give a folder" in found


class HubAtHome:
    """A Hub of one repository on this machine, which counts the bodies that it sends."""

    def __init__(self, files):
        self.files, self.sent = files, Counter()
        hub = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                path = urlparse(self.path).path
                if path.startswith(f"/{REPO}/resolve/"):
                    return self.file(path.split("/", 5)[5])
                listed = [{"type": "file", "path": n, "size": len(b), "oid": oid(b)} for n, b in hub.files.items()]
                about = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in hub.files]}
                return self.send(200, json.dumps(listed if "/tree/" in path else about).encode(), {})

            def file(self, name):
                if name not in hub.files:
                    return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
                if self.command == "GET":
                    hub.sent[name] += 1
                    time.sleep(0.3)  # a second process that did not wait would ask for it meanwhile
                body = hub.files[name]
                return self.send(200, body, {"ETag": f'"{oid(body)}"', "X-Repo-Commit": COMMIT})

            def send(self, status, body, headers):
                self.send_response(status)
                for key, value in {**headers, "Content-Length": len(body)}.items():
                    self.send_header(key, str(value))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_GET = do_HEAD = answer

            def log_message(self, format, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def opened(self, cache, *, processes=1, holds="pipeline"):
        """What so many processes at once print or raise who may download, and their logs."""
        code = (
            "from infra.config import ConfigError\nfrom pipelines.models.weights import Hub\n"
            f"try: print(Hub(repo={REPO!r}, holds={holds!r}).local)\nexcept ConfigError as error: print('refused:', error)"
        )
        address = f"http://127.0.0.1:{self.server.server_port}"
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HUB_CACHE": str(cache), "NO_PROXY": "127.0.0.1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", code]
        started = [subprocess.Popen(command, env=os.environ | online, **pipes) for _ in range(processes)]
        ended = [process.communicate(timeout=60) for process in started]
        return [printed.strip() for printed, _ in ended], [log for _, log in ended]


def oid(body):
    return hashlib.sha1(body).hexdigest()


def files_of(snapshot):
    return {str(path.relative_to(snapshot)) for path in Path(snapshot).rglob("*") if path.is_file()}


def test_two_processes_of_a_node_download_a_pipeline_once_and_show_how_far_it_is(tmp_path):
    index = b'{"_class_name": "FluxPipeline", "transformer": ["diffusers", "T"]}'
    wanted = {"model_index.json": index, "transformer/config.json": b"{}", "transformer/a.safetensors": b"0" * 9999}
    with HubAtHome(wanted | {"README.md": b"hello", "transformer/a.bin": b"pickle"}) as hub:
        found, logs = hub.opened(tmp_path, processes=2)
    assert len(set(found)) == 1 and files_of(found[0]) == wanted.keys()
    assert hub.sent == dict.fromkeys(wanted, 1)
    assert "100%" in "".join(logs)


def test_a_model_of_the_hub_is_fetched_without_an_index_and_without_its_other_formats(tmp_path):
    wanted = {name: name.encode() for name in ("config.json", "model.safetensors", "chat_template.jinja", "merges.txt")}
    others = dict.fromkeys(("onnx/model.json", "model.bin", "consolidated.safetensors", "model.fp16.safetensors"), b"0")
    with HubAtHome(wanted | others) as hub:
        (found,), _ = hub.opened(tmp_path, holds="model")
        (refused,), _ = hub.opened(tmp_path)
    assert files_of(found) == wanted.keys()
    assert "it has no model_index.json, so it holds no pipeline" in refused


def test_a_generator_is_a_pipeline_of_the_hub_and_a_juror_a_model():
    model, pipeline = Hub(repo=REPO, holds="model"), Hub(repo=REPO)
    asked = {"name": "juror", "questionnaire": Pointwise()}
    assert VlmJuror(weights=model, **asked).weights == model
    with pytest.raises(ConfigError, match="give holds = 'model'"):
        VlmJuror(weights=pipeline, **asked)
    with pytest.raises(ConfigError, match="give holds = 'pipeline'"):
        SD3(weights=model)
