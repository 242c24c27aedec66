"""The header of a safetensors file: 8 bytes that say how long it is (little-endian), then JSON, then the tensors."""

from __future__ import annotations

import json
from pathlib import Path

from infra.store.tables import write_atomic

METADATA = "__metadata__"


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
