"""Each prompt is encoded once for all its samples: what a pipeline's `encode_prompt` gave is kept and given again."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from infra.lazy import lazy

torch: Any = lazy("torch")

KEPT = 64
"""Encodings in memory at a time; samples of one prompt follow each other."""
PROBES = ("a", "a photograph of seven small red lanterns on a long wooden table at night")
"""Two prompts of different length."""


class EncodedOnce:
    """Stands for the `encode_prompt` of one pipeline, whose own call uses it; the tensors are those of that method.

    A list of prompts is encoded prompt by prompt, so that an encoding depends on its own prompt alone.
    """

    def __init__(self, encode: Callable[..., Any]) -> None:
        self.encode = encode
        self.computed = 0
        """How many encodings were computed."""
        self._signature = inspect.signature(encode)
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def __call__(self, *positional: Any, **named: Any) -> Any:
        """What `encode_prompt` returns for these arguments."""
        given = dict(self._signature.bind(*positional, **named).arguments)
        if any(isinstance(value, torch.Tensor) for value in given.values()):
            return self.encode(**given)
        prompts = given.get("prompt")
        if not isinstance(prompts, list) or len(prompts) == 1:
            return self._one(given)
        return joined([self._one(given | _row(given, place)) for place in range(len(prompts))])

    def _one(self, given: dict[str, Any]) -> Any:
        key = repr(sorted(given.items()))
        if key not in self._kept:
            self._kept[key] = self.encode(**given)
            self.computed += 1
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return _copied(self._kept[key])


def of_one_length(encode: EncodedOnce, *, device: Any) -> bool:
    """Whether a pipeline encodes prompts of any length as tensors of one shape, and so can sample them together."""
    needed = {"device": device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(encode.encode).parameters.items():
        if name in needed or (name != "prompt" and parameter.default is parameter.empty):
            given[name] = needed.get(name)
    shapes = [_shapes(encode(prompt=prompt, **given)) for prompt in PROBES]
    return shapes[0] == shapes[1] and None not in shapes[0]


def joined(rows: Sequence[Any]) -> Any:
    """Encodings of several prompts as one of them all: tensors of one row each are put one below the other."""
    first = rows[0]
    if isinstance(first, tuple):
        return tuple(joined([row[place] for row in rows]) for place in range(len(first)))
    if isinstance(first, list):
        return [item for row in rows for item in row]
    if first is None:
        return None
    if first.shape[0] == 1:
        return torch.cat(list(rows))
    return first  # what all prompts share, such as FLUX's positions of tokens


def _row(given: dict[str, Any], place: int) -> dict[str, Any]:
    """The arguments of one prompt of a list."""
    lists = {name: value for name, value in given.items() if "prompt" in name and isinstance(value, list)}
    return {name: [value[place]] for name, value in lists.items()}


def _copied(value: Any) -> Any:
    """The same values in other memory: a pipeline may change what it was given."""
    if isinstance(value, tuple | list):
        return type(value)(_copied(item) for item in value)
    return value.clone() if isinstance(value, torch.Tensor) else value


def _shapes(value: Any) -> list[tuple[int, ...] | None]:
    """Shapes of all tensors; None for a list, whose parts belong to single prompts."""
    if isinstance(value, tuple):
        return [shape for item in value for shape in _shapes(item)]
    if isinstance(value, list):
        return [None]
    return [] if value is None else [tuple(value.shape)]
