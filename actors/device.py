"""The device that a worker may use: decided by its stage's resources and by nothing else."""

from __future__ import annotations

import os

from infra.config import ConfigError
from infra.dag.stage import Resources

CPU, CUDA = "cpu", "cuda"


def device_of(resources: Resources) -> str:
    """The device: "cuda" where the resources ask for a GPU, otherwise "cpu", whatever this process can see.

    Ray leaves every GPU visible to an actor that asks for none, so what torch finds decides nothing. Raises ConfigError
    where a GPU is asked for and there is none.
    """
    if not resources.gpus:
        return CPU
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"the stage asks for {resources.gpus:g} GPUs for each worker, but this process sees no CUDA device; "
            "set --gpus 0, or run on a machine with a GPU and its driver"
        )
    return CUDA


def hide_gpus(resources: Resources) -> None:
    """Hides every GPU from this process where none is asked for; call it before anything of CUDA is initialised.

    A library that looks for itself (DeepSpeed does) then finds what the resources say.
    """
    if not resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def prepare(device: str) -> None:
    """One thread of arithmetic on a CPU, so that the bytes of a result do not depend on the number of cores."""
    import torch

    if device == CPU:
        torch.set_num_threads(1)
