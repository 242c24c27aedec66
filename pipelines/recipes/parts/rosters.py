"""Lists of models in YAML: rosters of generators, juries, scorers. Checked closed, and every error names its line.

A list has one mapping per model; `kind` says which class it is, and the other keys are that class's options:

    - kind: diffusers
      name: sd3.5
      weights: stabilityai/stable-diffusion-3.5-medium@main    # OWNER/NAME of the Hub, @revision; or a folder
      steps: 28
      guidance: 4.5

A folder is relative to the file that names it. `salon run align_image --roster FILE --jury FILE` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from infra.config import Config, ConfigError
from infra.store.files import Folder
from pipelines.models.weights import Hub

COMMITTED = Path(__file__).parents[1] / "rosters"
"""Where the lists that come with Salon are."""
WEIGHTS = ("weights", "lora", "head", "tokenizer")
"""Options that name weights: a text there is a folder or a repository of the Hub."""
HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")

Named = TypeVar("Named", bound=Config)


def committed() -> list[str]:
    """Names of the lists that come with Salon."""
    return sorted(path.stem for path in COMMITTED.glob("*.yaml"))


def find(given: str, *, flag: str) -> Path:
    """A file, or the list of this name that comes with Salon; raises ConfigError naming the flag."""
    path = Path(given)
    if path.is_file():
        return path
    if (shipped := COMMITTED / f"{given}.yaml").is_file() and "/" not in given:
        return shipped
    near = get_close_matches(given, committed(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"give a file, or one of {', '.join(committed())}"
    raise ConfigError(f"{flag} {given}: no such file; {hint}")


Kinds = Mapping[str, type[Config]]


def read(
    given: str,
    *,
    kinds: Mapping[str, type[Named]],
    flag: str,
    holds: str = "pipeline",
    nested: Mapping[str, Kinds] | None = None,
    named: Mapping[str, Callable[[str, Path], Config]] | None = None,
) -> tuple[Named, ...]:
    """The models of a list, in its order.

    kinds: classes by the name that `kind` has in the file, the first of which is meant where it is left out.
    holds: what a repository of the Hub holds where such a model's weights are one: "pipeline" or "model".
    nested: options that are models themselves, with their kinds: the scorer of a juror by score.
    named: options that a text may stand for, each with what makes the option of the text and the folder of the list.
    Raises ConfigError, with file and line, for what is no list, an unknown kind or option, and two models of one name.
    """
    path = find(given, flag=flag)
    places: dict[str, str] = {}
    models: list[Named] = []
    for node in _items(path, flag):
        model = _model(node, path, kinds=kinds, holds=holds, nested=nested or {}, named=named or {})
        place, name = _place(path, node), str(getattr(model, "name", ""))
        if name in places:
            raise ConfigError(f"{place}: the name {name!r} is that of the model at {places[name]}; give each its own")
        places[name] = place
        models.append(model)
    return tuple(models)


def _items(path: Path, flag: str) -> Sequence[yaml.Node]:
    """The items of the file's list."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag} {path}: it does not read as text: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: this is no YAML: {error.problem}") from error
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise ConfigError(f"{path}:1: give a list with one model per item (`- name: …`)")
    return root.value


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _model(
    node: yaml.Node,
    path: Path,
    *,
    kinds: Mapping[str, type[Named]],
    holds: str,
    nested: Mapping[str, Kinds],
    named: Mapping[str, Callable[[str, Path], Config]],
) -> Named:
    """One item as a config of its kind."""
    place = _place(path, node)
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{place}: a model is a mapping of its options (`name: …`)")
    _refuse_repeated(node, path)
    values: dict[str, Any] = _plain(node)
    kind = values.pop("kind", next(iter(kinds)))
    if kind not in kinds:
        raise ConfigError(f"{_place(path, _at(node, ('kind',)))}: kind {kind!r} is not known; choose {' or '.join(kinds)}")
    options = {key.value: value for key, value in node.value}
    for name in nested.keys() & options.keys():
        values[name] = _model(options[name], path, kinds=nested[name], holds=holds, nested={}, named={})
    for name in named.keys() & options.keys():
        if isinstance(values[name], str):
            values[name] = _at_line(_place(path, options[name]), named[name], values[name], path.parent)
    try:
        return kinds[kind](**_with_weights(values, path, holds=holds))
    except ConfigError as error:
        where, what = _problem(error, kinds[kind])
        raise ConfigError(f"{_place(path, _at(node, where))}: {what}") from error


