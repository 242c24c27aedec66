import os
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from infra.config import ConfigError
from infra.store.files import Folder
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


def test_processes_of_a_node_download_a_repository_one_after_another(tmp_path):
    code = (
        "import time, sys\nfrom pathlib import Path\nfrom pipelines.models.weights import one_at_a_time\n"
        "with one_at_a_time(Path(sys.argv[1]), 'owner/name'):\n"
        "    begun = time.monotonic(); time.sleep(0.3); print(begun, time.monotonic())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = sorted([float(time) for time in process.communicate()[0].split()] for process in started)
    assert first[1] <= second[0]
