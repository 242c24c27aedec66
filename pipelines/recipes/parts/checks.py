"""What a recipe's flags say that cannot be done, found while it is built: each refusal names the flag and what to give."""

from __future__ import annotations

from collections.abc import Sequence, Set

from infra.config import ConfigError
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.algorithms.preference.scalarisation import Scalarisation
from pipelines.models.families.base import Family
from pipelines.stages.examples import OVERALL
from pipelines.stages.imported import PairFiles, subset_name


def require_lengths(frames: Sequence[int], family: type[Family]) -> None:
    """Raises ConfigError for a length of clips that the family's VAE does not take."""
    multiple = family.frame_multiple
    for length in frames:
        if multiple is None:
            continue
        if length < 1 or length % multiple != 1:
            below = max(length - 1, 0) // multiple * multiple + 1
            takes = f"{family.name} takes clips of {multiple}k + 1 frames"
            raise ConfigError(f"--frames {length}: {takes}; give {below} or {below + multiple}")


def require_dimensions(source: PairFiles, alignment: Scalarisation | None) -> None:
    """Raises ConfigError where no pair has a margin in a dimension that has a weight; reads until all have been seen."""
    if alignment is None or source.folder is None:
        return
    known: set[str] = set()
    for batch in source.batches():
        known |= {name for margins in batch["margins"].to_pylist() if margins for name, _ in margins}
        if _weighted(alignment) <= known:
            return
    require_known(alignment, known, where=str(source.local))


def require_known(alignment: Scalarisation, known: Set[str], *, where: str) -> None:
    """Raises ConfigError for a dimension with a weight that is not among those in which pairs have margins."""
    if missing := sorted(_weighted(alignment) - known):
        has = (
            f"they have {', '.join(sorted(known))}" if known else "they have none; learn from the overall label (--overall)"
        )
        raise ConfigError(f"--dimensions {', '.join(missing)}: no pair of {where} has a margin in it; {has}")


def _weighted(alignment: Scalarisation) -> set[str]:
    return {name for name, weight in alignment.weights.items() if weight > 0}


def require_scores(source: PairFiles, alignment: Scalarisation | None, *, use: str, instead: str) -> None:
    """Raises ConfigError where no sample has a score of its own in a dimension that has a weight.

    `use`: the flag that asks for scores; `instead`: what else the user can do.
    """
    if source.folder is None:
        return
    weights = {OVERALL: 1.0} if alignment is None else alignment.weights
    missing = {name for name, weight in weights.items() if weight > 0}
    for batch in source.batches():
        for scores in batch["scores_a"].to_pylist():
            missing -= {name for name, _ in scores or ()}
        if not missing:
            return
    columns = ", ".join(f"score_a_{name} and score_b_{name}" for name in sorted(missing))
    raise ConfigError(
        f"--pairs {source.local}: no sample has a score of its own in {', '.join(sorted(missing))}, which {use} needs; add "
        f"columns {columns} (format salon), or {instead}"
    )


def require_subsets(source: PairFiles, wanted: Sequence[str]) -> None:
    """Raises ConfigError for a subset that no pair is of; reads until all have been seen."""
    if source.folder is None or not wanted:
        return
    missing, known = {subset_name(name): name for name in wanted}, set[str]()
    for batch in source.batches():
        for name in batch["subset"].unique().drop_null().to_pylist():
            known.add(name)
            missing.pop(subset_name(name), None)
        if not missing:
            return
    has = f"they have {', '.join(sorted(known))}" if known else "they name none (column subset of format salon)"
    raise ConfigError(f"subset {next(iter(missing.values()))!r}: no pair of {source.local} is of it; {has}")


def require_draws(draws: int, method: AnyMethod) -> None:
    """Raises ConfigError where draws of the reference's errors are asked for and the method has no use for them."""
    if draws and method.reference != "errors":
        reads = "no reference" if method.reference == "none" else "the reference's predictions, not its errors"
        raise ConfigError(f"--draws {draws}: {method.method} reads {reads}; give --draws 0, or choose another loss")
