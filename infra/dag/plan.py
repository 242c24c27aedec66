"""What a run would do, and why: hit, partial or miss for every stage, rows to compute and to take over.

Rows of a stage that is not there yet are foreseen: a row-wise stage's from its cells, a cheap stage's by computing it in
memory. What is foreseen here is what `infra.dag.run` does, since both ask the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from infra.dag.compute import StoreInputs
from infra.dag.experience import assume, foretell
from infra.dag.fingerprint import SIZE
from infra.dag.foretold import Foretold
from infra.dag.shards import ShardPlan, plan_shards
from infra.dag.source import Sources, changed_files
from infra.dag.stage import RowStage, Stage, TableStage, Unforeseeable
from infra.store.artifacts import Artifact, ArtifactState, Store
from infra.store.record import read_record
from infra.store.tables import to_table

HIT, PARTIAL, MISS = "hit", "partial", "miss"


@dataclass(frozen=True)
class CachePolicy:
    """Which artifacts and rows that a run finds are used again, and which are computed anew."""

    force: frozenset[str] = frozenset()  # keys to compute again from nothing
    retry_errors: bool = False
    strict_code: bool = False
    verify: bool = False


@dataclass(frozen=True)
class NodePlan:
    """One stage in a plan."""

    node: str
    stage: str
    key: str
    state: str  # hit | partial | miss
    rows: int | None  # rows in all; None where only running can tell
    to_do: int | None  # rows to compute
    to_reuse: int  # rows already computed, here or in another artifact
    shards: int  # shards to write
    why: tuple[str, ...] = ()
    source_changed: tuple[str, ...] = ()
    error_rows: int = 0
    demand: str = ""  # GPUs and memory, where there is something to say
    gpus: float = 0.0  # of all workers together
    foretold: Foretold | None = None  # time and disk of what is to do, where earlier runs or others' measurements tell


@dataclass
class Foreseen(StoreInputs):
    """Parents as they will be: read where they are hits, foreseen where they are not."""

    changing: set[str] = field(default_factory=set)
    plans: dict[str, ShardPlan] = field(default_factory=dict)  # of row-wise stages that are no hits
    _tables: dict[str, pa.Table] = field(default_factory=dict)

    def table(self, parent: Stage, columns: Sequence[str] | None = None, *, name: str | None = None) -> pa.Table:
        """See `infra.dag.stage.Inputs`; raises Unforeseeable."""
        if self._there(parent):
            return super().table(parent, columns, name=name)
        if name is not None:
            raise Unforeseeable(f"{parent.node} must run first")
        if parent.key not in self._tables:
            self._tables[parent.key] = self._foresee(parent)
        table = self._tables[parent.key]
        try:
            return table if columns is None else table.select(list(columns))
        except KeyError as error:
            raise Unforeseeable(f"{parent.node} must run first") from error

    def digest(self, stage: Stage) -> str | None:
        """See `infra.dag.fingerprint.Contents`."""
        return super().digest(stage) if self._there(stage) else None

    def hashes(self, stage: Stage) -> pa.Table | None:
        """See `infra.dag.fingerprint.Contents`: of rows that will be taken over, those of where they are now."""
        if self._there(stage):
            return super().hashes(stage)
        plan = self.plans.get(stage.key)
        if plan is None:
            return None
        pieces = [pa.table({"id": pa.array([], pa.string()), "hash": pa.array([], pa.binary(SIZE))})]
        for name in pc.unique(plan.reuse["directory"]).to_pylist():
            directory = self.store.directory(stage).parent / name
            record = read_record(directory)
            found = None if record is None else Artifact(directory, record).hashes()
            if found is not None:
                taken = plan.reuse.filter(pc.equal(plan.reuse["directory"], name))["id"].combine_chunks()
                pieces.append(found.filter(pc.is_in(found["id"], taken)))
        known = pa.concat_tables(pieces).combine_chunks()
        at = pc.index_in(plan.cells["id"], known["id"].combine_chunks()).combine_chunks()
        return pa.table({"id": plan.cells["id"], "hash": known["hash"].combine_chunks().take(at)})

    def _there(self, stage: Stage) -> bool:
        """Whether it is finished and will stay as it is."""
        return stage.key not in self.changing and self.store.inspect(stage).hit

    def settled(self, stage: Stage) -> None:
        """It was computed: what it holds is read from now on, and not foreseen."""
        self.changing.discard(stage.key)
        self.plans.pop(stage.key, None)
        self._tables.pop(stage.key, None)

    def _foresee(self, stage: Stage) -> pa.Table:
        if isinstance(stage, RowStage):
            return stage.cells(self).sort_by("id")
        if isinstance(stage, TableStage) and stage.cheap:
            return to_table(stage.run(_Dry(store=self.store, foreseen=self)), stage.row)  # pyright: ignore[reportArgumentType]
        raise Unforeseeable(f"{stage.node} must run first")


@dataclass
class _Dry(StoreInputs):
    """A context that keeps nothing: for cheap stages computed in `plan`."""

    foreseen: Foreseen

    def table(self, parent: Stage, columns: Sequence[str] | None = None, *, name: str | None = None) -> pa.Table:
        return self.foreseen.table(parent, columns, name=name)

    def rows(self, parent: Stage, *, name: str | None = None) -> Iterator[Any]:
        raise Unforeseeable(f"{parent.node} must run first")

    def progress(self, done: int, total: int, note: str = "") -> None:
        del done, total, note

    def metric(self, name: str, value: Any) -> None:
        del name, value

    def quarantine(self, row: str, reason: str | Exception) -> None:
        del row, reason

    def emit(self, name: str, rows: Iterable[Any]) -> None:
        del name, rows


@dataclass
class Planner:
    """Plans nodes one by one, parents first."""

    store: Store
    policy: CachePolicy
    sources: Sources
    foreseen: Foreseen = field(init=False)
    missing: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.foreseen = Foreseen(store=self.store)

    def plan(self, stage: Stage) -> NodePlan:
        """The stage's plan; call for every stage of a DAG, parents first."""
        found = self.store.inspect(stage, verify=self.policy.verify)
        # Parsing the sources takes most of a second the first time: only where there is something to compare them with.
        compared = found.record is not None and not stage.elsewhere
        changed = tuple(changed_files(found.record.source, self.sources.of(stage))) if compared and found.record else ()
        why = self._why(stage, found, changed)
        record = found.record
        errors = record.error_rows if record else 0
        if not why and record:
            return NodePlan(
                stage.node, stage.name, stage.key, HIT, record.rows, 0, record.rows, 0, (), changed, error_rows=errors
            )
        self.missing.add(stage.key)
        if self.policy.retry_errors and errors and not stage.elsewhere:
            self.foreseen.changing.add(stage.key)
        if any(parent.key in self.foreseen.changing for parent in stage.parents.values()):
            self.foreseen.changing.add(stage.key)
        rows, to_do, to_reuse, shards = self._rows(stage, found, why)
        state = PARTIAL if to_reuse or (found.started and to_do != rows) else MISS
        return NodePlan(
            node=stage.node,
            stage=stage.name,
            key=stage.key,
            state=state,
            rows=rows,
            to_do=to_do,
            to_reuse=to_reuse,
            shards=shards,
            why=tuple(why),
            source_changed=changed,
            error_rows=errors,
            demand=stage.demand(self.foreseen),
            gpus=stage.resources.workers * stage.resources.gpus,
            foretold=self._foretold(stage, to_do),
        )

    def _foretold(self, stage: Stage, rows: int | None) -> Foretold | None:
        """By the records of this store, else by what the stage knows of others' runs."""
        own = foretell(stage, self.store, rows) if isinstance(stage, RowStage) and rows else None
        return own or assume(stage, self.foreseen, rows)

    def _why(self, stage: Stage, found: ArtifactState, changed: tuple[str, ...]) -> list[str]:
        if stage.key in self.policy.force:
            return ["forced"]
        if found.damaged:
            first, *rest = found.damaged
            return [f"damaged: {first}" + (f" and {len(rest)} more" if rest else "")]
        if found.record is None:
            return (["started, not finished"] if found.started else []) or explain(stage, self.store)
        why = [f"{name} ({stage.parents[name].node}) has changed since" for name in found.stale if name in stage.parents]
        why += [f"{name} has changed since" for name in found.stale if name not in stage.parents]
        for name, parent in stage.parents.items():
            if parent.key in self.foreseen.changing:
                why.append(f"{name} ({parent.node}) will change")
        if self.policy.strict_code and changed:
            why.append(f"source changed: {', '.join(changed)}")
        if self.policy.retry_errors and found.record.error_rows and not stage.elsewhere:
            why.append(f"{found.record.error_rows} quarantined rows to retry")
        return why

    def reuse_source(self, stage: Stage) -> dict[str, str] | None:
        """Under strict code, the source an artifact must have for its rows to be taken over."""
        return self.sources.of(stage) if self.policy.strict_code else None

    def _rows(self, stage: Stage, found: ArtifactState, why: list[str]) -> tuple[int | None, int | None, int, int]:
        try:
            if not isinstance(stage, RowStage):
                rows = stage.expected_rows(self.foreseen)
                if rows is None and isinstance(stage, TableStage) and stage.cheap:
                    rows = self.foreseen.table(stage).num_rows
                return rows, rows, 0, 1
            if not self.store.siblings(stage) and (known := stage.cell_count(self.foreseen)) is not None:
                return known, known, 0, max(1, -(-known // stage.shard_rows))
            plan = plan_shards(
                stage,
                stage.cells(self.foreseen),
                store=self.store,
                contents=self.foreseen,
                reuse=stage.key not in self.policy.force,
                source=self.reuse_source(stage),
                damaged=found.damaged,
                restart=bool(found.record and not found.damaged),
                counted=True,
            )
        except Unforeseeable as unknown:
            rows = stage.expected_rows(self.foreseen) if isinstance(stage, RowStage) else None
            why += [f"about: {unknown}"] if rows is not None else []
            return rows, rows, 0, -(-rows // stage.shard_rows) if rows is not None and isinstance(stage, RowStage) else 0
        self.foreseen.plans[stage.key] = plan
        return plan.cells.num_rows, plan.to_do, plan.to_reuse, len(plan.todo)


def flatten(value: Any, place: str = "") -> dict[str, Any]:
    """Leaves of nested JSON by dotted path; a parent stage is one leaf."""
    if isinstance(value, dict) and set(value) != {"stage", "key"}:
        return {k: v for name in value for k, v in flatten(value[name], f"{place}.{name}" if place else name).items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in flatten(item, f"{place}[{i}]").items()}
    return {place: value}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line a differing field: `tune.beta: 500.0 -> 250.0`."""
    before, after = flatten(old), flatten(new)
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name, _ABSENT) != after.get(name, _ABSENT):
            lines.append(f"{name}: {_show(before.get(name, _ABSENT))} -> {_show(after.get(name, _ABSENT))}")
    return lines


_ABSENT = object()


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "(absent)"
    if isinstance(value, dict):
        return f"{value['stage']}/{value['key'][:8]}"
    return repr(value)


def explain(stage: Stage, store: Store, *, nearest_of: int = 50) -> list[str]:
    """Which fields differ from the nearest finished artifact of the same stage."""
    best: list[str] | None = None
    for directory in store.siblings(stage)[-nearest_of:]:
        record = read_record(directory)
        if record is not None and record.key != stage.key:
            lines = differences(record.identity, stage.description)
            if best is None or len(lines) <= len(best):
                best = lines
    return best if best is not None else ["never computed here"]
