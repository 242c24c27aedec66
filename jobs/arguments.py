"""A recipe's keyword arguments as command-line flags, checked against their annotations before any work."""

from __future__ import annotations

import argparse
import inspect
import json
import pkgutil
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

import pipelines.recipes
from infra.config import Config, ConfigError
from infra.dag.stage import Stage

Recipe = Callable[..., Stage]
DEFAULT_ROOT = "salon-store"


class Parser(argparse.ArgumentParser):
    """argparse, with a remedy for a misspelt flag; exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Prints the message and where to look."""
        unknown = message.removeprefix("unrecognized arguments: ").split() if message.startswith("unrecognized") else []
        flags = [word.split("=")[0] for word in unknown if word.startswith("--")]
        known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        for flag in flags[:1]:
            near = get_close_matches(flag, known, n=1)
            message = f"unknown flag {flag}; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")
        self.exit(2, f"{self.prog}: {message}\n")


def recipe_names() -> list[str]:
    """Names of the recipes in `pipelines.recipes`: its modules; what recipes share lies in a package of it."""
    return sorted(info.name for info in pkgutil.iter_modules(pipelines.recipes.__path__) if not info.ispkg)


def load_recipe(name: str) -> Recipe:
    """The function of a recipe: a name, or `module:function` of one's own; raises ConfigError for an unknown one."""
    if ":" in name:
        module, function = name.split(":", 1)
        try:
            return getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"recipe {name!r} cannot be imported: {error}; put its folder on PYTHONPATH") from error
    if name not in recipe_names():
        near = get_close_matches(name, recipe_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(recipe_names())}"
        raise ConfigError(f"unknown recipe {name!r}; {hint}")
    return getattr(import_module(f"pipelines.recipes.{name}"), name)


def _hints(recipe: Recipe) -> dict[str, Any]:
    return typing.get_type_hints(recipe, include_extras=True)


def _help(annotation: Any) -> str:
    for extra in typing.get_args(annotation)[1:] if typing.get_origin(annotation) is typing.Annotated else ():
        if isinstance(extra, FieldInfo) and extra.description:
            return extra.description.replace("%", "%%")
    return ""


@dataclass(frozen=True)
class Flag:
    """One flag of a recipe."""

    annotation: Any
    default: Any
    group: str = ""
    """The argument it is a field of, where that is a Config: its fields are flags of their own."""

    @property
    def plain(self) -> Any:
        """Its type without what is annotated about it."""
        annotated = typing.get_origin(self.annotation) is typing.Annotated
        return typing.get_args(self.annotation)[0] if annotated else self.annotation


def flags_of(recipe: Recipe) -> dict[str, Flag]:
    """A recipe's flags by name: its keyword arguments, and the fields of those that are Configs."""
    hints = _hints(recipe)
    found: dict[str, Flag] = {}
    for name, parameter in inspect.signature(recipe).parameters.items():
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
    group = parser.add_argument_group("recipe flags")
    for name, flag in flags_of(recipe).items():
        text = f"{_help(flag.annotation)} (default {flag.default})".strip()
        given: dict[str, Any] = {"dest": f"recipe.{name}", "default": argparse.SUPPRESS, "help": text}
        if flag.plain is bool:
            given["action"] = argparse.BooleanOptionalAction
        else:
            given["metavar"] = name.upper()
        group.add_argument(f"--{name.replace('_', '-')}", **given)


def recipe_arguments(recipe: Recipe, parsed: argparse.Namespace) -> dict[str, Any]:
    """The flags given, as values of their types; raises ConfigError naming the flag and its bound."""
    flags = flags_of(recipe)
    values: dict[str, Any] = {}
    for dest, raw in vars(parsed).items():
        if not dest.startswith("recipe."):
            continue
        name = dest.removeprefix("recipe.")
        shown = f"--{name.replace('_', '-')} {raw}"
        try:
            values[name] = TypeAdapter(flags[name].annotation).validate_python(_given(raw, flags[name].plain))
        except json.JSONDecodeError as error:
            raise ConfigError(f'{shown}: no JSON list: {error}; give A,B,… or ["A", "B"]') from error
        except ValidationError as error:
            reasons = "; ".join(problem["msg"] for problem in error.errors())
            raise ConfigError(f"{shown}: {reasons}") from error
    return values


def call_recipe(recipe: Recipe, values: dict[str, Any]) -> Stage:
    """The recipe's DAG with these flags; a Config argument is its default with the given fields changed."""
    flags = flags_of(recipe)
    given = {name: value for name, value in values.items() if not flags[name].group}
    for group in {flags[name].group for name in values} - {""}:
        default = inspect.signature(recipe).parameters[group].default
        changed = {name: value for name, value in values.items() if flags[name].group == group}
        given[group] = type(default)(**(dict(default) | changed))
    return recipe(**given)


def _given(raw: Any, annotation: Any) -> Any:
    """What a flag's text stands for: a list is A,B,… or, where its items have commas, a JSON list."""
    if typing.get_origin(annotation) is tuple:
        return json.loads(raw) if raw.lstrip().startswith("[") else [part for part in raw.split(",") if part]
    return None if raw == "none" and type(None) in typing.get_args(annotation) else raw


def common(parser: argparse.ArgumentParser) -> None:
    """Flags of every command that is about a recipe's stages."""
    parser.add_argument("--root", type=Path, default=Path(DEFAULT_ROOT), help="folder of artifacts (default %(default)s)")
    parser.add_argument("--only", metavar="STAGE", help="just this stage, from cached parents")
    parser.add_argument("--from", dest="start", metavar="STAGE", help="this stage and what depends on it")
    parser.add_argument("--until", metavar="STAGE", help="this stage and what it depends on")
    parser.add_argument("--force", metavar="STAGE", action="append", default=[], help="compute this stage again")
    parser.add_argument("--retry-errors", action="store_true", help="compute quarantined rows again")
    parser.add_argument("--strict-code", action="store_true", help="treat changed source as a miss")
    parser.add_argument("--verify", action="store_true", help="check the hash of every cached file first")


def build(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, Stage, dict[str, Any]]:
    """Parses `RECIPE --flags`, builds the DAG; raises ConfigError (or exits with 2) before any work."""
    parser.add_argument("recipe", help=f"one of {', '.join(recipe_names())}, or module:function")
    if "-h" in argv or "--help" in argv:
        early = [word for word in argv if not word.startswith("-")][:1]
    else:
        early = [word for word in argv if not word.startswith("-")]
    recipe = _first_recipe(parser, early)
    if recipe is not None:
        add_recipe_flags(parser, recipe)
    parsed = parser.parse_args(list(argv))
    chosen = recipe or load_recipe(parsed.recipe)
    values = recipe_arguments(chosen, parsed)
    return parsed, call_recipe(chosen, values), values


def _first_recipe(parser: argparse.ArgumentParser, words: list[str]) -> Recipe | None:
    """The recipe among the positional words: needed before parsing, since its arguments are flags."""
    del parser
    for word in words:
        if word in recipe_names() or ":" in word:
            return load_recipe(word)
    if words:
        load_recipe(words[0])  # raises with the remedy
    return None
