"""What the benchmarks of a GPU share: the device's peak, its memory, timing, and the file of the results.

Needs torch alone. The reckoning of `salon plan` stands beside a measured peak where Salon is installed.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
WARM_UP = 2
SEED = 0
# Dense bf16 products a second of a device by a part of its name, from its maker's data sheets; the first that fits.
PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


def peak_of(name: str) -> float | None:
    """Dense bf16 FLOPs a second of a device called so; None for one that is not in the table."""
    return next((value for part, value in PEAKS.items() if part.lower() in name.lower()), None)


def device_of(*, tiny: bool) -> torch.device:
    """The GPU, or the CPU for the tiny form."""
    return torch.device("cuda") if torch.cuda.is_available() and not tiny else torch.device("cpu")


def name_of(device: torch.device) -> str:
    """The device's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"


def seed(device: torch.device) -> torch.Generator:
    """The generator that inputs are drawn from; the weights are drawn from torch's own, seeded alike."""
    torch.manual_seed(SEED)
    return torch.Generator(device).manual_seed(SEED)


@contextmanager
def made_on(device: torch.device) -> Iterator[None]:
    """Modules built inside lie on the device in bfloat16, with weights by the seed."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            torch.manual_seed(SEED)
            yield
    finally:
        torch.set_default_dtype(usual)


def seconds_of(call: Callable[[], object], *, device: torch.device, calls: int) -> float:
    """Seconds of the median call, after some that are not counted; each is waited for."""
    times = []
    for _ in range(WARM_UP + calls):
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARM_UP:])


def measured(seconds: Callable[[], float], *, device: torch.device) -> dict[str, Any]:
    """Seconds of a call and the peak of its memory; `out_of_memory` and nothing else where it does not fit.

    seconds: builds what it measures, so that an error leaves nothing in memory.
    """
    cuda = device.type == "cuda"
    if cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        found = seconds()
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if cuda else None
    return {"out_of_memory": False, "seconds": found, "peak_memory_gib": peak}


def utilisation(flops: float, *, seconds: float, peak: float | None) -> dict[str, float | None]:
    """Model FLOPs per second, and their share of the device's peak where that is known."""
    rate = flops / seconds
    return {"model_tflops_per_second": rate / 1e12, "model_flops_utilisation": None if peak is None else rate / peak}


def about(device: torch.device, *, peak: float | None, packages: Sequence[str], formula: str) -> dict[str, Any]:
    """What a file of results says of the run: device, seed, versions, and how operations are counted."""
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {
        "device": name_of(device),
        "seed": SEED,
        "dtype": "bfloat16",
        "flops": formula,
        "peak_tflops": None if peak is None else peak / 1e12,
        "versions": versions | {"python": platform.python_version(), "cuda": torch.version.cuda},
    }


def write(found: dict[str, Any], folder: Path, *, kind: str) -> Path:
    """One file per kind of measurement and device."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{re.sub(r'[^A-Za-z0-9.]+', '-', found['device'])}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def parsed(name: str, arguments: list[str], *, batch: Sequence[int], unit: str) -> argparse.Namespace | None:
    """The arguments that all of them take; None, after saying so, without a CUDA device and without --tiny."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU, to see that it works")
    parser.add_argument(f"--{unit}", dest="batch", type=int, nargs="+", default=list(batch), help=f"{unit} per batch")
    parser.add_argument("--peak-tflops", type=float, help="dense bf16 TFLOPs a second of a device that is not in the table")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    if not given.tiny and not torch.cuda.is_available():
        print(f"{name}: no CUDA device; run it where there is one, or with --tiny to see that it works", file=sys.stderr)
        return None
    given.peak = None if given.peak_tflops is None else given.peak_tflops * 1e12
    return given
