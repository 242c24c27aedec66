"""Config: the frozen, closed base of every option, stage and recipe.

Frozen, so that an identity computed once stays true; closed, so that a misspelt option is an error and not a silent
default. Errors name the place, the value and the remedy.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

SHOWN = 80  # characters of a refused value: a stage would print its whole ancestry


class ConfigError(ValueError):
    """Bad input from the outside: a message for a person, exit status 2, before any work."""


def describe(error: ValidationError, *, place: str, known: list[str]) -> str:
    """A pydantic error as one line a problem: where, what was given, what would be right."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "(all)"
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(where.split(".")[-1], known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(known))}"
            lines.append(f"{place}: unknown option {where!r}; {remedy}")
        elif problem["type"] == "missing":
            lines.append(f"{place}: option {where!r} is required; give it a value")
        elif problem["type"] == "value_error":
            # A check of our own: it has named what is wrong and the remedy.
            lines.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            value = problem.get("input")
            given = type(value).__name__ if isinstance(value, BaseModel) else repr(value)
            shown = given if len(given) <= SHOWN else f"{given[:SHOWN]} …"
            lines.append(f"{place}: {where} = {shown} is refused: {problem['msg']}")
    return "\n".join(lines)


class Config(BaseModel):
    """Frozen and closed; raises ConfigError with the class, the option and the remedy."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False, validate_default=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            known = list(type(self).model_fields)
            raise ConfigError(describe(error, place=type(self).__name__, known=known)) from error
