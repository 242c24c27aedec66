"""Identity: canonical JSON and the keys made of it.

Two configs have one key exactly when they mean the same work. What has no stable form (a function, an open file, a NaN)
raises instead of being guessed, for a key that is not stable is a cache that lies.
"""

from __future__ import annotations

import hashlib
import json
import math
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

KEY_LENGTH = 24
GROUP_LENGTH = 12


def canonical(value: Any) -> Any:
    """`value` as plain JSON data with one form per meaning; raises TypeError for what has none.

    A config becomes its class name and fields; an object with `identity()` becomes what that returns, which is how a
    parent stage becomes its key and a folder of weights its content hash.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value!r} has no stable form; use a finite number")
        return value
    if hasattr(type(value), "identity"):
        return canonical(value.identity())
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, BaseModel):
        return {"class": type(value).__name__} | fields(value)
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((canonical(item) for item in value), key=dumps)
    if isinstance(value, dict):
        if any(not isinstance(key, str) for key in value):
            raise TypeError("only string keys have a stable form")
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, Path):
        raise TypeError(
            f"the path {value} says where, not what; use infra.store.files.Folder, whose identity is its content"
        )
    raise TypeError(f"{type(value).__name__} has no stable form; make it a Config or give it identity()")


def fields(config: BaseModel) -> dict[str, Any]:
    """Canonical fields of a config, without those declared `exclude=True` (where it runs, not what it computes)."""
    declared = type(config).model_fields
    return {name: canonical(getattr(config, name)) for name in sorted(declared) if not declared[name].exclude}


def dumps(value: Any) -> str:
    """JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(value: Any) -> str:
    """24 hex characters (96 bits) of SHA-256 over the canonical form."""
    return hashlib.sha256(dumps(canonical(value)).encode()).hexdigest()[:KEY_LENGTH]


def group_id(text: str) -> str:
    """The id of a prompt: the group by which rows of every table lie together."""
    return hashlib.sha256(text.encode()).hexdigest()[:GROUP_LENGTH]


def row_id(group: str, *parts: str | int) -> str:
    """Content id of a row: the group's 12 characters, then 20 of a hash over everything else that determines the row."""
    joined = "\x1f".join(map(str, parts))
    return group[:GROUP_LENGTH] + hashlib.sha256(joined.encode()).hexdigest()[:20]


def group_of(maker: str, prompt_id: str) -> str:
    """The group of what one generator or juror makes: by maker first, so that a shard needs one model; then by prompt."""
    return _start_of(maker) + prompt_id[:8]


@lru_cache(maxsize=4096)
def _start_of(maker: str) -> str:
    return hashlib.sha256(maker.encode()).hexdigest()[:4]


def seed_of(*parts: str | int) -> int:
    """A seed in [0, 2^63) from what it belongs to: never from a position in a batch or a worker."""
    joined = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(joined.encode()).digest()[:8], "big") >> 1
