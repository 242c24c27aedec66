"""Stages and the DAG they form: the object tree of frozen configs. No Ray, no files.

A stage names its parents by holding them: `labels: Label` is a field, so a recipe whose tables do not fit is refused when
it is built. Its key is a hash of what it means (name, version, options, parents by key); `Resources` say where it runs and
are no part of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa
from pydantic import Field

from infra.config import Config
from infra.dag.foretold import GpuTime
from infra.identity import fields, key_of


class Resources(Config):
    """Where a stage runs; never part of its identity."""

    workers: int = Field(1, ge=1, le=4096)
    "Actors (row-wise stages) or training workers."
    cpus: float = Field(1.0, ge=0)
    "Logical CPUs per actor."
    gpus: float = Field(0.0, ge=0)
    "GPUs per actor."
    memory_gb: float | None = Field(None, gt=0)
    "Memory an actor reserves, GiB."
    stall_s: float = Field(900.0, gt=0)
    "Seconds without a finished shard after which an actor is killed and its rows are suspected."
    resident: int = Field(1, ge=1)
    "Models an actor keeps loaded; with one, an actor works through a model's rows before it loads the next."
    label_selector: dict[str, str] = Field(default_factory=dict)
    "Labels that the node of an actor or training worker must have, as Ray's label selectors name them."
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    "Ray's runtime environment of an actor (`py_executable`, `env_vars`, …): another environment for one stage."
    max_restarts: int = Field(2, ge=0)
    "How often a training run is restarted after a worker died."


class Stage(Config):
    """One node: options and parents as fields, identity from them."""

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raise by hand when the meaning of run() changes
    row: ClassVar[type]
    tables: ClassVar[Mapping[str, type]] = {}  # side tables by name, filled through context.emit
    cheap: ClassVar[bool] = False  # so cheap that `plan` computes its rows to foresee its children's
    elsewhere: ClassVar[bool] = False  # it names an artifact that another recipe makes, and is never computed here

    resources: Resources = Field(Resources(), exclude=True)
    max_error_share: float = Field(0.05, ge=0, le=1, exclude=True)
    "The stage fails when more than this share of its rows is quarantined."
    label: str = Field("", exclude=True)
    "Tells nodes of one stage apart within a recipe."

    @cached_property
    def description(self) -> dict[str, Any]:
        """What is hashed: the identity in full, as the record keeps it."""
        return {"stage": self.name, "version": self.version} | fields(self)

    @cached_property
    def key(self) -> str:
        """24 hex characters that name this work."""
        return key_of(self.description)

    def identity(self) -> dict[str, str]:
        """How a child's identity speaks of this stage: by key."""
        return {"stage": self.name, "key": self.key}

    @property
    def node(self) -> str:
        """Name of the node within a recipe: the stage's name, with its label in brackets."""
        return f"{self.name}[{self.label}]" if self.label else self.name

    @cached_property
    def parents(self) -> dict[str, Stage]:
        """Parent stages by their path in this stage's tree: `labels`, `scores[0]`, `roster[1].weights.stage`.

        A stage anywhere in the options is a parent: in a tuple, in a dict, or in a config that holds one.
        """
        found: dict[str, Stage] = {}
        for field, value in _options(self):
            found |= _stages_in(value, path=field)
        return found

    def expected_rows(self, inputs: Inputs) -> int | None:
        """Rows this stage will write, where that can be foreseen without computing them."""
        del inputs
        return None

    def require_here(self) -> None:
        """Raises ConfigError where a run cannot do this stage because this machine or a service it names is not ready."""

    def demand(self, inputs: Inputs) -> str:
        """What it needs beyond CPUs, for `plan`: GPUs, the memory of a rank; "" where that goes without saying."""
        del inputs
        return f"{self.resources.workers} x {self.resources.gpus:g} GPU" if self.resources.gpus else ""

    def gpu_time(self, inputs: Inputs, rows: int | None) -> GpuTime | None:
        """GPU time of so many rows before any run has told; None where nothing is known. `rows`: None where unforeseen."""
        del inputs, rows
        return None


def _options(config: Config) -> Iterator[tuple[str, Any]]:
    """Fields that are part of the identity, with their values."""
    for name, field in type(config).model_fields.items():
        if not field.exclude:
            yield name, getattr(config, name)


def _stages_in(value: Any, *, path: str) -> dict[str, Stage]:
    """Stages at or below a value; those below a stage are that stage's own parents."""
    if isinstance(value, Stage):
        return {path: value}
    below: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Config):
        below = ((f"{path}.{name}", item) for name, item in _options(value))
    elif isinstance(value, list | tuple):
        below = ((f"{path}[{place}]", item) for place, item in enumerate(value))
    elif isinstance(value, dict):
        below = ((f"{path}[{key}]", item) for key, item in value.items())
    found: dict[str, Stage] = {}
    for place, item in below:
        found |= _stages_in(item, path=place)
    return found


def modules_of(stage: Stage) -> set[str]:
    """Modules of a stage's class and of the classes of all configs in its options: of a roster's generators, of jurors.

    A stage imports the interface of those only. Configs below a parent stage belong to that stage.
    """
    configs = [config for _, option in _options(stage) for config in _configs_in(option)]
    return {type(config).__module__ for config in [stage, *configs]}


def _configs_in(value: Any) -> Iterator[Config]:
    below: Iterable[Any] = ()
    if isinstance(value, Config) and not isinstance(value, Stage):
        yield value
        below = (item for _, item in _options(value))
    elif isinstance(value, list | tuple):
        below = value
    elif isinstance(value, dict):
        below = value.values()
    for item in below:
        yield from _configs_in(item)


class Unforeseeable(LookupError):
    """Rows that only running can tell."""


