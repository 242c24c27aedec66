"""Questionnaires in files: a TOML file holds the kind of questionnaire and its texts, which become part of the identity.

    kind = "pairwise"
    between = " or "
    after = "Which shows {caption}? Answer A, B or tie."

`questionnaire_named("videoalign")` reads one that comes with Salon, `read_questionnaire(path)` a user's own.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from infra.config import ConfigError, describe
from pipelines.models.jurors.asking import AnyQuestionnaire

FOLDER = Path(__file__).parent / "wordings"


def read_questionnaire(path: Path) -> AnyQuestionnaire:
    """The questionnaire in a file; raises ConfigError, with the file's name, for one that cannot be read or asked."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: no questionnaire can be read from it: {error}") from error
    try:
        return TypeAdapter(AnyQuestionnaire).validate_python(found)
    except ValidationError as error:
        raise ConfigError(describe(error, place=str(path), known=[])) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def questionnaire_named(name: str) -> AnyQuestionnaire:
    """A questionnaire that comes with Salon; raises ConfigError with the names that there are."""
    path = FOLDER / f"{name}.toml"
    if name not in names():
        raise ConfigError(f"no wording is called {name!r}; there are {', '.join(names())}, or give a file")
    return read_questionnaire(path)


def names() -> tuple[str, ...]:
    """Names of the questionnaires that come with Salon."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
