"""The cluster: connecting to Ray, and Resources as actor and task options.

Ray is imported here, in `submission`, in `actors/pool.py` and in `actors/training/launch.py` only, and inside functions:
`plan` must not pay for it.
Tasks and actors ask for logical CPUs; a local Ray is started with more of them than the machine has cores, because an
actor that waits for a CPU that other live actors hold waits for ever.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.dag.stage import Resources

SPARE_CPUS = 8
LOCAL = "local"


def options(resources: Resources) -> dict[str, Any]:
    """Ray options of one actor."""
    asked: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    if resources.memory_gb is not None:
        asked["memory"] = int(resources.memory_gb * 2**30)
    return asked


def environment() -> dict[str, str]:
    """Environment of every worker process: one thread of arithmetic, nothing fetched from anywhere."""
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(dict.fromkeys([source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
    return {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
    }


@contextmanager
def connected(address: str = LOCAL, *, workers: int = 2) -> Iterator[None]:
    """Ray for the length of a run: the cluster this process is already in, one at `address`, or a local one of its own."""
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    # Inside a submitted job: adds the workers' environment to the job's instead of refusing names that both set.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    runtime = {"env_vars": environment()}
    if address == LOCAL and not os.environ.get("RAY_ADDRESS"):
        cpus = max(os.cpu_count() or 1, 2 * workers) + SPARE_CPUS
        ray.init(
            address=LOCAL,
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            _temp_dir=os.environ.get("SALON_RAY_TMP") or str(Path(tempfile.gettempdir()) / "salon-ray"),
            runtime_env=runtime,
            **common,
        )
    else:
        ray.init(address=None if address == LOCAL else address, runtime_env=runtime, **common)
    try:
        yield
    finally:
        ray.shutdown()


def call(function: Callable[..., Any], *arguments: Any, poll: Callable[[], None]) -> Any:
    """Runs a function in a Ray task and polls twice a second; the function's own exception is raised here."""
    import ray
    from ray.exceptions import RayTaskError

    task = ray.remote(function)
    # It holds nothing: a stage that trains starts workers of its own, and what it held while waiting for them is lost.
    reference = task.options(num_cpus=0, num_gpus=0, max_retries=0).remote(*arguments)
    try:
        while True:
            ready, _ = ray.wait([reference], timeout=0.5)
            if ready:
                return ray.get(reference)
            poll()
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from error
    except BaseException:
        ray.cancel(reference, force=True)
        raise
