"""`salon import FORMAT FOLDER`: pairs of the field's formats into the store, where recipes find them.

An import is an artifact: its key comes from the contents of the folder's files, so that importing again is a hit, and
`salon run RECIPE --pairs FOLDER --pairs-format FORMAT` takes it as it is. What cannot be used is left out and listed,
with its file and line; the rest is imported.
"""

from __future__ import annotations

import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.executor import RayExecutor
from infra.cluster.connection import require_usable
from infra.config import ConfigError
from infra.dag.failed import StageFailed
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.shards import RowError
from infra.dag.stage import Resources
from infra.store.artifacts import Artifact, Store
from infra.store.files import Folder
from infra.store.tables import from_table, read_verified
from jobs.arguments import Parser, address_flag, existing_folder, positive, require_writable, root_flag, run_name_flag
from jobs.progress import Console
from pipelines.exchange.folder import clips_in
from pipelines.exchange.formats import FORMATS, format_named, renames
from pipelines.stages.imported import ImportedClips, ImportedLabels, ImportedPictures, PairFiles

SHOWN = 10


def arguments(argv: list[str]) -> Namespace:
    """The parsed command line."""
    parser = Parser(prog="salon import", description=__doc__)
    parser.add_argument("format", help=f"one of {', '.join(FORMATS)}")
    parser.add_argument("folder", type=existing_folder, help="the folder of the files")
    names = "a column of the files and its name in the format"
    parser.add_argument("--map", metavar="OLD=NEW", action="extend", nargs="+", default=[], help=names)
    parser.add_argument("--clips", action="store_true", help="the files are clips, even if their names do not show it")
    root_flag(parser)
    run_name_flag(parser)
    parser.add_argument("--workers", type=positive, default=2, help="processes that read pictures (default: %(default)s)")
    address_flag(parser)
    return parser.parse_args(argv)


def stages(parsed: Namespace) -> ImportedLabels:
    """import -> import_labels; raises ConfigError for a folder or a name that is not there."""
    kind = format_named(parsed.format)
    renamed = renames(parsed.map, format=kind.name, flag="--map")
    source = PairFiles(folder=Folder(path=str(parsed.folder)), format=kind.name, renamed=renamed)  # type: ignore[arg-type]
    clips = clips_in(source.local, kind) or parsed.clips
    if clips and "video" not in kind.holds:
        raise ConfigError(f"format {kind.name} holds no clips; leave --clips out")
    next(source.batches())  # raises where nothing in the folder is of the format, before any work
    require_writable(parsed.root)
    require_usable(parsed.address, [])
    resources = Resources(workers=parsed.workers)
    pictures = (ImportedClips if clips else ImportedPictures)(source=source, resources=resources)
    return ImportedLabels(pictures=pictures, resources=resources)


@dataclass(frozen=True)
class ImportSummary:
    """The result of an import."""

    pictures: Artifact
    labels: Artifact
    seconds: float
    """Time spent computing; 0 if everything was in the store already."""

    @property
    def imported(self) -> int:
        """Number of pairs imported."""
        return self.labels.record.rows

    @property
    def left_out(self) -> int:
        """Number of rows and files left out."""
        return self.labels.record.error_rows

    def reasons(self) -> Iterator[str]:
        """File, line and reason of what was left out, pictures first; a label without its picture has its reason there."""
        for artifact in (self.pictures, self.labels):
            if artifact.record.errors is not None:
                file = artifact.record.errors
                for error in from_table(read_verified(artifact.directory / file.name, file), RowError):
                    yield error.message

    def lines(self, root: Path) -> Iterator[str]:
        """The lines to print."""
        rate = f", {self.imported / self.seconds:.0f} pairs/s" if self.seconds else ", all there before"
        total = self.imported + self.left_out
        yield f"{self.imported} of {total} pairs imported, {self.left_out} left out{rate}"
        found = [reason for reason in self.reasons() if "the errors of the pictures say why" not in reason]
        found.sort(key=_by_place)
        yield from (f"  {reason}" for reason in found[:SHOWN])
        if len(found) > SHOWN:
            views = f"{self.labels.record.stage}_errors", f"{self.pictures.record.stage}_errors"
            query = " UNION ALL ".join(f"SELECT message FROM {view}" for view in views)
            yield f"  and {len(found) - SHOWN} more: salon sql --root {root} {shlex.quote(query)}"


def _by_place(reason: str) -> list[str | int]:
    """Files by name and their lines by number: 9 before 10."""
    return [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r"([0-9]+)", reason))]


def run(labels: ImportedLabels, parsed: Namespace) -> ImportSummary:
    """Imports what is missing; raises StageFailed."""
    store = Store(parsed.root)
    given = {"format": parsed.format, "folder": str(parsed.folder), "map": parsed.map}
    with RayExecutor(parsed.address, workers=parsed.workers) as executor:
        runner = Runner(store, executor, Console(), recipe="import", arguments=given, name=parsed.run_name or "")
        done = runner.run(labels, Selection())
    seconds = sum(outcome.seconds for outcome in done.values() if outcome.state != "hit")
    return ImportSummary(store.artifact(labels.pictures), store.artifact(labels), seconds)


def main(argv: list[str]) -> int:
    """Exit status 0: all came in; 1: something was left out or failed; 2: nothing can be read; 130: interrupted."""
    parsed = arguments(argv)
    again = f"salon import {shlex.join(argv)}"
    try:
        outcome = run(stages(parsed), parsed)
    except StageFailed as error:
        print(f"salon import: {error}\nresume with: {again}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted; what is finished is kept\nresume with: {again}", file=sys.stderr)
        return 130
    for line in outcome.lines(parsed.root):
        print(line)
    if not outcome.imported:
        print(f"salon import: no pair in {parsed.folder} can be used as format {parsed.format}", file=sys.stderr)
        return 2
    return 1 if outcome.left_out else 0


if __name__ == "__main__":
    from jobs.cli import guarded

    sys.exit(guarded("import", sys.argv[1:]))
