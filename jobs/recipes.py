"""Recipes: found by name or as `module:function`, their keyword arguments as flags, and the DAG that they build."""

from __future__ import annotations

import argparse
import inspect
import json
import math
import pkgutil
import re
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

import pipelines.recipes
from infra.config import Config, ConfigError
from infra.dag.stage import Stage, topological

Recipe = Callable[..., Stage]
OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
LARGEST = 10_000_000
"""A larger integer is refused where its flag has no bound of its own: nobody means it, and it fails hours later."""
LARGEST_SEED = 2**63 - 1


def recipe_names() -> list[str]:
    """Names of the recipes in `pipelines.recipes`: its modules; what recipes share lies in a package of it."""
    return sorted(info.name for info in pkgutil.iter_modules(pipelines.recipes.__path__) if not info.ispkg)


def names_a_recipe(word: str) -> bool:
    """Whether a word of a command line can only be meant as a recipe."""
    return word in recipe_names() or OWN.fullmatch(word) is not None


def load_recipe(name: str) -> Recipe:
    """The function of a recipe: a name, or `module:function` of one's own.

    Raises ConfigError for an unknown name, and for a function that does not declare that it returns a Stage: it is not
    called to find out.
    """
    if ":" in name:
        return _own_recipe(name)
    if name not in recipe_names():
        near = get_close_matches(name, recipe_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(recipe_names())}"
        raise ConfigError(f"unknown recipe {name!r}; {hint}")
    return getattr(import_module(f"pipelines.recipes.{name}"), name)


def _own_recipe(name: str) -> Recipe:
    if not OWN.fullmatch(name):
        raise ConfigError(f"recipe {name!r}: give module:function, for instance my_recipes:tune_sdxl")
    module, attribute = name.split(":", 1)
    try:
        function = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"recipe {name!r} cannot be imported: {reason}; put its folder on PYTHONPATH") from error
    try:
        returned = typing.get_type_hints(function).get("return") if inspect.isfunction(function) else None
    except Exception as error:
        raise ConfigError(f"recipe {name!r}: its annotations cannot be read: {error}") from error
    if not (isinstance(returned, type) and issubclass(returned, Stage)):
        raise ConfigError(f"recipe {name!r} is no recipe: it must be a function annotated to return a Stage, `-> Stage`")
    return function


@dataclass(frozen=True)
class Flag:
    """One flag of a recipe."""

    annotation: Any
    default: Any
    """`inspect.Parameter.empty` where the flag must be given."""
    group: str = ""
    """The argument it is a field of, where that is a Config: its fields are flags of their own."""

    @property
    def plain(self) -> Any:
        """The type of the parameter, without the constraints annotated to it."""
        annotated = typing.get_origin(self.annotation) is typing.Annotated
        return typing.get_args(self.annotation)[0] if annotated else self.annotation

    @property
    def fields(self) -> list[FieldInfo]:
        """What is annotated about it."""
        annotated = typing.get_origin(self.annotation) is typing.Annotated
        return (
            [extra for extra in typing.get_args(self.annotation)[1:] if isinstance(extra, FieldInfo)] if annotated else []
        )

    @property
    def description(self) -> str:
        """The description annotated to the parameter."""
        return next((field.description for field in self.fields if field.description), "")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a Literal, () for other types."""
        for kind in (self.plain, *typing.get_args(self.plain)):
            if typing.get_origin(kind) is Literal:
                return tuple(str(value) for value in typing.get_args(kind))
        return ()

    def bound(self, name: str) -> Any:
        """The parameter's bound of this kind (`ge`, `gt`, `le` or `lt`); None where it has none."""
        found = [getattr(item, name, None) for field in self.fields for item in field.metadata]
        return next((value for value in found if value is not None), None)

    def help(self) -> str:
        """Description, bounds and default, in words."""
        bounds = {name: _number(self.bound(name)) for name in ("ge", "gt", "le", "lt") if self.bound(name) is not None}
        if {"ge", "le"} <= set(bounds):
            notes = [f"{bounds['ge']} to {bounds['le']}"]
        else:
            words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
            notes = [f"{words[name]} {bound}" for name, bound in bounds.items()]
        if self.default is inspect.Parameter.empty:
            notes.append("required")
        elif self.plain is bool:
            notes.append(f"default: {'yes' if self.default else 'no'}")
        elif self.default not in (None, "", ()):
            shown = ",".join(map(str, self.default)) if isinstance(self.default, tuple) else self.default
            notes.append(f"default: {shown}")
        text = self.description + (f" ({'; '.join(notes)})" if notes else "")
        return text.strip().replace("%", "%%")


