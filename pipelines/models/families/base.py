"""A family of generators: a config that holds the weights of one generator, and how it is loaded.

A folder of weights is what diffusers' `save_pretrained` writes: model_index.json and one folder for each component,
safetensors only. Nothing here imports torch before a family is loaded, so that a recipe can be planned without it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import model_validator

from infra.config import Config, ConfigError
from infra.dag.stage import Places
from infra.lazy import lazy
from infra.store.files import Folder, refuse_unsafe
from pipelines.models.families.schedule import prediction_of
from pipelines.models.safetensors_header import require_whole
from pipelines.models.weights import INDEX, Hub, Made, Weights

if TYPE_CHECKING:
    import torch

    from pipelines.models.families.loaded import LoadedFamily
else:
    torch = lazy("torch")

Condition = dict[str, "torch.Tensor"]
"""Named tensors that a denoiser reads beside x_t; batched along dimension 0 unless it says otherwise."""

SIZES = "sizes"
"""In a condition, int[b, 4] in pixels: a training picture's height and width before it was resized, and how much of the
resized picture was cropped from above and from the left. SDXL reads it; without it a picture counts as whole."""

Parts = Literal["denoiser", "encoders", "decoder", "all"]
"""What is loaded beside the scheduler: the denoiser; the text encoders; the VAE (which encodes, too); all three."""


class Family(Config, ABC):
    """A generator of one architecture: its class says how it is used, and `weights` which one it is."""

    name: ClassVar[str]
    pipeline_class: ClassVar[str]
    """Name of the pipeline's class: `_class_name` in model_index.json."""
    other_classes: ClassVar[tuple[str, ...]] = ()
    """Other pipelines whose folders its pipeline loads."""
    pipeline_module: ClassVar[str] = "diffusers"
    """The module that defines this class."""
    part: ClassVar[Literal["unet", "transformer"]]
    """The component that is trained."""
    text_parts: ClassVar[tuple[str, ...]]
    """Components that turn a text into a condition."""
    picture_parts: ClassVar[tuple[str, ...]] = ()
    """Components beside the VAE that turn a first frame into a condition."""
    reads_first_frame: ClassVar[bool] = False
    """Whether a clip is made from its first frame, too: `encode` then stores what the denoiser reads of each clip's own."""
    lora_targets: ClassVar[tuple[str, ...]]
    """Names of the linear layers that get low-rank additions by default: the projections of the attention."""
    size_multiple: ClassVar[int]
    """Height and width of a picture are multiples of it, in pixels."""
    frame_multiple: ClassVar[int | None] = None
    """A clip has k * frame_multiple + 1 frames; None: pictures only."""
    frame_rate: ClassVar[float | None] = None
    """Frames per second of the clips that it was trained on; None: pictures only."""
    has_vae: ClassVar[bool] = True
    vae_factor: ClassVar[int] = 8
    """Pixels per latent value along each side, of every published VAE of the family."""
    joint_text: ClassVar[bool] = False
    """Whether texts pass through the denoiser's blocks as a second stream, as in SD3: `context_embedder` makes it, and each
    of `transformer_blocks` returns (text, picture)."""
    block_lists: ClassVar[tuple[str, ...]] = ()
    """Attributes of the transformer that hold its blocks, in the order in which they run. Each block returns the picture's
    stream of tokens, alone or as the second of two. Empty for U-Nets, and where blocks return something else."""
    comfyui_names: ClassVar[Literal["kohya", "diffusers", "wan"] | None] = "diffusers"
    """By which names ComfyUI knows the layers (`pipelines.models.comfyui`); None where it has other layers."""

    weights: Weights
    """A folder that save_pretrained wrote, a repository of the Hub, or what a stage of the same DAG trains."""

    @model_validator(mode="after")
    def _of_this_family(self) -> Self:
        """A folder of another pipeline is refused when the recipe is built; other weights are when they are opened."""
        if isinstance(self.weights, Hub) and self.weights.holds != "pipeline":
            raise ConfigError(f"{self.name}: {self.weights.repo} is to hold a single model; give holds = 'pipeline'")
        if isinstance(self.weights, Folder) and self.weights.local.is_dir():
            self.refuse_other()
        return self

    @property
    def folder(self) -> Path:
        """Where the weights lie on this machine, downloaded if need be; ConfigError for a stage's, see `placed`."""
        if isinstance(self.weights, Made):
            raise ConfigError(f"the weights of {self.weights.stage.node} have no folder before the run says where they are")
        return self.weights.local

    def at(self, folder: Path) -> Self:
        """The same family with the weights in a folder."""
        return self.model_copy(update={"weights": Folder(path=str(folder.resolve()))})

    def placed(self, places: Places) -> Self:
        """With weights that any process can read: a stage's are looked up; the Hub's stay, for every node has a cache."""
        return self.at(self.weights.folder(places)) if isinstance(self.weights, Folder | Made) else self

    @abstractmethod
    def wrap(self, pipeline: Any, *, dtype: torch.dtype) -> LoadedFamily:
        """The family's own way to use a pipeline."""

    def pipeline_type(self) -> Any:
        """The class of its pipelines."""
        return getattr(import_module(self.pipeline_module), self.pipeline_class)

    def refuse(self, index: dict[str, Any]) -> None:
        """Raises ConfigError for a variant of the pipeline that this family does not train; by default there is none."""

    def refuse_other(self) -> None:
        """Raises ConfigError where the folder of the weights holds no pipeline, or another class of pipeline."""
        index = read_index(self.folder)
        if (found := index.get("_class_name")) not in (self.pipeline_class, *self.other_classes):
            raise ConfigError(
                f"{self.folder} holds a {found}, expected a {self.pipeline_class} (family {self.name}); "
                f"give weights of {self.name}, or the recipe or model of the other family"
            )
        self.refuse(index)

    def require_whole(self) -> None:
        """Raises ConfigError where weights that are in a folder are cut off, damaged or missing; reads headers only."""
        if isinstance(self.weights, Folder) and self.weights.local.is_dir():
            for name, value in read_index(self.folder).items():
                if isinstance(value, list):
                    require_whole(self.folder / name)

    def prediction(self) -> str:
        """What the denoiser predicts, by the scheduler's config: flow, epsilon or v_prediction. Reads it without torch."""
        path = self.folder / "scheduler" / "scheduler_config.json"
        if not path.is_file():
            raise ConfigError(f"{path} is missing; save the pipeline with its scheduler (save_pretrained)")
        return prediction_of(json.loads(path.read_text()))

    def latent_shape(self, *, frames: int, height: int, width: int) -> tuple[int, ...]:
        """Shape of the latent of a picture (frames = 1) or clip of so many pixels, by the config of its VAE."""
        config = json.loads((self.folder / "vae" / "config.json").read_text())
        channels = config["z_dim"] if "z_dim" in config else config["latent_channels"]
        plane = (height // self.vae_factor, width // self.vae_factor)
        if self.frame_multiple is None:
            return (channels, *plane)
        return (channels, (frames - 1) // self.frame_multiple + 1, *plane)

    def vae_identity(self) -> dict[str, str]:
        """What decides its latents: class, config and values of the VAE. Latents of another one are of no use."""
        from pipelines.models.families.vae_identity import vae_identity

        return vae_identity(self.folder)

    def refuse_latents_of(self, encoders: Family, *, stage: str) -> None:
        """Raises ConfigError where latents by the VAE of `encoders` are not this generator's; both must be placed."""
        theirs, ours = encoders.vae_identity(), self.vae_identity()
        if theirs != ours:
            raise ConfigError(
                f"{stage}: the latents are by the VAE of {encoders.folder} ({theirs}), the policy's in {self.folder} "
                f"is another ({ours}); run encode with the policy's own weights"
            )

    def load(self, *, parts: Parts, device: torch.device | str, dtype: torch.dtype) -> LoadedFamily:
        """The pipeline, frozen, on a device; components not asked for are None and are not read.

        Safety checkers are never loaded. Raises ConfigError for another family, pickled or missing weights.
        """
        folder = self.folder
        refuse_unsafe(folder)
        self.refuse_other()
        index = read_index(folder)
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
        return self.wrap(pipeline.to(device), dtype=dtype)

    def _wanted(self, parts: Parts) -> set[str]:
        vae = {"vae", *self.picture_parts} if self.has_vae else set()
        texts = set(self.text_parts)
        chosen = {"denoiser": {self.part}, "encoders": texts, "decoder": vae, "all": {self.part} | texts | vae}
        return {"scheduler", *chosen[parts]}

    def _check_components(self, index: dict[str, Any], *, folder: Path, wanted: set[str]) -> None:
        for name in sorted(wanted):
            if not index.get(name) or index[name][0] is None:
                raise ConfigError(f"{folder / INDEX} has no {name!r}, which {self.name} needs; save the whole pipeline")
            is_model = not any(word in name for word in ("scheduler", "tokenizer", "processor"))
            if is_model and next((folder / name).glob("*.safetensors"), None) is None:
                raise ConfigError(f"{folder / name} holds no .safetensors file; save the pipeline with save_pretrained")
        if "vae" in wanted and (factor := _vae_factor(_vae_config(folder), usual=self.vae_factor)) != self.vae_factor:
            raise ConfigError(
                f"{folder}: a latent of its VAE is {factor} px wide, {self.name} expects {self.vae_factor} px"
            )

    def _dtypes(self, folder: Path, dtype: torch.dtype) -> torch.dtype | dict[str, torch.dtype]:
        """Half precision, but not for a VAE that says it overflows (SDXL's)."""
        if dtype != torch.float16 or not _vae_config(folder).get("force_upcast", False):
            return dtype
        return {"default": dtype, "vae": torch.float32}


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json of a pipeline's folder; raises ConfigError where there is none."""
    path = folder / INDEX
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; give a folder that diffusers' save_pretrained wrote")
    return json.loads(path.read_text())


def _vae_config(folder: Path) -> dict[str, Any]:
    path = folder / "vae" / "config.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _vae_factor(config: dict[str, Any], *, usual: int) -> int:
    if "block_out_channels" in config:
        return 2 ** (len(config["block_out_channels"]) - 1)
    if "scale_factor_spatial" in config:
        return config["scale_factor_spatial"]
    return 2 ** len(config["temperal_downsample"]) if "temperal_downsample" in config else usual
