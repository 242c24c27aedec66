"""How `Diffusers` opens a pipeline: its class is checked before weights are read; each option is applied or refused."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.config import ConfigError
from infra.lazy import lazy
from infra.store.files import Folder, refuse_unsafe
from pipelines.models.families.base import read_index
from pipelines.models.families.schedule import FLOW_SCHEDULER
from pipelines.models.generators.options import CACHES, Attention, Offload, Scheduler, StepCache, names_in, unknown
from pipelines.models.weights import INDEX, Weights

torch: Any = lazy("torch")

DENOISERS = ("transformer", "transformer_2", "unet")
"""Components that are called at every step."""
LORA = "lora"


def refuse_other_pipelines(weights: Weights) -> None:
    """Raises ConfigError where a folder's model_index.json names a pipeline that diffusers does not have."""
    if isinstance(weights, Folder) and (weights.local / INDEX).is_file():
        class_name(weights.local)


def class_name(folder: Path) -> str:
    """The class of a saved pipeline; raises ConfigError where it is none of diffusers' own."""
    name = read_index(folder).get("_class_name")
    known = names_in("pipelines", "Pipeline")
    if not isinstance(name, str) or name not in known:
        from importlib.metadata import version

        raise ConfigError(
            f"{folder / INDEX} names the pipeline {name!r}, which diffusers {version('diffusers')} does not have; "
            f"{unknown(str(name), known)} No code of a repository is run"
        )
    return name


def pipeline_class(folder: Path) -> Any:
    """The class itself."""
    import diffusers

    return getattr(diffusers, class_name(folder))


def load(folder: Path, *, dtype: str) -> Any:
    """The pipeline in memory, from safetensors and without remote code; safety checkers, which blacken, are left out."""
    refuse_unsafe(folder)
    index = read_index(folder)
    absent = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
    pipeline = pipeline_class(folder).from_pretrained(
        folder,
        torch_dtype=getattr(torch, dtype),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **absent,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def denoisers(pipeline: Any) -> Iterator[Any]:
    """The networks that are called at every step."""
    for name in DENOISERS:
        if (part := pipeline.components.get(name)) is not None:
            yield part


def set_scheduler(pipeline: Any, wanted: Scheduler) -> None:
    """Replaces the scheduler; raises ConfigError for an option it lacks, or where it steps along another path."""
    import diffusers

    own = pipeline.scheduler
    kind = type(own) if wanted.name is None else getattr(diffusers, wanted.name)
    if strange := sorted(set(wanted.config) - set(inspect.signature(kind.__init__).parameters)):
        raise ConfigError(f"{kind.__name__} has no option {strange[0]!r}; leave it out of the scheduler's config")
    made = kind.from_config(own.config, **wanted.config)
    if _flows(made) != _flows(own):
        paths = ["of diffusion", "of flow matching"]
        raise ConfigError(
            f"{kind.__name__} samples a model {paths[_flows(made)]}, and {type(pipeline).__name__} holds one "
            f"{paths[_flows(own)]}; give another scheduler, or its config use_flow_sigmas and prediction_type"
        )
    pipeline.scheduler = made


def _flows(scheduler: Any) -> bool:
    config = scheduler.config
    return (
        type(scheduler).__name__.startswith(FLOW_SCHEDULER)
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
    )


def add_lora(pipeline: Any, folder: Path, *, scale: float) -> None:
    """Loads a LoRA; raises ConfigError unless every layer of it belongs to this pipeline."""
    from safetensors import safe_open

    refuse_unsafe(folder)
    names = [name for path in sorted(folder.glob("*.safetensors")) for name in safe_open(path, "np").keys()]  # noqa: SIM118
    layers = [name for name in names if name.endswith((".lora_A.weight", ".lora_down.weight", ".lora.down.weight"))]
    reason = f"{folder} holds no LoRA of {type(pipeline).__name__}"
    try:
        pipeline.load_lora_weights(str(folder), adapter_name=LORA, use_safetensors=True, local_files_only=True)
    except (ValueError, RuntimeError, KeyError, AttributeError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"{reason}: {said}; give one that was trained on this base") from error
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    fitted = sum(LORA in getattr(module, "lora_A", ()) for part in parts for module in part.modules())
    if not fitted or fitted < len(layers):
        raise ConfigError(
            f"{reason}: {fitted} of its {len(layers)} layers have a place in it; give one that was trained on this base"
        )
    if scale != 1:
        pipeline.set_adapters([LORA], [scale])


def set_attention(pipeline: Any, backend: Attention) -> None:
    """The attention backend of every denoiser, by name, so that none follows what another model of the process set."""
    from diffusers.models.attention_dispatch import attention_backend

    found = False
    for part in denoisers(pipeline):
        # set_attention_backend also sets the default of the whole process; the context restores it.
        with attention_backend("native"):
            try:
                part.set_attention_backend(backend)
            except (RuntimeError, ValueError, ImportError) as error:
                raise ConfigError(f"attention = {backend!r} cannot be used here: {error}") from error
        processors = (getattr(module, "processor", None) for module in part.modules())
        found = found or any(getattr(processor, "_attention_backend", None) is not None for processor in processors)
    if not found and backend != "native":
        raise ConfigError(f"{type(pipeline).__name__} has no choice of attention backends; leave attention out")


def set_cache(pipeline: Any, cache: StepCache, *, steps: int | None) -> None:
    """A cache between steps in every denoiser; raises ConfigError for options it lacks or a model without caches."""
    import diffusers

    kind = getattr(diffusers, CACHES[cache.method])
    known = {field.name for field in dataclasses.fields(kind)}
    if strange := sorted(set(cache.options) - known):
        raise ConfigError(f"the cache {cache.method} has no option {strange[0]!r}; it has {', '.join(sorted(known))}")
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) and name.endswith("_range") else value
        for name, value in cache.options.items()
    }
    if "num_inference_steps" in known and steps is not None:
        options.setdefault("num_inference_steps", steps)
    if "current_timestep_callback" in known:
        options["current_timestep_callback"] = lambda: pipeline.current_timestep
    for part in denoisers(pipeline):
        if not hasattr(part, "enable_cache"):
            raise ConfigError(f"{type(part).__name__} has no caches between steps; leave cache out")
        try:
            part.enable_cache(kind(**options))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"the cache {cache.method} does not fit {type(part).__name__}: {error}") from error


def compile_blocks(pipeline: Any) -> None:
    """torch.compile at the first call: of the repeated blocks where a model names them, else of the whole denoiser."""
    for part in denoisers(pipeline):
        if getattr(part, "_repeated_blocks", None):
            part.compile_repeated_blocks()
        else:
            part.compile()


def place(pipeline: Any, device: str, offload: Offload) -> Any:
    """The pipeline on the device, or on its way there part by part; on a CPU there is nothing to offload from."""
    if offload == "none" or device == "cpu":
        return pipeline.to(device)
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.enable_group_offload(onload_device=torch.device(device), offload_type="leaf_level", use_stream=True)
    return pipeline
