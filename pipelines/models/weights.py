"""Where weights are: in a folder, in a repository of the Hugging Face Hub, or in what a stage of the same DAG makes."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from infra.config import Config, ConfigError
from infra.dag.stage import Places, Stage
from infra.store.files import Folder

INDEX = "model_index.json"
WANTED = ("*.safetensors", "*.json", "*.txt", "*.model")  # of each component: weights, configs, tokenizers
UNWANTED = ("*fp16*", "*non_ema*", "*flax*")  # second copies of the same weights
UNUSED = ("safety_checker",)
MODEL = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")  # of a single model: also its chat template
NO_MODEL = (*UNWANTED, "*/*", "consolidated*")  # files of other formats lie in folders; `consolidated` is a second copy


@contextmanager
def one_at_a_time(cache: Path, repo: str) -> Iterator[None]:
    """Held by one process of this machine at a time, for one repository; it ends with the process at the latest."""
    folder = cache / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"salon--{repo.replace('/', '--')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Hub(Config):
    """A repository of the Hugging Face Hub, downloaded into the Hub's own cache of each node where that is allowed.

    Processes of a run work offline unless HF_HUB_OFFLINE=0 is set where the run is started. Then the first process of a
    node that needs a file downloads it, with the Hub's own progress bars in that process's log, and the others wait for
    it: one lock for each repository.
    """

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Repository on the Hub, as owner/name."""
    revision: str = "main"
    """A branch, tag or commit. It is the identity: give a commit, for a branch may move under the results."""
    holds: Literal["pipeline", "model"] = "pipeline"
    """What is downloaded: a generator with the components of its model_index.json, or one model of the transformers
    library (a juror, a scorer), whose files lie at the top of the repository."""

    def identity(self) -> dict[str, Any]:
        """Repository and revision; nothing is downloaded for it."""
        return {"hub": self.repo, "revision": self.revision}

    def folder(self, places: Places) -> Path:
        """The folder it is in on this machine, downloaded where that is needed."""
        return self.local

    @property
    def local(self) -> Path:
        """The folder it is in on this machine, downloaded if need be, safetensors only.

        Raises ConfigError where the Hub cannot be reached and the cache lacks it, and where it is refused or not there.
        """
        from huggingface_hub import constants
        from huggingface_hub.errors import HFValidationError

        offline = constants.HF_HUB_OFFLINE
        try:
            if offline:
                return self._downloaded()
            with one_at_a_time(Path(constants.HF_HUB_CACHE), self.repo):
                return self._downloaded()
        except (OSError, HFValidationError) as error:
            reason = str(error).strip().splitlines()[0]
            allowed = "This process works offline: set HF_HUB_OFFLINE=0 to let the run download. " if offline else ""
            raise ConfigError(
                f"weights {self.repo!r} at revision {self.revision!r} are not to be had: {reason} {allowed}"
                f"Or download them where there is a network (hf download {self.repo}), log in for a gated model, "
                "or give a folder"
            ) from error

    def _downloaded(self) -> Path:
        """The snapshot in the cache; files that it lacks are downloaded unless the process works offline."""
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        if self.holds == "model":
            options = {"allow_patterns": list(MODEL), "ignore_patterns": list(NO_MODEL)}
            found = Path(snapshot_download(self.repo, revision=self.revision, **options))
            if next(found.glob("*.safetensors"), None) is None:
                raise FileNotFoundError("it has no .safetensors file of a model.")
            return found
        try:
            index = json.loads(Path(hf_hub_download(self.repo, INDEX, revision=self.revision)).read_text())
        except RemoteEntryNotFoundError as error:
            raise FileNotFoundError(f"it has no {INDEX}, so it holds no pipeline.") from error
        components = [name for name, value in index.items() if isinstance(value, list) and name not in UNUSED]
        found = snapshot_download(
            self.repo,
            revision=self.revision,
            allow_patterns=[INDEX, *(f"{name}/{pattern}" for name in components for pattern in WANTED)],
            ignore_patterns=list(UNWANTED),
        )
        return Path(found)


class Made(Config):
    """Weights that a stage of the same DAG makes: what it trained is a model like any other."""

    stage: Stage

    def folder(self, places: Places) -> Path:
        """The stage's weights, every hash checked; raises LookupError where the stage has not run."""
        return places.weights(self.stage)


Weights = Folder | Hub | Made
"""Weights by folder, by repository or by the stage that makes them: the type of an option."""