def _number(value: float) -> str:
    """1000000 and not 1e+06, 0.5 and not 0.500000."""
    return str(int(value)) if value == int(value) else f"{value:g}"


def flags_of(recipe: Recipe) -> dict[str, Flag]:
    """A recipe's flags by name: its keyword arguments, and the fields of those that are Configs."""
    hints = typing.get_type_hints(recipe, include_extras=True)
    found: dict[str, Flag] = {}
    for name, parameter in inspect.signature(recipe).parameters.items():
        if name not in hints or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"recipe {recipe.__name__}: argument {name} needs a name and an annotation to become a flag")
        kind = hints[name]
        if isinstance(kind, type) and issubclass(kind, Config):
            for field, annotation in typing.get_type_hints(kind, include_extras=True).items():
                if field in kind.model_fields:
                    found[field] = Flag(annotation, getattr(parameter.default, field), group=name)
        else:
            found[name] = Flag(kind, parameter.default)
    return found


def add_recipe_flags(parser: argparse.ArgumentParser, recipe: Recipe) -> None:
    """One `--flag VALUE` each; `--flag` and `--no-flag` for a bool."""
    group = parser.add_argument_group(f"flags of the recipe {recipe.__name__}")
    for name, flag in flags_of(recipe).items():
        given: dict[str, Any] = {"dest": f"recipe.{name}", "default": argparse.SUPPRESS, "help": flag.help()}
        if flag.plain is bool:
            given["action"] = argparse.BooleanOptionalAction
        elif flag.choices:
            given["metavar"] = "{" + ",".join(flag.choices) + "}"
        else:
            given["metavar"] = _metavar(flag.plain)
        group.add_argument(option(name), **given)


def _metavar(kind: Any) -> str:
    """What stands for a value of this type: N for a whole number, X for another one, A,B,… for several values."""
    kinds = [kind, *typing.get_args(kind)]
    if any(typing.get_origin(each) is tuple for each in kinds):
        return "A,B,…"
    return "N" if int in kinds else "X" if float in kinds else "TEXT"


def option(name: str) -> str:
    """The flag of an argument: learning_rate is --learning-rate."""
    return f"--{name.replace('_', '-')}"


def recipe_arguments(recipe: Recipe, parsed: argparse.Namespace) -> dict[str, Any]:
    """The flags given, as values of their types; raises ConfigError naming the flag, the value and what would be right."""
    flags = flags_of(recipe)
    given = {dest.removeprefix("recipe."): raw for dest, raw in vars(parsed).items() if dest.startswith("recipe.")}
    for name, flag in flags.items():
        if flag.default is inspect.Parameter.empty and name not in given:
            raise ConfigError(f"{option(name)} is required: {flag.description or 'give it a value'}")
    return {name: _value(name, flags[name], raw) for name, raw in given.items()}


def _value(name: str, flag: Flag, raw: Any) -> Any:
    shown = f"{option(name)} {_clipped(raw)}"
    try:
        value = TypeAdapter(flag.annotation).validate_python(_given(raw, flag.plain))
    except json.JSONDecodeError as error:
        raise ConfigError(f'{shown}: no JSON list: {error}; give A,B,… or ["A", "B"]') from error
    except ValidationError as error:
        raise ConfigError(f"{shown}: {_reason(error, flag)}") from error
    _refuse_senseless(value, flag, name=name, shown=shown)
    return value


