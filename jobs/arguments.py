"""Command lines: common flags, names of runs, roots, and a recipe's flags, all checked before any work."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from infra.cluster.connection import require_address
from infra.config import ConfigError
from infra.dag.stage import Stage
from infra.store.artifacts import Store
from infra.store.runs import read_runs, require_name
from jobs.recipes import Recipe, add_recipe_flags, call_recipe, choose, described, recipe_arguments, recipe_names

DEFAULT_ROOT = "salon-store"
LONGEST_ROOT = 1000
"""Characters of a root's absolute path: the files below it need about 200 more."""


class Parser(argparse.ArgumentParser):
    """argparse with whole flags only, a remedy for a misspelt one, and ConfigError for what is wrong."""

    def __init__(self, **options: Any) -> None:
        form = options.pop("formatter_class", None) or argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=form, **options)

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError: the command ends with status 2 and this message."""
        unknown = message.removeprefix("unrecognized arguments: ").split() if message.startswith("unrecognized") else []
        flags = [word.split("=")[0] for word in unknown if word.startswith("-")]
        known = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        for flag in flags[:1]:
            near = get_close_matches(flag, known, n=1)
            message = f"unknown flag {flag}; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")
        raise ConfigError(message.removeprefix("argument "))


def root_flag(parser: argparse.ArgumentParser) -> None:
    """`--root`: the folder of the store."""
    text = "the store, a folder; it is made where there is none (default: %(default)s)"
    parser.add_argument("--root", type=checked_root, default=Path(DEFAULT_ROOT), metavar="FOLDER", help=text)


def run_flag(parser: Any, *, text: str = "name of a run (default: the newest)") -> None:
    """`--run`: a run to read."""
    parser.add_argument("--run", metavar="NAME", type=run_name, help=text)


def run_name_flag(parser: argparse.ArgumentParser) -> None:
    """`--run-name`: what a new run is called."""
    text = "name of this run, by which the other commands find it; letters, digits, '.', '_' and '-' (default: recipe and "
    text += "time)"
    parser.add_argument("--run-name", metavar="NAME", type=run_name, default=None, help=text)


def address_flag(parser: argparse.ArgumentParser) -> None:
    """`--address`: the Ray cluster that computes."""
    text = "Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT (default: the one that the environment variable "
    text += "RAY_ADDRESS names, or else a local one for this run)"
    parser.add_argument("--address", metavar="ADDRESS", type=ray_address, default="local", help=text)


def ray_address(text: str) -> str:
    """An address of a cluster; argparse names the flag."""
    try:
        require_address(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def run_name(text: str) -> str:
    """A run's name; argparse names the flag."""
    try:
        return require_name(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def checked_root(text: str) -> Path:
    """A folder that is there, or that can be made where it is named; argparse names the flag."""
    return checked_folder(text, what="a store")


def checked_folder(text: str, *, what: str) -> Path:
    """The path, if it is or can become a folder; raises ArgumentTypeError with what is in the way."""
    if not text.strip() or any(not character.isprintable() for character in text):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder's name; give the folder of {what}")
    path = Path(text)
    shown = text if len(text) <= 80 else f"{text[:79]}…"
    try:
        absolute = path.absolute()
        if len(str(absolute)) > LONGEST_ROOT:
            raise argparse.ArgumentTypeError(f"{shown} is too long ({len(str(absolute))} characters); give a shorter one")
        place = absolute
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise argparse.ArgumentTypeError(f"{shown}: {place} is a file, not a folder; give the folder of {what}")
        needed = os.R_OK | os.X_OK if place == absolute else os.W_OK | os.X_OK
        pseudo = place != absolute and place.parts[1:2] and place.parts[1] in ("proc", "sys", "dev")
        if not os.access(place, needed) or (pseudo and place.parts[:3] != ("/", "dev", "shm")):
            does = "read" if place == absolute else "written to"
            raise argparse.ArgumentTypeError(f"{shown}: {place} cannot be {does}; give another folder")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{shown}: {error.strerror or error}; give another folder") from error
    return path


def new_folder(text: str) -> Path:
    """A folder to be made; argparse names the flag."""
    path = checked_folder(text, what="what is written")
    if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written to; give another folder")
    return path


def existing_folder(text: str) -> Path:
    """A folder that is there; argparse names the flag."""
    path = checked_folder(text, what="the files")
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{path}: no such folder; give the folder of the files")
    return path


def open_store(root: Path) -> Store:
    """A store that is there, after naming the files of runs that cannot be read; raises ConfigError where there is none."""
    if not (root / "artifacts").is_dir() and not (root / "runs").is_dir():
        raise ConfigError(f"--root {root} holds no run; give the folder of a store, or start a run with salon run")
    store = Store(root)
    for problem in read_runs(store).broken:
        print(f"{problem}; this run is left out", file=sys.stderr)
    return store


def require_writable(root: Path) -> None:
    """Raises ConfigError where a root that is there cannot be written to; makes nothing."""
    if root.exists() and not os.access(root, os.W_OK | os.X_OK):
        raise ConfigError(f"--root {root} cannot be written to; give another folder")


def common(parser: argparse.ArgumentParser) -> None:
    """Flags of every command that is about a recipe's stages."""
    root_flag(parser)
    which = parser.add_argument_group("which stages (default: all of the recipe)")
    which.add_argument("--only", metavar="STAGE", help="only this stage; its parents must be in the store")
    which.add_argument("--from", dest="start", metavar="STAGE", help="this stage and every stage that depends on it")
    which.add_argument("--until", metavar="STAGE", help="this stage and every stage that it depends on")
    anew = parser.add_argument_group("what is computed again (default: nothing that the store holds)")
    again = "this stage, although the store holds it; may be given several times"
    anew.add_argument("--force", metavar="STAGE", action="append", default=[], help=again)
    anew.add_argument("--retry-errors", action="store_true", help="rows that failed and were left out")
    anew.add_argument("--strict-code", action="store_true", help="stages that were computed with other source code")
    anew.add_argument("--verify", action="store_true", help="files whose content has changed; every hash is checked")


def build(parser: Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, Stage, dict[str, Any]]:
    """Parses `RECIPE --flags` and builds the DAG; raises ConfigError (or exits with 0 after --help) before any work.

    The command's own flags are taken out first, with their values: what is left are the recipe and its flags.
    """
    words = [word for word in argv if word not in ("-h", "--help")]
    wants_help = len(words) < len(argv)
    _, rest = parser.parse_known_args(words)
    if wants_help and not any(not word.startswith("-") for word in rest):
        _complete(parser, None).print_help()
        raise SystemExit(0)

    def tried(word: str, recipe: Recipe) -> tuple[argparse.Namespace, Recipe]:
        whole = _complete(parser, recipe)
        if wants_help:
            whole.print_help()
            raise SystemExit(0)
        parsed = whole.parse_args(words)
        if parsed.recipe != word:
            raise ConfigError(f"{word} is the value of a flag; give a recipe: {', '.join(recipe_names())}")
        return parsed, recipe

    parsed, recipe = choose(rest, tried)
    values = recipe_arguments(recipe, parsed)
    return parsed, call_recipe(recipe, values), values


def _complete(parser: Parser, recipe: Recipe | None) -> Parser:
    """The command's flags, the recipe as the one positional argument, and the recipe's flags where it is known."""
    text = (parser.description or "").strip()
    if recipe is not None:
        text += f"\n\nRecipe {recipe.__name__}: {described(recipe)}"
    usage = "%(prog)s RECIPE [FLAG …]"
    whole = Parser(prog=parser.prog, usage=usage, description=text, parents=[parser], add_help=False)
    hint = f"; {parser.prog} RECIPE --help lists its flags too" if recipe is None else ""
    whole.add_argument("recipe", help=f"one of {', '.join(recipe_names())}, or module:function of your own{hint}")
    if recipe is not None:
        add_recipe_flags(whole, recipe)
    return whole


def positive(text: str) -> int:
    """A number from 1 to 100,000; argparse names the flag."""
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 100000")
    return int(text)
