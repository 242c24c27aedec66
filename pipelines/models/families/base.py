"""Families of generators: which there are, which one a folder holds, and how one is loaded.

A folder is what diffusers' `save_pretrained` writes: model_index.json and one folder a component, safetensors only.
Nothing here imports torch before a family is loaded, so that a recipe can be planned without it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from infra.config import ConfigError
from infra.lazy import lazy
from infra.store.files import refuse_unsafe
from pipelines.models.families.schedule import prediction_of

if TYPE_CHECKING:
    import torch

    from pipelines.models.families.loaded import LoadedFamily
else:
    torch = lazy("torch")

Condition = dict[str, "torch.Tensor"]
"""Named tensors that a denoiser reads beside x_t; batched along dimension 0 unless it says otherwise."""

Parts = Literal["denoiser", "encoders", "decoder", "all"]
"""What is loaded beside the scheduler: the denoiser; the text encoders; the VAE (which encodes, too); all three."""

INDEX = "model_index.json"
VAE_FACTOR = 8  # pixels a latent, along each side: of every published VAE of these families


class Family(ABC):
    """What generators of one architecture have in common; stateless."""

    name: ClassVar[str]
    pipeline_class: ClassVar[str]
    """`_class_name` in model_index.json."""
    part: ClassVar[Literal["unet", "transformer"]]
    """The component that is trained."""
    text_parts: ClassVar[tuple[str, ...]]
    """Components that turn a text into a condition."""
    lora_targets: ClassVar[tuple[str, ...]]
    """Names of the linear layers that get low-rank additions unless told otherwise: those of the attention."""
    size_multiple: ClassVar[int]
    """Height and width of a picture are multiples of it, in pixels."""
    frame_multiple: ClassVar[int | None] = None
    """A clip has k * frame_multiple + 1 frames; None: pictures only."""
    has_vae: ClassVar[bool] = True

    @abstractmethod
    def wrap(self, pipeline: Any, *, folder: Path, dtype: torch.dtype) -> LoadedFamily:
        """The family's own way to use a pipeline."""

    def pipeline_type(self) -> Any:
        """The class of its pipelines."""
        import diffusers

        return getattr(diffusers, self.pipeline_class)

    def refuse(self, index: dict[str, Any], *, folder: Path) -> None:
        """Raises ConfigError for a variant of the pipeline that this family does not train; by default there is none."""
        del index, folder

    def prediction(self, folder: Path) -> str:
        """What its scheduler says: flow, epsilon or v_prediction. Read without torch."""
        path = folder / "scheduler" / "scheduler_config.json"
        if not path.is_file():
            raise ConfigError(f"{path} is missing; save the pipeline with its scheduler (save_pretrained)")
        return prediction_of(json.loads(path.read_text()))

    def latent_shape(self, folder: Path, *, frames: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of the latent of a picture (frames = 1) or clip of so many pixels, by the VAE in `folder`."""
        config = json.loads((folder / "vae" / "config.json").read_text())
        plane = (height // VAE_FACTOR, width // VAE_FACTOR)
        if self.frame_multiple is None:
            return (config["latent_channels"], *plane)
        return (config["z_dim"], (frames - 1) // self.frame_multiple + 1, *plane)

    def load(self, folder: Path, *, parts: Parts, device: torch.device | str, dtype: torch.dtype) -> LoadedFamily:
        """The pipeline in `folder`, frozen, on a device; components not asked for are None and are not read.

        Safety checkers are never loaded. Raises ConfigError for another family, pickled or missing weights.
        """
        refuse_unsafe(folder)
        expect_family(folder, self.name)
        index = read_index(folder)
        self.refuse(index, folder=folder)
        wanted = self._wanted(parts)
        self._check_components(index, folder=folder, wanted=wanted)
        absent = {name: None for name, value in index.items() if isinstance(value, list) and name not in wanted}
        if "safety_checker" in absent:
            absent["requires_safety_checker"] = False  # pyright: ignore[reportArgumentType]
        pipeline = self.pipeline_type().from_pretrained(
            folder, dtype=self._dtypes(folder, dtype), use_safetensors=True, local_files_only=True, **absent
        )
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                component.requires_grad_(False).eval()
        pipeline.set_progress_bar_config(disable=True)
        return self.wrap(pipeline.to(device), folder=folder, dtype=dtype)

    def _wanted(self, parts: Parts) -> set[str]:
        vae = {"vae"} if self.has_vae else set()
        texts = set(self.text_parts)
        chosen = {"denoiser": {self.part}, "encoders": texts, "decoder": vae, "all": {self.part} | texts | vae}
        return {"scheduler", *chosen[parts]}

    def _check_components(self, index: dict[str, Any], *, folder: Path, wanted: set[str]) -> None:
        for name in sorted(wanted):
            if not index.get(name) or index[name][0] is None:
                raise ConfigError(f"{folder / INDEX} has no {name!r}, which {self.name} needs; save the whole pipeline")
            is_model = "scheduler" not in name and "tokenizer" not in name
            if is_model and next((folder / name).glob("*.safetensors"), None) is None:
                raise ConfigError(f"{folder / name} holds no .safetensors file; save the pipeline with save_pretrained")
        if "vae" in wanted and (factor := _vae_factor(_vae_config(folder))) != VAE_FACTOR:
            raise ConfigError(f"{folder}: a latent of its VAE is {factor} px wide, {self.name} expects {VAE_FACTOR} px")

    def _dtypes(self, folder: Path, dtype: torch.dtype) -> torch.dtype | dict[str, torch.dtype]:
        """Half precision, but not for a VAE that says it overflows (SDXL's)."""
        if dtype != torch.float16 or not _vae_config(folder).get("force_upcast", False):
            return dtype
        return {"default": dtype, "vae": torch.float32}


def family_names() -> tuple[str, ...]:
    """Every family's name."""
    return tuple(each.name for each in _families())


def family_named(name: str) -> Family:
    """The family called `name`; raises ConfigError naming those there are."""
    for each in _families():
        if each.name == name:
            return each
    raise ConfigError(f"family = {name!r} is not known; choose one of {', '.join(family_names())}")


def family_of(folder: Path) -> Family:
    """The family of the pipeline in a folder; raises ConfigError where it is none of them."""
    found = read_index(folder).get("_class_name")
    for each in _families():
        if each.pipeline_class == found:
            return each
    known = ", ".join(f"{each.name} ({each.pipeline_class})" for each in _families())
    raise ConfigError(f"{folder} holds a {found}, which belongs to no family that is trained here; known are: {known}")


def expect_family(folder: Path, name: str) -> Family:
    """The family called `name`; raises ConfigError where the folder holds another one."""
    expected, found = family_named(name), family_of(folder)
    if found.name != expected.name:
        raise ConfigError(
            f"{folder} holds a {found.pipeline_class} (family {found.name}), expected a {expected.pipeline_class} "
            f"(family {name}); give {name} weights or the recipe of {found.name}"
        )
    return expected


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json of a pipeline's folder; raises ConfigError where there is none."""
    path = folder / INDEX
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give a folder that diffusers' save_pretrained wrote")
    return json.loads(path.read_text())


def _vae_config(folder: Path) -> dict[str, Any]:
    path = folder / "vae" / "config.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _vae_factor(config: dict[str, Any]) -> int:
    if "block_out_channels" in config:
        return 2 ** (len(config["block_out_channels"]) - 1)
    return config.get("scale_factor_spatial", VAE_FACTOR)


@cache
def _families() -> tuple[Family, ...]:
    from pipelines.miniature.family import Miniature
    from pipelines.models.families.flux import FLUX
    from pipelines.models.families.sd3 import SD3
    from pipelines.models.families.sd15 import SD15
    from pipelines.models.families.sdxl import SDXL
    from pipelines.models.families.wan import Wan

    return (SD15(), SDXL(), SD3(), FLUX(), Wan(), Miniature())