def _at_line(place: str, make: Callable[[str, Path], Config], text: str, folder: Path) -> Config:
    try:
        return make(text, folder)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _plain(node: yaml.Node) -> Any:
    """The values of a node, by YAML's safe rules."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_repeated(node: yaml.MappingNode, path: Path) -> None:
    """Raises ConfigError for a key that stands twice in a mapping: YAML would keep the last one without a word."""
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise ConfigError(f"{_place(path, key)}: {key.value} is given twice in this mapping; keep one")
        seen.add(key.value)
        if isinstance(value, yaml.MappingNode):
            _refuse_repeated(value, path)


def _at(node: yaml.Node, location: Sequence[str | int]) -> yaml.Node:
    """The node that a location of pydantic's leads to, as far as the file has it."""
    for part in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is None:
                continue  # the tag of a union stands in the location, but not in the file
            node = found[1] if isinstance(found[1], yaml.MappingNode | yaml.SequenceNode) else found[0]
    return node


def _problem(error: BaseException, kind: type[Config]) -> tuple[list[str | int], str]:
    """Where in an item its first problem is, and the problem in words; one inside a nested config is told by that."""
    where: list[str | int] = []
    while isinstance(found := error.__cause__, ValidationError):
        problem = found.errors()[0]
        where += problem["loc"]
        inner = problem.get("ctx", {}).get("error")
        if not isinstance(inner, BaseException):
            return where, _told(problem, kind)
        error = inner
    return where, str(error)


def _told(problem: Any, kind: type[Config]) -> str:
    """One of pydantic's problems in words."""
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(name.split(".")[-1], kind.model_fields, n=1)
        known = f"known are {', '.join(kind.model_fields)}" if len(problem["loc"]) == 1 else "take it out"
        hint = f"did you mean {near[0]}?" if near else known
        return f"unknown option {name}; {hint}"
    if problem["type"] == "missing":
        return f"{name} is missing; give it a value"
    return f"{name} = {problem['input']!r} is refused: {problem['msg']}"


def _with_weights(values: dict[str, Any], path: Path, *, holds: str) -> dict[str, Any]:
    """The values, with texts that name weights as configs; nested models, such as a juror's scorer, too."""
    found = dict(values)
    for name, value in values.items():
        if name in WEIGHTS and isinstance(value, str):
            found[name] = weights_of(value, beside=path.parent, holds="pipeline" if name == "lora" else holds)
        elif name in WEIGHTS and isinstance(value, dict):
            found[name] = Hub(holds=holds, **value) if "repo" in value else Folder(**value)  # pyright: ignore[reportArgumentType]
        elif isinstance(value, dict):
            found[name] = _with_weights(value, path, holds=holds)
    return found


def weights_of(given: str, *, beside: Path, holds: str) -> Folder | Hub:
    """A folder, absolute or relative to `beside`, or OWNER/NAME[@revision] of the Hub; ConfigError for neither."""
    local = beside / Path(given).expanduser()
    if local.is_dir():
        return Folder(path=str(local))
    named = HUB.fullmatch(given)
    if named is None or given.startswith((".", "~", "/")):
        raise ConfigError(f"weights {given}: no such folder, and no repository (OWNER/NAME or OWNER/NAME@revision)")
    return Hub(repo=named["repo"], revision=named["revision"] or "main", holds=holds)  # pyright: ignore[reportArgumentType]