class Inputs(Protocol):
    """What a stage may ask of its parents, foreseen (in `plan`) or real (in `run`)."""

    def table(self, parent: Stage, columns: Sequence[str] | None = None, *, name: str | None = None) -> pa.Table:
        """The parent's rows, or those of its side table `name`."""
        ...


class Context(Inputs, Protocol):
    """What a stage that computes in one piece is given."""

    def lookup(self, parent: Stage) -> Any:
        """A picklable reader (`infra.store.artifacts.RowReader`) of an ancestor's rows by id, for a stage's own workers."""
        ...

    @property
    def weights_out(self) -> Path:
        """Where to write weights; becomes `weights/` of the artifact."""
        ...

    @property
    def scratch(self) -> Path:
        """A folder that survives a kill and goes when the stage is recorded."""
        ...

    def rows(self, parent: Stage, *, name: str | None = None) -> Iterator[Any]:
        """The parent's rows as dataclass objects."""
        ...

    def weights(self, parent: Stage) -> Path:
        """The folder of the parent's weights, their hashes checked."""
        ...

    def quarantine(self, row: str, reason: str | Exception) -> None:
        """Leaves out the row with this id; the reason becomes a row of the stage's errors."""
        ...

    def emit(self, name: str, rows: Iterable[Any]) -> None:
        """Writes the side table `name`."""
        ...

    def metric(self, name: str, value: Any) -> None:
        """A JSON value for the record."""
        ...

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Tells the user how far the stage is."""
        ...

    def lineage(self) -> list[Lineage]:
        """Every ancestor of this stage as this run left it, parents first."""
        ...


@dataclass(frozen=True)
class Lineage:
    """One ancestor in a run: for the report."""

    node: str
    stage: str
    key: str
    state: str  # hit | computed
    seconds: float
    rows: int
    error_rows: int
    reused_rows: int
    parents: tuple[str, ...]
    metrics: dict[str, Any]


class TableStage(Stage):
    """Computes its rows in one piece, in one Ray task."""

    @abstractmethod
    def run(self, context: Context) -> Iterator[Any]:
        """Rows of `row`; side tables, weights and metrics through the context."""


class Places(Protocol):
    """Where a run keeps the weights of stages; picklable, so that a process on any node can ask."""

    def weights(self, parent: Stage) -> Path:
        """The folder of a stage's weights, every hash checked; raises LookupError where the stage has not run."""
        ...


class Worker(Protocol):
    """What an actor runs for a row-wise stage: picklable before `open`."""

    def open(self, device: str, places: Places) -> None:
        """Loads models; called once in the actor's process.

        device: "cpu" or "cuda", decided by the stage's resources (`actors.device`); places: the weights of stages.
        """
        ...

    def run(self, cells: pa.Table) -> Sequence[Any] | pa.Table:
        """One result for each cell, in the cells' order: rows of the stage's class, or a table of its schema.

        An exception in the place of a row quarantines that row alone: nothing that succeeded is computed again. An
        exception that is raised makes the cells be tried in halves, until the rows that fail are found.
        """
        ...


class Lookup(Protocol):
    """Random access to a parent's rows by id; picklable."""

    def take(self, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Rows with these ids, in this order."""
        ...


class RunInputs(Inputs, Protocol):
    """Real parents: what a worker is built from."""

    def lookup(self, parent: Stage) -> Lookup:
        """A picklable reader of the parent's rows by id."""
        ...

    def weights(self, parent: Stage) -> Path:
        """The folder of the parent's weights."""
        ...


class RowStage(Stage):
    """Computes each row by itself, on actors, shard by shard; rows are kept by content id.

    `cells` says which rows there are (one cell each: `id` and what is needed to compute it); it must be cheap, because
    `plan` calls it, and its columns that the row class has too must hold the row's values, because children foresee theirs
    from them.
    """

    in_cells: ClassVar[tuple[str, ...]] = ()
    """Options that enter row by row: the id or another column of a cell holds the row's part of them, or they only decide
    which rows there are. All other options enter every row: another value makes all rows anew."""

    shard_rows: int = Field(128, ge=1)
    "Rows per file and per call; part of the identity, since it decides how rows are batched."

    @abstractmethod
    def cells(self, inputs: Inputs) -> pa.Table:
        """One cell a row, with a unique string column `id`."""

    def cell_count(self, inputs: Inputs) -> int | None:
        """The number of cells, where it is known without making them: `plan` asks where the store has nothing of it."""
        return None

    @abstractmethod
    def worker(self, inputs: RunInputs) -> Worker:
        """What each actor runs."""

    def reads(self) -> Sequence[Stage]:
        """Stages whose weights or whole tables the worker reads; all rows are made anew when their content changes.

        Stages inside options (weights that a stage makes) need not be named.
        """
        return ()

    def looks_up(self) -> Mapping[str, Stage]:
        """Stages whose rows the worker reads by id, by the column of the cells that holds the id."""
        return {}

    def finish(self, context: Context, rows: Callable[..., pa.Table]) -> None:
        """Called once when all shards are there, before the record: side tables, metrics. `rows(columns)` reads them."""
        del context, rows


def topological(target: Stage) -> list[Stage]:
    """Every stage the target needs and itself, parents first, each key once; ValueError where two nodes share a name."""
    order: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.key in order:
            return
        for parent in stage.parents.values():
            visit(parent)
        order[stage.key] = stage

    visit(target)
    names = [stage.node for stage in order.values()]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two different nodes are called {name!r}; give one a label")
    return list(order.values())


def descendants(order: Sequence[Stage], start: Stage) -> set[str]:
    """Keys of `start` and of everything in `order` that depends on it."""
    found = {start.key}
    for stage in order:
        if any(parent.key in found for parent in stage.parents.values()):
            found.add(stage.key)
    return found
