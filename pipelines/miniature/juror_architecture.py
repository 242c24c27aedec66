"""Small vision-language models of a real class (Idefics3), a word-level tokenizer and their processors.

A cell of the world is one token, so that a picture is nine; the picture stands before the words. The folder that is
saved loads by AutoProcessor and AutoModelForImageTextToText without torchvision, and is served by vLLM as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from infra.config import Config
from infra.lazy import lazy
from pipelines.miniature.world.draw import CELL, GRID, SIZE
from pipelines.miniature.world.grammar import vocabulary

if TYPE_CHECKING:
    import transformers
else:
    transformers = lazy("transformers")

_SPECIAL = ("<pad>", "<unk>", "<end>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
_WORDS = ("?", "yes", "no", "A", "B", "tie", "does", "this", "show", "which", "shows")
_PICTURE = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_resize": False, "do_image_splitting": False}
_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
MAX_TOKENS = 64
_SPREAD = 0.08  # of initial weights: about one over the root of the width; the usual 0.02 learns far slower here


class JurorShape(Config):
    """Size of a juror's towers."""

    scale: int = Field(1, ge=1)
    """Patches a side of a cell in the picture's tower; pixel shuffle makes one token of them."""
    vision_width: int = Field(96, ge=8)
    """Hidden size of the picture's tower."""
    vision_layers: int = Field(2, ge=1)
    """Layers of the picture's tower."""
    text_width: int = Field(128, ge=8)
    """Hidden size of the language model."""
    text_layers: int = Field(3, ge=1)
    """Layers of the language model."""
    heads: int = Field(4, ge=1)
    """Attention heads, in both towers."""


def build_model(shape: JurorShape) -> Any:
    """The model, randomly initialised from torch's current seed, float32."""
    words = words_of_jurors()
    pad, end, image = (words.index(word) for word in ("<pad>", "<end>", "<image>"))
    vision = {
        "hidden_size": shape.vision_width,
        "intermediate_size": 2 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.heads,
        "image_size": SIZE,
        "patch_size": CELL // shape.scale,
        "initializer_range": _SPREAD,
    }
    text = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": len(words),
        "hidden_size": shape.text_width,
        "intermediate_size": 2 * shape.text_width,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": MAX_TOKENS,
        "pad_token_id": pad,
        "bos_token_id": end,
        "eos_token_id": end,
        "tie_word_embeddings": False,
        "initializer_range": _SPREAD,
    }
    both: dict[str, Any] = {
        "initializer_range": _SPREAD,
        "text_config": text,
        "pad_token_id": pad,
        "tie_word_embeddings": False,
    }
    config = transformers.Idefics3Config(vision_config=vision, image_token_id=image, scale_factor=shape.scale, **both)
    return transformers.Idefics3ForConditionalGeneration(config)


def build_processor() -> Any:
    """Tokenizer, picture processor and chat template in one."""
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    edge = {"longest_edge": SIZE}
    pictures = Idefics3ImageProcessorPil(**_PICTURE, size=edge, max_image_size=edge)
    return transformers.Idefics3Processor(pictures, tokenizer(), image_seq_len=GRID * GRID, chat_template=_TEMPLATE)


def words_of_jurors() -> list[str]:
    """The vocabulary in the order of token ids."""
    return list(dict.fromkeys((*_SPECIAL, *_WORDS, *vocabulary())))


def tokenizer() -> Any:
    """Words and punctuation marks are the tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: index for index, word in enumerate(words_of_jurors())}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        additional_special_tokens=list(_SPECIAL[3:]),
    )
