"""Where task tokens stand in a denoiser: how they enter its own forward pass, and where they are read.

Everything is done by hooks on the denoiser's modules, so that the forward pass that runs is diffusers' own: gradient
checkpointing calls the blocks again with the same hooks, and an engine that divides the parameters sees its own modules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import nn

from infra.config import ConfigError
from pipelines.models.families.base import Condition

PROJECTIONS = ("q", "k", "v")


class TokenPlace(ABC):
    """A denoiser with n more tokens, the last of the stream that they stand in; 0 for none."""

    def __init__(self, transformer: Any, *, count: int) -> None:
        self.transformer = transformer
        self.count = count
        self.tokens: nn.Parameter | None = None
        """float[count, width]"""
        self.active = True
        """Whether the tokens are there: without them the denoiser answers as it does in the generator."""
        self.listening = False
        """Whether streams are kept: not while a block is computed again for its gradient."""
        self.text: torch.Tensor | None = None
        self.picture: torch.Tensor | None = None

    @property
    @abstractmethod
    def width(self) -> int:
        """Width of a token."""

    @abstractmethod
    def projections(self) -> list[tuple[nn.Module, nn.Module, nn.Module]]:
        """The query, key and value projections of the tokens' stream, of every block in which the tokens have their own."""

    @abstractmethod
    def register(self) -> None:
        """Registers the hooks: once, when low-rank additions are in place."""

    def condition(self, condition: Condition) -> Condition:
        """The condition as a denoiser with the tokens reads it."""
        return condition

    def states(self) -> Float[torch.Tensor, "batch count width"]:
        """The tokens' last states in the call that has ended."""
        if self.text is None:
            raise RuntimeError("the denoiser's last block was not called")
        return self.text[:, -self.count :]

    def append(self, stream: torch.Tensor) -> torch.Tensor:
        """The stream with the tokens at its end."""
        if not self.active or self.tokens is None:
            return stream
        return torch.cat([stream, self.tokens.to(stream.dtype).expand(len(stream), -1, -1)], dim=1)

    def _enter(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return self.append(output)

    def _end(self, module: nn.Module, inputs: Any, streams: Sequence[torch.Tensor]) -> None:
        if self.listening:
            self.text = streams[0]

    def _finish(self, module: nn.Module, inputs: Sequence[Any]) -> Any:
        if self.listening:
            self.picture = inputs[0]


class SD3Place(TokenPlace):
    """At the end of the text stream of SD3. The last block returns no text, so the one before is read."""

    def __init__(self, transformer: Any, *, count: int, velocity: bool) -> None:
        """`velocity`: whether the picture's stream is read, too; without it the last block is left out."""
        super().__init__(transformer, count=count)
        blocks = transformer.transformer_blocks
        if len(blocks) < 2:
            raise ConfigError(f"task tokens need a denoiser of at least 2 blocks, this one has {len(blocks)}")
        if not velocity:
            transformer.transformer_blocks = blocks[:-1]
        self.read = transformer.transformer_blocks[-2 if velocity else -1]

    @property
    def width(self) -> int:
        return self.transformer.config.caption_projection_dim

    def projections(self) -> list[tuple[nn.Module, nn.Module, nn.Module]]:
        """Of the last block, too, in which the picture's tokens still look at the task tokens."""
        return [_added(block.attn) for block in self.transformer.transformer_blocks]

    def register(self) -> None:
        self.transformer.context_embedder.register_forward_hook(self._enter)
        self.read.register_forward_hook(self._end)
        self.transformer.norm_out.register_forward_pre_hook(self._finish)


class FluxPlace(TokenPlace):
    """At the end of the text of FLUX, through its double blocks and its single ones."""

    @property
    def width(self) -> int:
        return self.transformer.inner_dim

    def projections(self) -> list[tuple[nn.Module, nn.Module, nn.Module]]:
        return [_added(block.attn) for block in self.transformer.transformer_blocks]

    def register(self) -> None:
        transformer = self.transformer
        transformer.context_embedder.register_forward_hook(self._enter)
        transformer.pos_embed.register_forward_pre_hook(self._place)
        (transformer.single_transformer_blocks or transformer.transformer_blocks)[-1].register_forward_hook(self._end)
        transformer.norm_out.register_forward_pre_hook(self._finish)

    def _place(self, module: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """Every text token has the position (0, 0, 0), so that of the task tokens may be put before all."""
        if not self.active or self.tokens is None:
            return None
        return torch.cat([inputs[0].new_zeros(self.count, inputs[0].shape[1]), inputs[0]])


class QwenPlace(TokenPlace):
    """At the end of the text of Qwen-Image, without a rotary phase: a text's padding is then no part of a score."""

    @property
    def width(self) -> int:
        return self.transformer.inner_dim

    def projections(self) -> list[tuple[nn.Module, nn.Module, nn.Module]]:
        return [_added(block.attn) for block in self.transformer.transformer_blocks]

    def register(self) -> None:
        self.transformer.txt_in.register_forward_hook(self._enter)
        self.transformer.pos_embed.register_forward_hook(self._unturned)
        self.transformer.transformer_blocks[-1].register_forward_hook(self._end)
        self.transformer.norm_out.register_forward_pre_hook(self._finish)

    def condition(self, condition: Condition) -> Condition:
        mask = condition.get("mask")
        if mask is None or not self.active or self.tokens is None:
            return condition
        return condition | {"mask": torch.cat([mask, mask.new_ones(len(mask), self.count)], dim=1)}

    def _unturned(self, module: nn.Module, inputs: Any, phases: Sequence[torch.Tensor]) -> Any:
        if not self.active or self.tokens is None:
            return None
        picture, text = phases
        return picture, torch.cat([text[: -self.count], torch.ones_like(text[-self.count :])])


class WanPlace(TokenPlace):
    """At the end of the video's tokens of Wan, without a rotary phase; they pass its attention to the text, too."""

    @property
    def width(self) -> int:
        return self.transformer.config.num_attention_heads * self.transformer.config.attention_head_dim

    def projections(self) -> list[tuple[nn.Module, nn.Module, nn.Module]]:
        return [(block.attn1.to_q, block.attn1.to_k, block.attn1.to_v) for block in self.transformer.blocks]

    def register(self) -> None:
        self.transformer.rope.register_forward_hook(self._unturned)
        self.transformer.blocks[0].register_forward_pre_hook(self._join)
        self.transformer.condition_embedder.register_forward_hook(self._words)
        self.transformer.norm_out.register_forward_pre_hook(self._finish)

    def _join(self, module: nn.Module, inputs: Sequence[Any]) -> Any:
        return (self.append(inputs[0]), *inputs[1:])

    def _unturned(self, module: nn.Module, inputs: Any, phases: Sequence[torch.Tensor]) -> Any:
        if not self.active or self.tokens is None:
            return None
        cosine, sine = phases
        more = (1, self.count, 1, cosine.shape[-1])
        return torch.cat([cosine, cosine.new_ones(more)], dim=1), torch.cat([sine, sine.new_zeros(more)], dim=1)

    def _words(self, module: nn.Module, inputs: Any, outputs: Sequence[torch.Tensor]) -> None:
        if self.listening:
            self.text = outputs[2]  # the text, which no block changes

    def _finish(self, module: nn.Module, inputs: Sequence[Any]) -> Any:
        stream = inputs[0]
        if self.active and self.tokens is not None:
            stream, states = stream[:, : -self.count], stream[:, -self.count :]
            if self.listening:
                self.text = states
        if self.listening:
            self.picture = stream
        return (stream, *inputs[1:])


class TokenProjection(nn.Module):
    """A linear projection of the task tokens' own, in the place of the one that the rest of their stream passes."""

    def __init__(self, shared: Any, place: TokenPlace) -> None:
        """Starts as a copy of `shared`, and takes its place for the last tokens from now on."""
        super().__init__()
        self.own = nn.Linear(shared.in_features, shared.out_features, bias=shared.bias is not None)
        with torch.no_grad():
            self.own.weight.copy_(shared.weight)
            if shared.bias is not None:
                self.own.bias.copy_(shared.bias)
        self.place = place
        shared.register_forward_hook(self._replace)

    def _replace(self, module: nn.Module, inputs: Sequence[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        if not self.place.active:
            return output
        count = self.place.count
        return torch.cat([output[:, :-count], self.own(inputs[0][:, -count:])], dim=1)


def own_projections(place: TokenPlace) -> nn.ModuleList:
    """Projections of the tokens' own in every block, by block and then by name (q, k, v)."""
    blocks = (zip(PROJECTIONS, shared, strict=True) for shared in place.projections())
    return nn.ModuleList(
        nn.ModuleDict({name: TokenProjection(projection, place) for name, projection in block}) for block in blocks
    )


def place_of(family: str, transformer: Any, *, count: int, velocity: bool) -> TokenPlace:
    """Where task tokens stand in the denoiser of a family."""
    if family in ("sd3", "miniature"):
        return SD3Place(transformer, count=count, velocity=velocity)
    return {"flux": FluxPlace, "qwen-image": QwenPlace, "wan": WanPlace}[family](transformer, count=count)


def _added(attention: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    return attention.add_q_proj, attention.add_k_proj, attention.add_v_proj
