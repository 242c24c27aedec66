"""Tiny random vision-language models of transformers' own classes, saved as the published ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from actors.serving.vocabulary import without_video

KINDS = ("qwen2-vl", "idefics3")
PATCH = 4  # pixels; a token of Qwen2-VL is a square of two by two patches
SIZES = {"patch_size": PATCH, "size": {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": 64**2}}
"""Patches and limits of pixels of the tiny Qwen2-VL's pictures and of its frames."""
_ENDS = ["<|endoftext|>", "<|im_start|>"]
_SPECIAL = {
    "qwen2-vl": [*_ENDS, "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    "idefics3": [*_ENDS, "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"],
}
_QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_IDEFICS_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def write_tiny_vlm(kind: str, folder: Path, *, seed: int = 0, context: int = 2048) -> Path:
    """Saves model, tokenizer and processor under `folder` and returns it; weights are given by the seed."""
    words = _words(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (_qwen2_vl if kind == "qwen2-vl" else _idefics3)(words, context)
    model.eval().save_pretrained(folder, safe_serialization=True)
    processor = _processor(kind, words)
    processor.save_pretrained(folder)
    if kind == "qwen2-vl":
        video = SIZES | {"video_processor_type": "Qwen2VLVideoProcessor"}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    return folder


def _words(kind: str) -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    merged = ["ti", "tie", "ye", "yes", "no"]
    return [*_SPECIAL[kind], *sorted(ByteLevel.alphabet()), *merged]


def _tokenizer(kind: str, words: list[str]) -> Any:
    from transformers import Qwen2Tokenizer

    merges = [("t", "i"), ("ti", "e"), ("y", "e"), ("ye", "s"), ("n", "o")]
    return Qwen2Tokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=merges,
        unk_token=None,
        eos_token=_SPECIAL[kind][2],
        pad_token=_SPECIAL[kind][0],
        additional_special_tokens=_SPECIAL[kind],
    )


def _processor(kind: str, words: list[str]) -> Any:
    import transformers
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = _tokenizer(kind, words)
    if kind == "qwen2-vl":
        pictures = Qwen2VLImageProcessorPil(**SIZES)
        return without_video(transformers.Qwen2VLProcessor)(pictures, tokenizer, chat_template=_QWEN_TEMPLATE)
    edges = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}}
    return transformers.Idefics3Processor(
        Idefics3ImageProcessorPil(**edges), tokenizer, image_seq_len=4, chat_template=_IDEFICS_TEMPLATE
    )


def _text(words: list[str], context: int) -> dict[str, Any]:
    return {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": context,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }


def _qwen2_vl(words: list[str], context: int) -> Any:
    import transformers

    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": PATCH}
    rope = {"rope_type": "default", "type": "mrope", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}
    config = transformers.Qwen2VLConfig(
        text_config=_text(words, context) | {"rope_parameters": rope},
        vision_config=vision,
        vision_start_token_id=words.index("<|vision_start|>"),
        vision_end_token_id=words.index("<|vision_end|>"),
        image_token_id=words.index("<|image_pad|>"),
        video_token_id=words.index("<|video_pad|>"),
        tie_word_embeddings=False,
    )
    return transformers.Qwen2VLForConditionalGeneration(config)


def _idefics3(words: list[str], context: int) -> Any:
    import transformers

    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    }
    text = _text(words, context) | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    config = transformers.Idefics3Config(
        vision_config=vision,
        text_config=text,
        image_token_id=words.index("<image>"),
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    return transformers.Idefics3ForConditionalGeneration(config)
