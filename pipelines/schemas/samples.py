"""Tables of what generators make, and of what encoders make of it."""

from __future__ import annotations

from dataclasses import dataclass

from infra.store.tables import Image, Video


@dataclass(frozen=True)
class Picture:
    """One generator's answer to one prompt."""

    id: str
    prompt_id: str
    text: str
    generator: str
    sample: int  # 0, 1, … within (prompt, generator)
    seed: int  # hash of (prompt, generator, sample), in [0, 2^63)
    image: Image
    height: int  # pixels
    width: int


@dataclass(frozen=True)
class Clip:
    """One generator's clip for one prompt."""

    id: str
    prompt_id: str
    text: str
    generator: str
    sample: int
    seed: int
    fps: float | None  # frames per second, as the file states them; None where it does not
    video: Video
    height: int  # pixels
    width: int
    frames: int
    first_frame: str | None = None  # id of the picture that the clip was asked to begin with


@dataclass(frozen=True)
class Encoded:
    """One picture or clip as latents, or one text as what the denoiser reads of it."""

    id: str
    kind: str  # latent | text
    source: str  # id of the picture or clip; of a text, the hash of it
    text: str  # the text itself; "" for a picture or clip
    frames: int  # 1 for a picture, 0 for a text
    height: int  # pixels, after the crop to the shape of the pair; 0 for a text
    width: int
    fps: float | None  # frames per second after resampling; None for a picture, a text, or where it is unknown
    flipped: bool  # whether left and right are exchanged
    original_height: int | None  # pixels, before the picture was resized and cropped; None for a text
    original_width: int | None
    crop_top: int | None  # pixels of the resized picture above the crop; None for a text
    crop_left: int | None  # pixels left of it, in the picture as it is encoded: flipped or not
    tensors: bytes  # safetensors; `latent` and what is read of a first frame, or a text's conditions, by the family's names


@dataclass(frozen=True)
class EncodedSize:
    """Encoded, without its tensors: what `examples` looks up."""

    id: str
    kind: str
    source: str
    frames: int
    height: int
    width: int
    fps: float | None
    flipped: bool