def _clipped(raw: Any) -> str:
    """A value as given, without control characters, at most 80 characters of it."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(raw))
    text = text if len(text) <= 80 else f"{text[:79]}…"
    return text or "''"


def _reason(error: ValidationError, flag: Flag) -> str:
    """The first problem, in words; a pattern is replaced by what the flag says of itself."""
    if flag.choices:
        near = get_close_matches(str(error.errors()[0]["input"]), flag.choices, n=1)
        return f"choose one of {', '.join(flag.choices)}" + (f"; did you mean {near[0]}?" if near else "")
    problem = error.errors()[0]
    if problem["type"] == "string_pattern_mismatch":
        return f"it has not the form that is wanted here: {flag.description}"
    return problem["msg"].removeprefix("Value error, ")


def _refuse_senseless(value: Any, flag: Flag, *, name: str, shown: str) -> None:
    """Raises ConfigError for what no flag can mean: infinite numbers, huge integers, empty and repeated items."""
    items = value if isinstance(value, tuple) else (value,)
    if isinstance(value, tuple):
        if not value:
            raise ConfigError(f"{shown}: give at least one value, or leave the flag out")
        twice = [item for k, item in enumerate(value) if item in value[:k]]
        if twice:
            raise ConfigError(f"{shown}: {twice[0]} is given twice; name it once")
    for item in items:
        if isinstance(item, float) and not math.isfinite(item):
            raise ConfigError(f"{shown}: it must be a finite number")
        if isinstance(item, str) and isinstance(value, tuple) and not item.strip():
            raise ConfigError(f"{shown}: an item is empty; give A,B,… without spare commas")
        if isinstance(item, str) and any(ord(c) < 32 or ord(c) == 127 for c in item):
            raise ConfigError(f"{shown}: it holds a control character; leave it out")
        most = LARGEST_SEED if name == "seed" else LARGEST
        if isinstance(item, int) and not isinstance(item, bool) and abs(item) > most and flag.bound("le") is None:
            raise ConfigError(f"{shown}: it is too large; give at most {most}")


def _given(raw: Any, annotation: Any) -> Any:
    """What a flag's text stands for: a list is A,B,… or, where its items have commas, a JSON list; `none` is None."""
    if raw == "none" and type(None) in typing.get_args(annotation):
        return None
    for kind in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(kind) is tuple:
            return json.loads(raw) if raw.lstrip().startswith("[") else raw.split(",") if raw else []
    return raw


def call_recipe(recipe: Recipe, values: dict[str, Any]) -> Stage:
    """The recipe's DAG with these flags; a Config argument is its default with the given fields changed.

    Raises ConfigError naming the flag for values that do not go together.
    """
    flags = flags_of(recipe)
    given = {name: value for name, value in values.items() if not flags[name].group}
    try:
        for group in {flags[name].group for name in values} - {""}:
            default = inspect.signature(recipe).parameters[group].default
            changed = {name: value for name, value in values.items() if flags[name].group == group}
            given[group] = type(default)(**(dict(default) | changed))
        target = recipe(**given)
        topological(target)
    except ConfigError as error:
        raise ConfigError(_with_flags(str(error), values)) from error
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError) as error:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else f"{error}"
        raise ConfigError(_with_flags(f"recipe {recipe.__name__} cannot be built: {reason}", values)) from error
    return target


def _with_flags(message: str, values: dict[str, Any]) -> str:
    """The message after the flags that it is about: those it speaks of, or else all that were given."""
    if "--" in message or not values:
        return message
    spoken = [name for name in values if re.search(rf"\b{re.escape(name).replace('_', '[_ -]')}\b", message)]
    return f"{', '.join(f'{option(name)} {_text(values[name])}' for name in spoken or values)}: {message}"


def _text(value: Any) -> str:
    return _clipped(",".join(map(str, value)) if isinstance(value, tuple | list) else value)


def described(recipe: Recipe) -> str:
    """The recipe's own lines for `--help`: its DAG first."""
    return inspect.getdoc(recipe) or ""


def choose(words: Sequence[str], tried: Callable[[str, Recipe], Any]) -> Any:
    """The outcome of `tried` for the word that is the recipe, among words of which some are values of its flags.

    A word after a flag may be that flag's value or stand alone, which only the recipe knows: words that name a recipe are
    tried in turn, those that follow no flag first. Raises ConfigError where none fits.
    """
    plain = [k for k, word in enumerate(words) if not word.startswith("-")]
    free = [k for k in plain if k == 0 or not words[k - 1].startswith("--") or "=" in words[k - 1]]
    after = [k for k in plain if k not in free]
    named = [words[k] for k in (*free, *after) if names_a_recipe(words[k])]
    if not named:
        if not plain:
            raise ConfigError(f"give a recipe: {', '.join(recipe_names())}, or module:function")
        word = words[(free or plain)[0]]
        return tried(word, load_recipe(word))
    problem: ConfigError | None = None
    for word in named:
        try:
            return tried(word, load_recipe(word))
        except ConfigError as error:
            problem = problem or error
    assert problem is not None
    raise problem
