"""Converts published scorers to folders that transformers and this package read: safetensors and config.json.

    python -m pipelines.models.scorers.convert hpsv2 HPS_v2.1_compressed.pt FOLDER --tokenizer TOKENIZER
    python -m pipelines.models.scorers.convert aesthetic sac+logos+ava1-l14-linearMSE.pth FOLDER
    python -m pipelines.models.scorers.convert imagereward ImageReward.pt FOLDER --tokenizer TOKENIZER

These three are published as pickles only. This is the one place that reads one, and it does so with torch's restricted
unpickler (`weights_only=True`), which makes tensors and plain containers and calls nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.exact import load_exactly
from pipelines.models.scorers.image_reward_network import build, published_config
from pipelines.models.scorers.published import (
    clip_config,
    clip_from_open_clip,
    head_from_published,
    image_reward_from_published,
)
from pipelines.models.scorers.strict import load_tokenizer

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

FORMAT = {"format": "pt"}
WEIGHTS = "model.safetensors"


def read_published(file: Path) -> dict[str, torch.Tensor]:
    """Tensors by name of a .safetensors file or a checkpoint; raises ConfigError for anything else.

    A checkpoint may hold them under "state_dict", and their names may begin with "module.".
    """
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        return load_file(file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler's own refusals have no class in common
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(f"{file} is not read: {reason}; only tensors are taken from a pickle") from error
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ConfigError(f"{file} holds no tensors by name; give the published checkpoint")
    return {str(name).removeprefix("module."): value.contiguous() for name, value in found.items()}


def convert_hpsv2(tensors: Mapping[str, torch.Tensor], folder: Path, *, heads: tuple[int, int] = (16, 16)) -> None:
    """Writes a CLIPModel; heads: of the text and the picture encoder, by default ViT-H-14's."""
    from transformers import CLIPModel

    config = clip_config(tensors, text_heads=heads[0], vision_heads=heads[1], activation="gelu")
    model = CLIPModel(config)
    load_exactly(model, _float(clip_from_open_clip(tensors)), source="the published file")
    model.save_pretrained(folder)


def convert_aesthetic(tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Writes the head."""
    _write(_float(head_from_published(tensors)), folder)


def convert_image_reward(
    tensors: Mapping[str, torch.Tensor], folder: Path, *, config: Mapping[str, Any] | None = None
) -> None:
    """Writes the network and its BlipConfig; config: its fields, by default those of ImageReward-v1.0."""
    from transformers import BlipConfig

    blip = BlipConfig(**(published_config() if config is None else config))
    named = _float(image_reward_from_published(tensors))
    load_exactly(build(blip), named, source="the published file")
    _write(named, folder)
    blip.save_pretrained(folder)


def _float(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In float32; the published files keep some in half precision."""
    return {name: value.float().contiguous() for name, value in tensors.items()}


def _write(tensors: Mapping[str, torch.Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / WEIGHTS, FORMAT)


CONVERTERS = {"hpsv2": convert_hpsv2, "aesthetic": convert_aesthetic, "imagereward": convert_image_reward}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.models.scorers.convert", description=__doc__)
    parser.add_argument("scorer", choices=sorted(CONVERTERS), help="which published scorer the file is")
    parser.add_argument("file", type=Path, help="the published checkpoint")
    parser.add_argument("folder", type=Path, help="folder to write; it must be new or empty")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer to be kept beside the weights")
    given = parser.parse_args(arguments)
    if given.folder.exists() and any(given.folder.iterdir()):
        raise ConfigError(f"{given.folder} is not empty; name a new folder")
    CONVERTERS[given.scorer](read_published(given.file), given.folder)
    if given.tokenizer is not None:
        load_tokenizer(given.tokenizer).save_pretrained(given.folder)
    print(f"{given.folder}: {', '.join(sorted(path.name for path in given.folder.iterdir()))}")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"error: {error}")
