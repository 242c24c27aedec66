"""The policy: a generator being trained, as a low-rank adapter or in full, with the reference it must not leave."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actors.training.engines.engine import Cast, uncast
from infra.config import ConfigError
from infra.lazy import lazy
from pipelines.models.adapter import LORA_FILE, Full, LoRA, Start, peft_config, read_lora, refuse_other, refuse_unmatched
from pipelines.models.comfyui import write_comfyui
from pipelines.models.exact import load_exactly, refuse_unequal
from pipelines.models.families.base import Condition, Family, read_index
from pipelines.models.quantised import BasePrecision, quantise, require_frozen
from pipelines.models.safetensors_header import sort_metadata
from pipelines.models.weights import INDEX

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.algorithms.diffusion.path import PathSample
    from pipelines.models.families.loaded import LoadedFamily
else:
    torch = lazy("torch")

TRAINED, REFERENCE = "default", "reference"  # names of the adapters

ReferenceModel = Literal["none", "adapter", "copy"]
"""Where the reference's predictions come from: nowhere; the policy's own model without what is trained; a frozen copy."""


class Policy:
    """A family's denoiser ready for training; text encoders and VAE are not loaded.

    What is trained is in `model` and requires a gradient; a LoRA is kept in float32 whatever `dtype` the rest has. At the
    first step policy and reference agree exactly, so a reference of "none" can be measured before training begins.
    """

    def __init__(
        self,
        family: Family,
        *,
        adapter: LoRA | Full | None,
        start: Start | None = None,
        base_precision: BasePrecision = "unquantised",
        reference: ReferenceModel,
        checkpointing: bool,
        dtype: torch.dtype,
        device: torch.device | str,
        cast: Cast = uncast,
    ) -> None:
        """`adapter`: what is trained, None where the policy is only measured. `base_precision`: of what is frozen.

        `cast`: how the engine runs the model it trains; a copy that is the reference runs in the same way. Raises
        ConfigError for a quantised base of which all weights are to be trained.
        """
        require_frozen(base_precision, adapter)
        if reference == "adapter" and isinstance(adapter, Full):
            raise ConfigError("reference = 'adapter' needs a LoRA: full training changes the model itself; use 'copy'")
        self.family = family.at(start.folder) if start is not None and isinstance(start.adapter, Full) else family
        """The whole pipeline that the export is for: the base, or what an earlier run made of it in full."""
        self.adapter = adapter
        quantised = base_precision == "nf4"
        first = "cpu" if quantised else device
        self.loaded: LoadedFamily = self.family.load(parts="denoiser", device=first, dtype=dtype)
        self.model: nn.Module = self.loaded.model
        if quantised:
            quantise(self.model, device=device, dtype=dtype)
        self.reference = reference
        self.cast = cast
        self.frozen: nn.Module | None = None
        self._two = False
        """Whether the reference is a second adapter."""
        self._first: torch.dtype | None = None
        """Data type of the policy's first parameter when the frozen copy was last cast to the policy's."""
        if start is not None and isinstance(start.adapter, LoRA):
            self._go_on(start.folder, start.adapter)
        else:
            if reference == "copy":
                self.frozen = copy.deepcopy(self.model)
            if isinstance(adapter, LoRA):
                self._add(adapter, name=TRAINED)
        if isinstance(adapter, Full):
            self.model.requires_grad_(True)
        if checkpointing:
            self.loaded.checkpointing()

    def predict(
        self,
        model: nn.Module,
        sample: PathSample,
        *,
        condition: Condition,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """The policy's prediction at x_t, float[b, *latent]; `model` is its denoiser as a training engine wrapped it.

        `guidance`: the guidance scale that a guidance-distilled denoiser (FLUX.1-dev) is given.
        """
        if isinstance(self.adapter, LoRA) and self.adapter.dropout:
            self.model.train(torch.is_grad_enabled())
        return self.loaded.predict(model, sample, condition=condition, guidance=guidance)

    def reference_predict(
        self,
        model: nn.Module,
        sample: PathSample,
        *,
        condition: Condition,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """The reference's prediction, without gradient. ValueError for a policy that keeps no reference."""
        if self.reference == "none":
            raise ValueError("this policy keeps no reference; before its first step the policy is it")
        with torch.no_grad(), self.referring(model) as reference:
            return self.loaded.predict(reference, sample, condition=condition, guidance=guidance)

    @contextmanager
    def referring(self, model: nn.Module) -> Iterator[nn.Module]:
        """The module that answers as the reference as long as the context lasts; `model` as for `predict`."""
        if self.frozen is not None:
            yield self._aligned()
            return
        self._use_reference(True)
        try:
            yield model
        finally:
            self._use_reference(False)

    def draw(
        self,
        model: nn.Module,
        conditions: Sequence[Condition],
        *,
        negative: Condition,
        size: tuple[int, int, int],
        steps: int,
        guidance: float,
        seeds: Sequence[int],
        decoded: bool,
    ) -> np.ndarray | None:
        """uint8[b, f, h, w, 3] of unbatched conditions, `size` in (frames, height, width); None unless `decoded`.

        Every rank calls it, since a divided model needs all of them; one decodes, with the VAE in memory meanwhile.
        """
        frames, height, width = size
        shape = self.family.latent_shape(frames=frames, height=height, width=width)
        given: dict[str, Any] = {"negative": negative, "shape": shape, "steps": steps, "guidance": guidance}
        latents = self.loaded.sample(model, conditions, **given, seeds=seeds)
        if not decoded:
            return None
        decoder = self.family.load(parts="decoder", device=latents.device, dtype=self.loaded.dtype)
        return decoder.decode(latents)

    def export(self, parameters: dict[str, torch.Tensor], folder: Path, *, comfyui: bool) -> None:
        """Writes what diffusers loads without Salon: a LoRA with its rank and alpha, or the folder of a whole pipeline.

        `parameters`: the trained ones, whole and by name; under ZeRO 3 the model holds a share of them only. `comfyui`
        adds `comfyui_lora.safetensors` beside a LoRA; a whole pipeline has no second form.
        """
        if isinstance(self.adapter, Full):
            self._export_pipeline(parameters, folder)
            return
        assert self.adapter is not None, "a policy that is only measured has nothing to export"
        layers = {name.replace(f".{TRAINED}.", "."): value.contiguous() for name, value in parameters.items()}
        targets = self.adapter.targets_of(self.family)
        # Without the metadata diffusers reloads every adapter with alpha = rank. PEFT would list targets in no fixed
        # order, and reload an adapter with dropout as one that still drops.
        metadata = peft_config(self.adapter, targets=targets).to_dict()
        metadata |= {"target_modules": sorted(targets), "lora_dropout": 0.0}
        self.loaded.save_lora(layers, metadata=metadata, folder=folder)
        sort_metadata(folder / LORA_FILE)
        if comfyui and self.family.comfyui_names is not None:
            write_comfyui(layers, names=self.family.comfyui_names, alpha=self.adapter.alpha, folder=folder)

    def _export_pipeline(self, parameters: dict[str, torch.Tensor], folder: Path) -> None:
        """The denoiser is read from disk and given the parameters; every other component is copied as it is."""
        fresh = self.family.load(parts="denoiser", device="cpu", dtype=self.loaded.dtype)
        base = self.family.folder
        model: Any = fresh.model
        names = [name for name, _ in model.named_parameters()]
        load_exactly(model, parameters, names=names, source="the trained policy")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base / INDEX, folder / INDEX)
        for name, component in read_index(base).items():
            if isinstance(component, list) and name != self.family.part and (base / name).is_dir():
                shutil.copytree(base / name, folder / name, dirs_exist_ok=True)
        model.save_pretrained(folder / self.family.part, safe_serialization=True)

    def _go_on(self, folder: Path, before: LoRA) -> None:
        """From an earlier LoRA: the trained one begins as it is, or full training begins with it merged."""
        layers = read_lora(folder, before, part=self.family.part)
        if isinstance(self.adapter, LoRA):
            refuse_other(self.adapter, before, family=self.family)
        # A later run may drop inputs where the earlier one did not.
        self._add(self.adapter if isinstance(self.adapter, LoRA) else before, name=TRAINED)
        self._fill(layers, name=TRAINED)
        model: Any = self.model
        if isinstance(self.adapter, Full):
            model.fuse_lora()
            model.unload_lora()
        if self.reference == "copy":
            self.frozen = copy.deepcopy(self.model).requires_grad_(False)
        if self.reference == "adapter":
            self._two = True
            self._add(before.model_copy(update={"dropout": 0.0}), name=REFERENCE)
            self._fill(layers, name=REFERENCE)
            model.set_adapter(TRAINED)

    def _add(self, adapter: LoRA, *, name: str) -> None:
        """A fresh adapter in float32, the active one from now on."""
        targets = adapter.targets_of(self.family)
        if name == TRAINED:  # a second one goes where the first is
            refuse_unmatched(self.model, targets)
        model: Any = self.model
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # a second adapter is meant
            model.add_adapter(peft_config(adapter, targets=targets), adapter_name=name)
        for key, parameter in model.named_parameters():
            if f".{name}." in key:
                parameter.data = parameter.data.float()

    def _fill(self, layers: dict[str, torch.Tensor], *, name: str) -> None:
        keys = [key for key, _ in self.model.named_parameters() if f".{name}." in key]
        plain = {key.replace(f".{name}.", "."): key for key in keys}
        refuse_unequal(layers, wanted=plain, source="the start's adapter")
        tensors = {plain[key]: value for key, value in layers.items()}
        load_exactly(self.model, tensors, names=keys, source="the start's adapter")

    def _use_reference(self, wanted: bool) -> None:
        model: Any = self.model
        if self._two:
            model.set_adapter(REFERENCE if wanted else TRAINED)
            return
        # What diffusers' disable_adapters() leaves, without its walk over every module twice a step.
        for layer in self._adapted:
            layer._disable_adapters = wanted

    @cached_property
    def _adapted(self) -> list[Any]:
        """The layers that a LoRA was added to."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]

    @cached_property
    def _reference_model(self) -> nn.Module:
        """The copy, run as the engine runs the policy."""
        assert self.frozen is not None
        return self.cast(self.frozen)

    def _aligned(self) -> nn.Module:
        """The copy, every tensor in the dtype that an engine may have given the policy's, under the engine's cast."""
        own = next(self.model.parameters()).dtype
        if own != self._first:  # a look at every tensor takes milliseconds per step
            self._first = own
            named = chain(self.model.named_parameters(), self.model.named_buffers())
            dtypes = {name.replace(".base_layer.", "."): tensor.dtype for name, tensor in named}
            assert self.frozen is not None
            for name, tensor in chain(self.frozen.named_parameters(), self.frozen.named_buffers()):
                tensor.data = tensor.data.to(dtypes[name.replace(".base_layer.", ".")])
        return self._reference_model
