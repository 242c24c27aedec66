"""Stage `subset`: of imported pairs, those of some parts of their data set.

A stage of its own and no option of the import: what is imported serves every choice of parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, TableStage, Unforeseeable
from infra.store.tables import from_table
from pipelines.schemas.votes import DimensionMargin, Preference
from pipelines.stages.imported import ImportedLabels, subset_name
from pipelines.stages.sources import Labels, Pictures


class PairsOfSubsets(TableStage, Labels):
    """Imported preferences in; those of the chosen parts out, with their margins by dimension."""

    name: ClassVar = "subset"
    tables: ClassVar[Mapping[str, type]] = {"dimensions": DimensionMargin}
    cheap: ClassVar = True

    labels: ImportedLabels
    only: tuple[str, ...] = ()
    "Parts to keep; empty: all, and pairs that name none. Case, - and _ in a name do not matter."
    without: tuple[str, ...] = ()
    "Parts to leave out."
    max_error_share: float = Field(0.0, ge=0, le=1, exclude=True)

    @property
    def shown(self) -> Pictures:
        """All pictures or clips that were imported, of whatever subset."""
        return self.labels.shown

    def run(self, context: Context) -> Iterator[Preference]:
        """The rows of the labels that are kept, in their order."""
        kept = self._kept()
        table = context.table(self.labels)
        table = table.filter(pc.is_in(table["id"], kept))
        if not table.num_rows:
            raise ConfigError("subset: no pair is left; check --subset and --exclude-subset")
        yield from from_table(table, Preference)
        context.emit("dimensions", self._margins(context, kept))

    def _margins(self, context: Context, kept: pa.Array) -> Iterator[DimensionMargin]:
        rows = context.table(self.labels, name="dimensions")
        yield from from_table(rows.filter(pc.is_in(rows["pair_id"], kept)), DimensionMargin)

    def _kept(self) -> pa.Array:
        """Ids of the pairs of the chosen parts, read from the files: `plan` counts them before anything is imported."""
        pieces = [pa.array([], pa.string())]
        for batch in self.labels.pictures.source.batches():
            pieces.append(batch["pair_id"].filter(self._chosen(batch["subset"])))
        return pa.concat_arrays(pieces)

    def _chosen(self, subsets: pa.Array) -> pa.Array:
        """Whether pairs of these subsets are kept; null is a pair that names none."""
        encoded = subsets.dictionary_encode()
        names = [subset_name(name) for name in encoded.dictionary.to_pylist()]
        only, without = (set(map(subset_name, words)) for words in (self.only, self.without))
        wanted = pa.array([name not in without and (not only or name in only) for name in names], pa.bool_())
        return pc.fill_null(wanted.take(encoded.indices), not only)

    def places(self, pairs: pa.Array) -> dict[str, str]:
        """File and line or row of each of these pairs."""
        return self.labels.places(pairs)

    def expected_rows(self, inputs: Inputs) -> int:
        """One for each pair of the chosen parts, or of all where the files are not at hand."""
        try:
            return inputs.table(self, ["id"]).num_rows
        except Unforeseeable:
            return self.labels.expected_rows(inputs)
