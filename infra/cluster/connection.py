"""The cluster: connecting to Ray, and Resources as actor and task options.

Ray is imported here, in `submission`, in `actors/pool.py` and in `actors/training/launch.py` only, and inside functions:
`plan` must not pay for it.
Tasks and actors ask for logical CPUs; a local Ray is started with more of them than the machine has cores, because an
actor that waits for a CPU that other live actors hold waits for ever.
"""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from infra.cluster.watchdog import watched
from infra.config import ConfigError
from infra.dag.stage import Resources

SPARE_CPUS = 8
LOCAL, AUTO = "local", "auto"
ANSWER_S = 25.0
"""Seconds in which a cluster must answer."""
UNREACHABLE = "check that the cluster runs, its address and port (ray start prints them), and the firewall between"
KNOCK_S = 4.0
"""Seconds in which its port must take a connection."""
WAIT_FOR_GPUS = "SALON_WAIT_FOR_GPUS"
"""Environment variable: 1 where an autoscaler adds the machines with GPUs when they are asked for."""


def options(resources: Resources) -> dict[str, Any]:
    """Ray options of one actor."""
    asked: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    if resources.memory_gb is not None:
        asked["memory"] = int(resources.memory_gb * 2**30)
    if resources.label_selector:
        asked["label_selector"] = dict(resources.label_selector)
    if resources.runtime_env:
        asked["runtime_env"] = dict(resources.runtime_env)
    return asked


def logical_cpus(resources: Sequence[Resources]) -> int:
    """Logical CPUs of a local Ray: twice the largest stage's, since two pools may be alive at once, and some to spare."""
    most = max((each.workers * max(each.cpus, 1.0) for each in resources), default=1.0)
    return max(os.cpu_count() or 1, math.ceil(2 * most)) + SPARE_CPUS


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


def require_address(address: str) -> None:
    """Raises ConfigError for what cannot be the address of a cluster."""
    if address in (LOCAL, AUTO):
        return
    found = re.fullmatch(r"(?:ray://)?([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", address)
    if not found or not 1 <= int(found[2]) <= 65535:
        shown = repr(address if len(address) <= 60 else f"{address[:59]}…")
        raise ConfigError(f"{shown} is no address of a cluster; give local, auto, HOST:PORT or ray://HOST:PORT")


def require_reachable(address: str) -> None:
    """Raises ConfigError, within 30 s, where no cluster answers at the address: auto, HOST:PORT or ray://HOST:PORT.

    `local` is what RAY_ADDRESS says, which must be set then; `auto` is that too, or else the cluster of this machine.
    """
    said = f"--address {address}"
    if (given := os.environ.get("RAY_ADDRESS")) and address in (LOCAL, AUTO):
        address, said = given, f"RAY_ADDRESS={given}"
    try:
        require_address(address)
    except ConfigError as error:
        raise ConfigError(f"{said}: {error}") from error
    if address != AUTO:
        _knock(address, said=said)
    if not (_client_answers if address.startswith("ray://") else _cluster_answers)(address):
        where = "on this machine" if address == AUTO else "there"
        raise ConfigError(f"{said}: no Ray cluster answers {where}; {UNREACHABLE}")


