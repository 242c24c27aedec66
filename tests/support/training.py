"""A tiny policy of any family with random pairs, encoded as the stages leave them: small enough to train in a test."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from actors.training.engines.engine import EngineOptions
from actors.training.options import TrainerOptions
from actors.training.trainer import Training
from infra.identity import key_of
from infra.store.artifacts import RowReader
from infra.store.tables import read_unrecorded, schema_of, to_table, write_table
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.preference.diffusion_dpo import DiffusionDPO
from pipelines.algorithms.preference.flow_dpo import FlowDPO
from pipelines.algorithms.preference.methods import AnyMethod
from pipelines.models.adapter import Full, LoRA, Start
from pipelines.schemas.samples import Encoded
from pipelines.schemas.training import Example
from pipelines.stages.reference_errors import Measuring
from pipelines.training.arithmetic import Arithmetic
from pipelines.training.data import TrainingData
from pipelines.training.noise import NoiseDraws
from pipelines.training.preference import PolicySpec, PreferenceObjective, ReferenceKind
from pipelines.training.previews import PreviewSpec
from support.tiny import KINDS, family_at, write_tiny

CELLS = pa.schema([*schema_of(Example), ("example", pa.string()), ("draw", pa.int64())])
SMALL = LoRA(rank=4, alpha=8)
FP32 = Arithmetic()
TEXTS = ["a red circle", "two blue squares"]


def shape_of(family: str) -> tuple[int, int, int]:
    """Frames, height and width of the family's tiny pictures."""
    if family == "miniature":
        return (1, 24, 24)
    kind = KINDS[family]
    side = max(32, 2 * kind.size_multiple)
    return (1 if kind.frame_multiple is None else 5, side, side)


def dpo(family: str, *, beta: float = 5.0) -> FlowDPO | DiffusionDPO:
    """The DPO form of a family's predictions."""
    return DiffusionDPO(beta=beta) if family in ("sd15", "sdxl") else FlowDPO(beta=beta)


