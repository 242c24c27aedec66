"""Which VAE latents are of: its class, its config, and the values of its weights, read from disk without building it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from infra.config import ConfigError
from infra.identity import key_of


def vae_identity(folder: Path) -> dict[str, str]:
    """Identity of the VAE in a pipeline's folder; the same however its weights are sharded, and in fp32 as in bf16.

    Weights count by their values in single precision: saving a VAE in a wider dtype makes no other VAE.
    """
    place = folder / "vae"
    if not (place / "config.json").is_file():
        raise ConfigError(f"{place} holds no VAE; give the folder of a whole pipeline")
    config = json.loads((place / "config.json").read_text())
    said = {name: value for name, value in config.items() if not name.startswith("_")}
    return {"class": config["_class_name"], "config": key_of(said), "weights": _weights_hash(place)}


def _weights_hash(folder: Path) -> str:
    import torch
    from safetensors import safe_open

    digests = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                values = file.get_tensor(name).to(torch.float32).contiguous()
                digests[name] = [list(values.shape), hashlib.sha256(values.numpy()).hexdigest()]
    return key_of(digests)
