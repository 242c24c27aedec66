"""Random pairs for the shipped miniature policy, encoded as the stages leave them: for the training benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save

from actors.media import encode_png
from infra.store.artifacts import RowReader
from infra.store.files import Folder
from infra.store.tables import read_unrecorded, schema_of, to_table, write_table
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.miniature.family import MiniatureFamily
from pipelines.miniature.generators import WEIGHTS
from pipelines.miniature.world.draw import SIZE
from pipelines.miniature.world.grammar import captions
from pipelines.models.adapter import Full, LoRA
from pipelines.schemas.samples import Encoded
from pipelines.schemas.training import Example
from pipelines.stages.reference_errors import Measuring
from pipelines.training.arithmetic import Arithmetic
from pipelines.training.data import TrainingData
from pipelines.training.noise import NoiseDraws
from pipelines.training.preference import PolicySpec, PreferenceObjective

POLICY = WEIGHTS / "policy"
FAMILY = MiniatureFamily(weights=Folder(path=str(POLICY)))
SHAPE = (1, SIZE, SIZE)  # frames, height, width
BETA, TIMES = 500.0, UniformTimes(low=0.25)  # of the recipe `miniature`
DRAWS = 4  # of noise and time a pair, where the reference is cached


@dataclass(frozen=True)
class Pairs:
    """Pairs on disk, and the same before they were encoded."""

    root: Path
    encoded: RowReader
    texts: list[str]
    winners: list[bytes]  # PNG
    losers: list[bytes]

    @property
    def data(self) -> TrainingData:
        """What training opens."""
        return TrainingData(self.root / "examples.arrow", self.encoded, "t00000")

    def objective(self, adapter: LoRA | Full, *, cached: bool = False, compiled: bool = False) -> PreferenceObjective:
        """DPO of the shipped policy on these pairs, with its own reference or with cached errors."""
        own = "adapter" if adapter.kind == "lora" else "copy"
        return PreferenceObjective(
            data=self.data,
            policy=PolicySpec(FAMILY, adapter, compiled=compiled),
            method=FlowDPO(beta=BETA),
            noise=NoiseDraws(TIMES, DRAWS if cached else None),
            reference="cached" if cached else own,
            described={"adapter": adapter.model_dump(mode="json")},
            errors=self.root / "errors.parquet" if cached else None,
        )


def write_pairs(root: Path, *, count: int) -> Pairs:
    """Random pictures on captions of the miniature world, their latents and texts, and the reference's errors on them."""
    random = np.random.default_rng(0)
    sides = [random.integers(0, 256, (count, *SHAPE, 3), dtype=np.uint8) for _ in range(2)]
    texts = [caption.text for caption in captions(count, split="train", seed=0)]
    coder = FAMILY.load(parts="all", device="cpu", dtype=torch.float32)
    rows = []
    for name, pictures in zip("wl", sides, strict=True):
        for number, latent in enumerate(coder.encode_pixels(pictures)):
            rows.append(_encoded(f"{name}{number:05d}", "latent", SHAPE, {"latent": latent}))
    rows += [_encoded(f"t{n:05d}", "text", (0, 0, 0), found) for n, found in enumerate(coder.encode_texts(texts))]
    (root / "encoded").mkdir(parents=True)
    write_table(to_table(sorted(rows, key=lambda row: row.id), Encoded), root / "encoded" / "part-00000.parquet")
    examples = to_table([_example(number, text) for number, text in enumerate(texts)], Example)
    files = [[encode_png(picture[0]).bytes for picture in pictures] for pictures in sides]
    pq.write_table(pa.table({"text": texts, "winner": files[0], "loser": files[1]}), root / "files.parquet")
    pairs = open_pairs(root)
    pairs.data.write(examples)
    pq.write_table(_errors(pairs, examples), root / "errors.parquet")
    return pairs


def open_pairs(root: Path) -> Pairs:
    """What `write_pairs` left."""
    _, file = read_unrecorded(root / "encoded" / "part-00000.parquet")
    reader = RowReader(directory=root / "encoded", files=(file,), row=Encoded)
    table = pq.read_table(root / "files.parquet").to_pydict()
    return Pairs(root, reader, table["text"], table["winner"], table["loser"])


def _errors(pairs: Pairs, examples: pa.Table) -> pa.Table:
    noise = NoiseDraws(TIMES, DRAWS)
    worker = Measuring(PolicySpec(FAMILY, Full()), Arithmetic(), pairs.encoded, noise, empty="t00000", micro_batch=64)
    worker.open("cpu", None)
    cells = [row | {"example": row["id"], "draw": draw} for row in examples.to_pylist() for draw in range(DRAWS)]
    schema = pa.schema([*schema_of(Example), ("example", pa.string()), ("draw", pa.int64())])
    return worker.run(
        pa.Table.from_pylist([cell | {"id": f"{cell['id']}-{cell['draw']}"} for cell in cells], schema=schema)
    )


def _encoded(name: str, kind: str, shape: tuple[int, int, int], tensors: dict[str, torch.Tensor]) -> Encoded:
    data = save({key: value.contiguous() for key, value in tensors.items()})
    sizes = (*shape[1:], 0, 0) if kind == "latent" else (None,) * 4
    return Encoded(name, kind, name, "", *shape, None, False, *sizes, tensors=data)


def _example(number: int, text: str) -> Example:
    frames, height, width = SHAPE
    return Example(
        id=f"pair{number:05d}",
        prompt_id=f"prompt{number:05d}",
        text=text,
        winner=f"w{number:05d}",
        loser=f"l{number:05d}",
        winner_flipped=None,
        loser_flipped=None,
        prompt=f"t{number:05d}",
        generator_winner="",
        generator_loser="",
        tie=False,
        frames=frames,
        height=height,
        width=width,
        agreement=1.0,
        probability=None,
        gap=0.0,
        reward_winner=None,
        reward_loser=None,
    )