def write_world(root: Path, *, family: str = "miniature", pairs: int = 24, ties: int = 0, darker: bool = False) -> None:
    """A random policy, encoded random pictures and texts, and examples under `root`; `darker`: winners are darker."""
    write_tiny(family, root / "policy")
    if family == "miniature":
        _loud(root / "policy")
    shape = shape_of(family)
    coder = family_at(family, root / "policy").load(parts="all", device="cpu", dtype=torch.float32)
    random = np.random.default_rng(0)
    rows = []
    for number in range(2 * pairs):
        pixels = random.integers(0, 256, (1, *shape, 3), dtype=np.uint8)
        tensors = coder.encode_media((pixels // 2 if darker and number % 2 == 0 else pixels)[0])
        rows.append(_encoded(f"0picture{number:04d}", "latent", shape, tensors))
    for number, text in enumerate(["", *TEXTS]):
        rows.append(_encoded(f"1text{number}", "text", (0, 0, 0), coder.encode_texts([text])[0]))
    (root / "encoded").mkdir()
    write_table(to_table(rows, Encoded), root / "encoded" / "part-00000.parquet")
    examples = [_example(n, shape, tie=n < ties) for n in range(pairs)]
    data_of(root).write(to_table(examples, Example))


def _loud(folder: Path) -> None:
    """The miniature's network starts by answering 0; here it says something."""
    from pipelines.miniature.pipeline import load_pipeline

    pipeline = load_pipeline(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(pipeline.transformer.proj_out.weight, std=0.05)
    pipeline.save_pretrained(folder, safe_serialization=True)


def _encoded(name: str, kind: str, shape: tuple[int, int, int], tensors: dict[str, torch.Tensor]) -> Encoded:
    from safetensors.torch import save

    data = save({key: value.contiguous() for key, value in tensors.items()})
    # Every picture was twice as high and as much too wide as its number says.
    sizes = (2 * shape[1], 2 * shape[2] + int(name[-4:]), 0, int(name[-4:])) if kind == "latent" else (None,) * 4
    return Encoded(name, kind, name, "", *shape, None, False, *sizes, tensors=data)


def _example(number: int, shape: tuple[int, int, int], *, tie: bool) -> Example:
    frames, height, width = shape
    return Example(
        id=f"pair{number:03d}",
        prompt_id=f"prompt{number % 2}",
        text=TEXTS[number % 2],
        winner=f"0picture{2 * number:04d}",
        loser=f"0picture{2 * number + 1:04d}",
        winner_flipped=None,
        loser_flipped=None,
        prompt=f"1text{1 + number % 2}",
        generator_winner="strong",
        generator_loser="weak",
        tie=tie,
        frames=frames,
        height=height,
        width=width,
        agreement=1.0,
        probability=0.5 + 0.5 * (number % 3) / 2,
        gap=0.1 * number,
        reward_winner=0.0 if tie else 0.5 + number / 50,
        reward_loser=0.0 if tie else -0.5 - number / 50,
    )


def reader(root: Path) -> RowReader:
    """The encoded rows of a world."""
    file = root / "encoded" / "part-00000.parquet"
    return RowReader(directory=root / "encoded", files=(read_unrecorded(file)[1],), row=Encoded)


def data_of(root: Path) -> TrainingData:
    """The examples of a world."""
    return TrainingData(root / "examples.arrow", reader(root), "1text0")


def objective(
    root: Path,
    *,
    family: str = "miniature",
    method: AnyMethod | None = None,
    adapter: LoRA | Full = SMALL,
    start: Start | None = None,
    reference: ReferenceKind | None = None,
    draws: int | None = None,
    errors: Path | None = None,
    checkpointing: bool = False,
    arithmetic: Arithmetic = FP32,
    previews: PreviewSpec | None = None,
    comfyui: bool = False,
) -> PreferenceObjective:
    """The objective of a world's policy on its pairs."""
    method = method or dpo(family)
    own: ReferenceKind = "adapter" if adapter.kind == "lora" else "copy"
    return PreferenceObjective(
        data=data_of(root),
        policy=_spec(root, family, adapter, start, arithmetic, checkpointing=checkpointing),
        method=method,
        noise=NoiseDraws(UniformTimes(low=0.2), draws),
        reference=reference or ("none" if method.reference == "none" else own),
        described={"method": method.model_dump(mode="json"), "adapter": adapter.model_dump(mode="json")},
        errors=errors,
        previews=previews,
        comfyui=comfyui,
    )


def _spec(
    root: Path,
    family: str,
    adapter: LoRA | Full | None,
    start: Start | None,
    arithmetic: Arithmetic,
    *,
    checkpointing: bool = False,
) -> PolicySpec:
    """How a worker loads a world's policy."""
    given = {"checkpointing": checkpointing, "dtype": arithmetic.weights, "base_precision": arithmetic.base}
    return PolicySpec(family_at(family, root / "policy"), adapter, start, **given)


def training(root: Path, *, engine: EngineOptions, options: dict | None = None, **settings) -> Training:
    """DPO of that policy on those pairs, 6 steps of 8 pairs, a checkpoint every 2 steps."""
    small = {"steps": 6, "batch": 8, "learning_rate": 1e-3, "warm_up": 2, "checkpoint_every": 2} | (options or {})
    return Training(objective(root, **settings), TrainerOptions(engine=engine, **small))


def column(curve: list[dict], name: str = "loss") -> np.ndarray:
    """One column of a curve."""
    return np.array([row[name] for row in curve])


def write_errors(
    root: Path,
    *,
    family: str = "miniature",
    draws: int,
    arithmetic: Arithmetic = FP32,
    adapter: LoRA | Full | None = None,
    start: Start | None = None,
) -> Path:
    """The reference's errors on a world's examples, as the stage computes them."""
    rows = data_of(root).open().table.to_pylist()
    cells = [
        row | {"example": row["id"], "draw": draw, "id": f"{row['id']}-{draw}"} for row in rows for draw in range(draws)
    ]
    noise = NoiseDraws(UniformTimes(low=0.2), draws)
    spec = _spec(root, family, adapter, start, arithmetic)
    worker = Measuring(spec, arithmetic, reader(root), noise, empty="1text0", micro_batch=5)
    worker.open("cpu", None)
    made = key_of([draws, arithmetic, adapter, start and str(start.folder)])
    path = root / f"errors-{made}.parquet"
    pq.write_table(worker.run(pa.Table.from_pylist(cells, schema=CELLS)), path)
    return path
