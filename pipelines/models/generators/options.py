"""Options of `Diffusers` that have options of their own: the scheduler, and caches between steps; imports no diffusers."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, field_validator

from infra.config import Config

Attention = Literal[
    "native", "_native_cudnn", "_native_efficient", "_native_flash", "_native_math", "flex", "flash", "flash_varlen",
    "_flash_3", "_flash_varlen_3", "sage", "sage_varlen", "_sage_qk_int8_pv_fp8_cuda", "_sage_qk_int8_pv_fp8_cuda_sm90",
    "_sage_qk_int8_pv_fp16_cuda", "_sage_qk_int8_pv_fp16_triton", "xformers",
]  # fmt: skip
"""diffusers' names of attention backends, without those that download and run kernels (`*_hub`)."""
Offload = Literal["none", "model", "sequential", "group"]
CACHES = {
    "first_block": "FirstBlockCacheConfig",
    "taylor_seer": "TaylorSeerCacheConfig",
    "mag": "MagCacheConfig",
    "sea": "SeaCacheConfig",
    "faster": "FasterCacheConfig",
    "pyramid_attention": "PyramidAttentionBroadcastConfig",
}
"""diffusers' class of the options of each cache."""


@lru_cache
def names_in(package: Literal["pipelines", "schedulers"], ending: str) -> frozenset[str]:
    """Names of diffusers' classes with an ending, read from the package's list without importing it."""
    found = find_spec("diffusers")
    assert found is not None and found.origin is not None
    listed = (Path(found.origin).parent / package / "__init__.py").read_text()
    return frozenset(re.findall(rf'"(\w+{ending})"', listed))


def unknown(name: str, known: frozenset[str]) -> str:
    """The remedy for a name that is not known."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else "see diffusers' documentation for the names"


class Scheduler(Config):
    """The sampler that replaces the pipeline's own: a class of diffusers, and options that differ.

    Scheduler(name="UniPCMultistepScheduler", config={"flow_shift": 5.0, "use_flow_sigmas": True})
    """

    name: str | None = None
    """Class name; None: the pipeline's own class, with other options."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    """Options of the class that differ from the pipeline's own scheduler, such as `shift` or `use_karras_sigmas`."""

    @field_validator("name")
    @classmethod
    def _of_diffusers(cls, value: str | None) -> str | None:
        known = names_in("schedulers", "Scheduler")
        if value is not None and value not in known:
            raise ValueError(f"diffusers has no scheduler {value!r}; {unknown(value, known)}")
        return value


class StepCache(Config):
    """A cache between sampling steps: faster, and other pictures.

    StepCache(method="first_block", options={"threshold": 0.1})
    """

    method: Literal["first_block", "taylor_seer", "mag", "sea", "faster", "pyramid_attention"]
    """Which one of diffusers' caches."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Fields of diffusers' own config of it, such as `threshold` or `cache_interval`; what is left out has its default."""
