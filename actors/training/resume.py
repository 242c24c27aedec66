"""What a run may be continued with, and what it leaves behind where it cannot go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

from actors.training.launch import Halt, Session
from actors.training.objective import Objective
from actors.training.options import TrainerOptions
from actors.training.statistics import together
from infra.config import ConfigError
from infra.identity import canonical, fields

CONFIG, HALTED = "config.json", "halted.json"
MOST_NAMED = 8  # examples named in an error
ABSENT = "(nothing)"


def settings_of(objective: Objective, options: TrainerOptions) -> dict[str, Any]:
    """All that decides a run's numbers: kept with every checkpoint, and what a continuation must agree with.

    The engine may change and changes nothing but rounding; its precision may not.
    """
    trainer = fields(options)
    trainer["engine"] = {"bf16": options.engine.bf16}
    return {"objective": canonical(objective.describe()), "trainer": trainer}


def refuse_another(stored: dict[str, Any], given: dict[str, Any]) -> None:
    """Raises ConfigError with the first field in which a run and its continuation differ.

    More steps of a constant learning rate are the same run made longer; under any other schedule the number of steps
    decides every rate after the warm-up.
    """
    for path, before, now in _differences(stored, given, ()):
        if path == ("trainer", "steps") and given["trainer"]["schedule"] == "constant":
            continue
        raise ConfigError(
            f"training cannot be continued: {'.'.join(path)} was {_shown(before)} and is now {_shown(now)}; "
            "give it its old value, or train under another name from the beginning"
        )


def halt(what: str, *, step: int, names: list[str], bad: list[str], session: Session) -> NoReturn:
    """Ends a training whose `what` is no finite number, after update `step` (from 0) was not made. Called by all ranks.

    Writes `halted.json` into the session's folder: the step from 1, the ids of the batch, which of them were not finite
    (`bad`: of this rank; none where only their sum is known), and the last good checkpoint.
    """
    bad = sorted(set(together(bad, session.world)))
    checkpoint = session.checkpoint()
    path = session.folder / HALTED
    if session.rank == 0:
        kept = None if checkpoint is None else str(checkpoint)
        record = {"step": step + 1, "what": what, "batch": names, "not_finite": bad, "checkpoint": kept}
        path.write_text(json.dumps(record, indent=1))
    culprits = bad or names
    shown = ", ".join(sorted(culprits)[:MOST_NAMED]) + (
        f" and {len(culprits) - MOST_NAMED} more" if len(culprits) > MOST_NAMED else ""
    )
    good = "there is no checkpoint before it" if checkpoint is None else f"the last good checkpoint is {checkpoint}"
    raise Halt(
        f"the {what} of step {step + 1} is not a finite number, on {shown}; look at these rows, "
        f"lower the learning rate, or clip harder. The batch is in {path}; {good}"
    )


def _differences(stored: Any, given: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted(stored.keys() | given.keys()):
            yield from _differences(stored.get(key, ABSENT), given.get(key, ABSENT), (*path, key))
    elif isinstance(stored, list) and isinstance(given, list) and len(stored) == len(given):
        for number, (before, now) in enumerate(zip(stored, given, strict=True)):
            yield from _differences(before, now, (*path, str(number)))
    elif stored != given:
        yield path, stored, given


def _shown(value: Any) -> str:
    return value if value == ABSENT else json.dumps(value)
