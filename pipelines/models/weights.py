"""Where weights are: in a folder, in a repository of the Hugging Face Hub, or in what a stage of the same DAG makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from infra.config import Config, ConfigError
from infra.dag.stage import Places, Stage
from infra.store.files import Folder

INDEX = "model_index.json"
WANTED = ("*.safetensors", "*.json", "*.txt", "*.model")  # of each component: weights, configs, tokenizers
UNWANTED = ("*fp16*", "*non_ema*", "*flax*")  # second copies of the same weights
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


class Hub(Config):
    """A pipeline on the Hugging Face Hub, downloaded at its first use into the Hub's own cache."""

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """owner/name"""
    revision: str = "main"
    """A branch, tag or commit. It is the identity: give a commit, for a branch may move under the results."""

    def identity(self) -> dict[str, Any]:
        """Repository and revision; nothing is downloaded for it."""
        return {"hub": self.repo, "revision": self.revision}

    def folder(self, places: Places) -> Path:
        """The folder it is in on this machine, downloaded where that is needed."""
        return self.local

    @property
    def local(self) -> Path:
        """The folder it is in on this machine, downloaded if need be: components of model_index.json, safetensors only.

        Raises ConfigError where the Hub cannot be reached and the cache lacks it, and where it is refused or not there.
        """
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import HFValidationError

        try:
            index = json.loads(Path(hf_hub_download(self.repo, INDEX, revision=self.revision)).read_text())
            components = [name for name, value in index.items() if isinstance(value, list) and name not in UNUSED]
            found = snapshot_download(
                self.repo,
                revision=self.revision,
                allow_patterns=[INDEX, *(f"{name}/{pattern}" for name in components for pattern in WANTED)],
                ignore_patterns=list(UNWANTED),
            )
        except (OSError, HFValidationError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"weights {self.repo!r} at revision {self.revision!r} are not to be had: {reason} "
                "Download them where there is a network (hf download), log in for a gated model, or give a folder"
            ) from error
        return Path(found)


class Made(Config):
    """Weights that a stage of the same DAG makes: what it trained is a model like any other."""

    stage: Stage

    def folder(self, places: Places) -> Path:
        """The stage's weights, every hash checked; raises LookupError where the stage has not run."""
        return places.weights(self.stage)


Weights = Folder | Hub | Made
"""Weights by folder, by repository or by the stage that makes them: the type of an option."""
