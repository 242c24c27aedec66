"""Small vision-language models of real classes (Idefics3, LLaVA), a word-level tokenizer and their processors.

Patches are cells of the world, so that a picture is nine tokens; the picture stands before the words. The folder that is
saved loads by AutoProcessor and AutoModelForImageTextToText without torchvision, and is served by vLLM as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from infra.config import Config
from infra.lazy import lazy
from pipelines.models.miniature.draw import CELL, GRID, SIZE
from pipelines.models.miniature.grammar import vocabulary

if TYPE_CHECKING:
    import transformers
else:
    transformers = lazy("transformers")

_SPECIAL = ("<pad>", "<unk>", "<end>", "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
_WORDS = ("?", "yes", "no", "A", "B", "tie", "does", "this", "show", "which", "shows")
_PICTURE = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "do_resize": False}
_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
MAX_TOKENS = 64


class JurorShape(Config):
    """Size of a juror's towers."""

    family: Literal["idefics3", "llava"] = "idefics3"
    """Which transformers class: Idefics3ForConditionalGeneration or LlavaForConditionalGeneration."""
    vision_width: int = Field(96, ge=8)
    """Hidden size of the picture's tower."""
    vision_layers: int = Field(2, ge=1)
    """Layers of the picture's tower."""
    text_width: int = Field(128, ge=8)
    """Hidden size of the language model."""
    text_layers: int = Field(4, ge=1)
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
        "patch_size": CELL,
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
    }
    both: dict[str, Any] = {"text_config": text, "pad_token_id": pad, "tie_word_embeddings": False}
    if shape.family == "idefics3":
        config = transformers.Idefics3Config(vision_config=vision, image_token_id=image, scale_factor=1, **both)
        return transformers.Idefics3ForConditionalGeneration(config)
    config = transformers.LlavaConfig(
        vision_config=vision | {"model_type": "siglip_vision_model", "vision_use_head": False},
        image_token_index=image,
        image_seq_length=GRID * GRID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        **both,
    )
    return transformers.LlavaForConditionalGeneration(config)


def build_processor(shape: JurorShape) -> Any:
    """Tokenizer, picture processor and chat template in one."""
    if shape.family == "idefics3":
        from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

        edge = {"longest_edge": SIZE}
        pictures = Idefics3ImageProcessorPil(**_PICTURE, do_image_splitting=False, size=edge, max_image_size=edge)
        return transformers.Idefics3Processor(
            pictures, tokenizer(), image_seq_len=GRID * GRID, chat_template=_TEMPLATE
        )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    pictures = SiglipImageProcessorPil(**_PICTURE, size={"height": SIZE, "width": SIZE})
    return transformers.LlavaProcessor(
        pictures, tokenizer(), patch_size=CELL, vision_feature_select_strategy="full", chat_template=_TEMPLATE
    )


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
