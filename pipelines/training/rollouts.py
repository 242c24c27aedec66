"""Rollouts on disk: the states of every round, found again by a run that was killed and replays the round.

`rollouts/000012/part-00003-of-00008.parquet` in a session's folder has the states that rank 3 of 8 collected for round 12:
one row per state with its numbers, and its tensors as safetensors bytes. A part is written under a temporary name and then
renamed; a round is there when all of its parts are, from however many workers. Tensors of the newest rounds are kept, and
the numbers of all rounds, in `rollouts/numbers/`.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra.config import ConfigError
from infra.lazy import lazy
from infra.store.tables import from_table, schema_of, to_table
from pipelines.schemas.training import RolloutState

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")

ROLLOUTS, NUMBERS, TENSORS = "rollouts", "numbers", "tensors"
NOTES = b"rollout"
NAME = re.compile(r"part-(\d{5})-of-(\d{5})\.parquet")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RolloutPart:
    """What one rank collected."""

    states: Sequence[RolloutState]
    tensors: Sequence[Mapping[str, torch.Tensor]]
    """Of each state: latents and candidates, by name."""
    notes: dict[str, Any]
    """JSON data about the rank's work: seconds, forwards, rewards of held-out prompts."""


@dataclass(frozen=True)
class RolloutRound:
    """All states of a round, in one order whatever the number of workers that collected them."""

    states: list[RolloutState]
    packed: list[bytes]
    """The tensors of each state, as safetensors."""
    notes: list[dict[str, Any]]
    """Of every part."""

    def tensors(self, index: int) -> dict[str, torch.Tensor]:
        """Latents and candidates of one state."""
        from safetensors.torch import load

        return load(self.packed[index])


class RolloutFiles:
    """The folder of a run's rollouts."""

    def __init__(self, session_folder: Path, *, rounds_kept: int = 2) -> None:
        """`rounds_kept`: rounds whose tensors stay, the newest ones."""
        self.folder = session_folder / ROLLOUTS
        self.rounds_kept = rounds_kept

    def write(self, number: int, part: RolloutPart, *, rank: int, world: int) -> None:
        """The part of a rank, whole or not at all."""
        from safetensors.torch import save

        folder = self._round(number)
        folder.mkdir(parents=True, exist_ok=True)
        packed = [save({name: value.contiguous().cpu() for name, value in one.items()}) for one in part.tensors]
        table = to_table(part.states, RolloutState).append_column(TENSORS, pa.array(packed, pa.binary()))
        notes = json.dumps({"round": number, **part.notes}).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), NOTES: notes})
        _write(table, folder / f"part-{rank:05d}-of-{world:05d}.parquet")

    def read(self, number: int) -> RolloutRound | None:
        """A round's states by id; None where parts are missing, or where one is damaged, which is logged."""
        found = self._parts(number)
        if found is None:
            return None
        tables = []
        for path in found:
            try:
                tables.append(pq.read_table(path, page_checksum_verification=True))
            except (pa.ArrowException, OSError) as reason:
                log.warning("%s is damaged (%s); the round's rollouts are made again", path, str(reason).splitlines()[0])
                return None
        notes = [json.loads((table.schema.metadata or {}).get(NOTES, b"{}")) for table in tables]
        if any(note.get("round") != number for note in notes):
            log.warning("%s is of another round; the round's rollouts are made again", found[0].parent)
            return None
        whole = pa.concat_tables(tables).sort_by("id")
        states = list(from_table(whole.select(schema_of(RolloutState).names), RolloutState))
        return RolloutRound(states, whole[TENSORS].to_pylist(), notes)

    def settle(self, number: int, states: Sequence[RolloutState]) -> None:
        """Keeps the numbers of a round, and forgets tensors of rounds that are too old to be replayed; by rank 0."""
        numbers = self.folder / NUMBERS
        numbers.mkdir(parents=True, exist_ok=True)
        _write(to_table(states, RolloutState), numbers / f"{number:06d}.parquet")
        for folder in self.folder.glob("[0-9]" * 6):
            if int(folder.name) <= number - self.rounds_kept:
                shutil.rmtree(folder, ignore_errors=True)

    def numbers(self, *, rounds: int) -> list[RolloutState]:
        """The numbers of rounds 0 ... rounds - 1. ConfigError where a round's are missing or damaged."""
        found: list[RolloutState] = []
        for number in range(rounds):
            path = self.folder / NUMBERS / f"{number:06d}.parquet"
            try:
                table = pq.read_table(path, page_checksum_verification=True)
            except (pa.ArrowException, OSError) as reason:
                told = str(reason).splitlines()[0]
                raise ConfigError(
                    f"{path}, the numbers of rollout round {number}, cannot be read ({told}); remove "
                    f"{self.folder.parent} and run the same command again"
                ) from reason
            found += from_table(table, RolloutState)
        return found

    def _round(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _parts(self, number: int) -> list[Path] | None:
        """The parts of any one number of workers that wrote all of its parts."""
        named = [(path, match) for path in self._round(number).glob("*.parquet") if (match := NAME.fullmatch(path.name))]
        for world in sorted({int(match[2]) for _, match in named}):
            parts = sorted(path for path, match in named if int(match[2]) == world)
            if len(parts) == world:
                return parts
        return None


def valued(states: Sequence[RolloutState], values: Sequence[Sequence[float]], used: Sequence[bool]) -> list[RolloutState]:
    """The states with what is learnt from each candidate, and whether."""
    return [
        replace(state, value=[float(one) for one in value], used=bool(use))
        for state, value, use in zip(states, values, used, strict=True)
    ]


def _write(table: pa.Table, path: Path) -> None:
    """With a checksum in every page, under another name first."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    pq.write_table(table, partial, write_page_checksum=True)
    partial.replace(path)
