"""`salon COMMAND …`: the same as `python -m jobs.COMMAND …`. Only the asked command is imported."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword

from infra.config import ConfigError
from infra.store.record import NewerRecord

COMMANDS = {
    "run": "compute what a recipe is missing",
    "plan": "say what run would do, and why",
    "import": "preference pairs of other formats into the store",
    "export": "the pairs of a run in other formats",
    "sql": "query every dataset with DuckDB",
    "submit": "run a recipe on a Ray cluster",
    "show": "the runs of a store and their artifacts",
    "explain": "what one artifact is made of, and what it differs in",
    "gc": "remove artifacts no run uses",
    "report": "write or open the report of a run",
}


def usage() -> str:
    """The list of commands."""
    lines = [f"  salon {name:<8} {text}" for name, text in COMMANDS.items()]
    return "usage: salon COMMAND …\n\n" + "\n".join(lines) + "\n\nsalon COMMAND --help says more."


def guarded(command: str, argv: list[str]) -> int:
    """Runs a command; bad input is a message and exit status 2, never a traceback."""
    module = f"{command}_" if iskeyword(command) else command
    try:
        return import_module(f"jobs.{module}").main(argv)
    except (ConfigError, NewerRecord) as error:
        print(f"salon {command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"salon {command}: {place}{error.strerror or error}", file=sys.stderr)
        return 2


def main(argv: list[str] | None = None) -> int:
    """Entry point of `salon`."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] not in COMMANDS:
        near = get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(COMMANDS)}"
        print(f"salon: unknown command {words[0]!r}; {hint}", file=sys.stderr)
        return 2
    return guarded(words[0], words[1:])


if __name__ == "__main__":
    sys.exit(main())
