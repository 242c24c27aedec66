"""`salon COMMAND …`: the same as `python -m jobs.COMMAND …`. Only the asked command is imported."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword

from infra.config import ConfigError
from infra.store.record import NewerRecord

COMMANDS = {
    "run": "compute the stages of a recipe that the store does not hold yet",
    "plan": "say what run would compute, and why; compute nothing",
    "submit": "run a recipe as a job of a Ray cluster",
    "report": "say where the report of a run is",
    "show": "list the runs of a store and their stages",
    "sql": "query the tables of every stage with DuckDB",
    "explain": "say what the rows of a stage were made from",
    "import": "read preference pairs of other formats into the store",
    "export": "write the pairs of a run in other formats",
    "gc": "remove what no run needs any more",
}
ABOUT = (
    "usage: salon COMMAND [FLAG …]",
    "",
    "Salon tunes image and video generators on preferences. A recipe is a graph of stages; the store,",
    "a folder (--root), keeps what each stage has computed, and nothing is computed twice.",
    "",
    "commands:",
)
BEGIN = (
    "",
    "A first run of the whole loop, a few minutes on two cores:",
    "  salon run miniature --prompts 60 --evaluation 60",
    "  salon report",
    "",
    "salon COMMAND --help lists the flags of a command, salon run RECIPE --help those of a recipe too.",
)


def usage() -> str:
    """What Salon is, its commands, and where to begin."""
    lines = [f"  {name:<8} {text}" for name, text in COMMANDS.items()]
    return "\n".join([*ABOUT, *lines, *BEGIN])


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
