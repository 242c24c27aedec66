"""The header of a safetensors file: 8 bytes that say how long it is (little-endian), then JSON, then the tensors.

It says where each tensor lies, so a broken file is known without reading the tensors.
"""

from __future__ import annotations

import json
from pathlib import Path

from infra.config import ConfigError
from infra.store.tables import write_atomic

METADATA = "__metadata__"
INDEX_OF_PARTS = "*.safetensors.index.json"


def require_whole(folder: Path) -> None:
    """Raises ConfigError where a file of weights in a model's folder is cut off, damaged or missing."""
    for path in sorted(folder.glob("*.safetensors")):
        _require_whole_file(path)
    for index in sorted(folder.glob(INDEX_OF_PARTS)):
        for name in sorted(set(json.loads(index.read_text())["weight_map"].values())):
            if not (folder / name).is_file():
                raise ConfigError(f"{folder / name} is missing, but {index.name} names it; download the model again")


def _require_whole_file(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length)) if length < size else {}
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != METADATA]
        except (ValueError, KeyError, TypeError, AttributeError):
            ends = []
    if not ends or 8 + length + max(ends) != size:
        raise ConfigError(f"{path} is cut off or damaged: {size} bytes are not what its header says; download it again")


def sort_metadata(path: Path) -> None:
    """Puts the metadata of a file in the order of their names, so that equal weights are equal files.

    The library writes them in the order of a hash map, which is another at every call.
    """
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    if METADATA not in header:
        return
    header[METADATA] = dict(sorted(header[METADATA].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_atomic(path, len(text).to_bytes(8, "little") + text + data[end:])
