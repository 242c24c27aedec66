"""Tiny random text encoders of CLIP's and T5's classes, with tokenizers over single characters."""

from __future__ import annotations

TEXT_WIDTH = 32  # of every text encoder but CLIP's second one in a pipeline with two
SECOND_WIDTH = 24


def clip_tokenizer(*, pad: str = "<|endoftext|>"):
    """CLIP's tokenizer over single characters: 77 tokens, begin and end marked."""
    from transformers import CLIPTokenizer

    characters = [chr(c) for c in range(33, 127)]
    pieces = [*characters, *(f"{c}</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], pad_token=pad, model_max_length=77
    )


def t5_tokenizer():
    """T5's tokenizer over single characters: no begin, an end, unpadded length at most 512."""
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "▁", *(chr(c) for c in range(33, 127))]
    vocabulary = [(piece, 0.0 if number < 3 else -2.0) for number, piece in enumerate(pieces)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def clip(tokenizer, *, width: int = TEXT_WIDTH, projection: bool = False):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="gelu" if projection else "quick_gelu",
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def t5(tokenizer, *, width: int = TEXT_WIDTH, multilingual: bool = False):
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    sizes = {"d_model": width, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 1, "feed_forward_proj": "gated-gelu"}
    if multilingual:
        return UMT5EncoderModel(UMT5Config(**sizes, **ids)).eval()
    return T5EncoderModel(T5Config(**sizes, **ids)).eval()