def _knock(address: str, *, said: str) -> None:
    """Raises ConfigError where the port takes no connections."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except OSError as error:
        raise ConfigError(f"{said}: nothing takes connections there ({error}); {UNREACHABLE}") from error


def _cluster_answers(address: str) -> bool:
    """Whether a GCS answers, asked in a process of its own: Ray's own attempt cannot be bounded."""
    which = [] if address == AUTO else ["--address", address]
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *which]
    try:
        return subprocess.run(check, capture_output=True, timeout=ANSWER_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _client_answers(address: str) -> bool:
    """Whether what listens at ray://HOST:PORT speaks Ray Client's protocol, gRPC."""
    import grpc

    with grpc.insecure_channel(address.removeprefix("ray://")) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def local_gpus() -> int | None:
    """GPUs that a Ray on this machine would find; None where only Ray can tell (makers other than NVIDIA)."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([word for word in visible.split(",") if word.strip() not in ("", "-1", "NoDevFiles")])
    nvidia = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    others = any(Path(path).exists() for path in ("/dev/kfd", "/dev/dxg", "/dev/accel", "/dev/davinci0"))
    return None if others and not nvidia else len(nvidia)


def require_gpus(resources: Sequence[Resources], *, there: float, place: str) -> None:
    """Raises ConfigError where one actor asks for more GPUs than `there`, the most that one machine has."""
    most = max((each.gpus for each in resources), default=0.0)
    if most > there and os.environ.get(WAIT_FOR_GPUS) != "1":
        has = "has no GPU" if not there else f"has at most {there:g} GPUs on one machine"
        raise ConfigError(
            f"--gpus {most:g}: {place} {has}; give --gpus 0, or use a cluster that has some (where an autoscaler adds them "
            f"on demand, set {WAIT_FOR_GPUS}=1)"
        )


def _is_local(address: str) -> bool:
    return address == LOCAL and not os.environ.get("RAY_ADDRESS")


def require_usable(address: str, resources: Sequence[Resources]) -> None:
    """Raises ConfigError, before a run leaves anything behind, where no cluster answers or this machine lacks the GPUs."""
    if not _is_local(address):
        require_reachable(address)
        return
    if "ray" in sys.modules:
        import ray

        if ray.is_initialized():
            return  # the cluster of this process is used, whatever this machine has
    found = local_gpus()
    if found is not None:
        require_gpus(resources, there=found, place="this machine")


@contextmanager
def connected(address: str = LOCAL, *, workers: int = 2, resources: Sequence[Resources] = ()) -> Iterator[None]:
    """Ray for the length of a run: the cluster this process is already in, one at `address`, or a local one of its own.

    A local one has logical CPUs for the largest of `resources`, the stages of the run, and for `workers` actors at least.
    Raises ConfigError where a cluster cannot be joined, and where an actor asks for GPUs that no machine has.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    local = _is_local(address)
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    # Inside a submitted job: adds the workers' environment to the job's instead of refusing names that both set.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    runtime = {"env_vars": environment()}
    if local:
        ray.init(
            address=LOCAL,
            num_cpus=logical_cpus([Resources(workers=workers), *resources]),
            include_dashboard=False,
            object_store_memory=200 * 2**20,
            _temp_dir=os.environ.get("SALON_RAY_TMP") or str(Path(tempfile.gettempdir()) / "salon-ray"),
            runtime_env=runtime,
            **common,
        )
    else:
        try:
            ray.init(address=None if address == LOCAL else address, runtime_env=runtime, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--address {address}: no Ray cluster can be joined: {error}") from error
    try:
        there = max((node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
        require_gpus(resources, there=there, place="the cluster")
        with watched() if local else nullcontext():
            yield
    finally:
        ray.shutdown()


def all_resources() -> dict[str, float]:
    """What all machines of the cluster have, by kind: "CPU", "GPU", "memory", …"""
    import ray

    return {kind: float(amount) for kind, amount in ray.cluster_resources().items()}


def free_resources() -> dict[str, float]:
    """What no actor or task holds at the moment, by kind: "CPU", "GPU", "memory", …"""
    import ray

    return {kind: float(amount) for kind, amount in ray.available_resources().items()}


class ClusterGone(RuntimeError):
    """The machine that this process joined the cluster through is no longer part of it: what it waits for never comes."""


def require_own_node() -> None:
    """Raises ClusterGone where the Ray of this machine has ended, as it does with one of its agents."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    if not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == own):
        raise ClusterGone("the Ray of this machine has ended (its logs are in its temporary folder); start the run again")


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
            require_own_node()
            poll()
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from error
    except BaseException:
        ray.cancel(reference, force=True)
        raise
