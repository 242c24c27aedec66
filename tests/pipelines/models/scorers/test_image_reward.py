"""ImageReward against transformers' own BLIP for retrieval, whose encoders it shares, and the head written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from actors.media import encode_png
from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.models.scorers.convert import convert_image_reward
from pipelines.models.scorers.image_reward import ImageReward
from pipelines.models.scorers.image_reward_network import published_config
from pipelines.models.scorers.linear_head import NAMES
from pipelines.models.scorers.scorer import Sample
from tests.support.places import NOWHERE
from tests.support.tiny_scorers import SIZE, picture, randomised

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
SIZES = {
    "text_config": {
        "vocab_size": 64, "hidden_size": 32, "encoder_hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 64, "is_decoder": True,
    },
    "vision_config": {
        "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": SIZE,
        "patch_size": 8, "layer_norm_eps": 1e-6,
    },
}  # fmt: skip
PROMPTS = ["a red fox", "two cats on a mat and another hat which is long", "blue"]


def head(seed=3):
    generator = torch.Generator().manual_seed(seed)
    widths = (32, 1024, 128, 64, 16, 1)
    layers = zip(NAMES[::2], NAMES[1::2], widths[:-1], widths[1:], strict=True)
    found = {}
    for weight, bias, given, out in layers:
        found[weight] = torch.randn(out, given, generator=generator) / given**0.5
        found[bias] = torch.randn(out, generator=generator)
    return found


def as_published(blip):
    """The tensors under the names of ImageReward.pt, together with those that it holds beside."""
    published = {f"mlp.{name}": value for name, value in head().items()}
    for name, value in blip.state_dict().items():
        if name.startswith("text_encoder."):
            published[f"blip.{name}"] = value
        elif name.startswith("vision_model."):
            name = name.replace("vision_model.embeddings.class_embedding", "cls_token")
            name = name.replace("vision_model.embeddings.position_embedding", "pos_embed")
            name = name.replace("vision_model.embeddings.patch_embedding", "patch_embed.proj")
            name = name.replace("vision_model.post_layernorm", "norm").replace("vision_model.encoder.layers", "blocks")
            name = name.replace("layer_norm", "norm").replace("self_attn.projection", "attn.proj")
            published[f"blip.visual_encoder.{name.replace('self_attn', 'attn')}"] = value
    beside = ("blip.vision_proj.weight", "blip.text_proj.bias", "blip.text_encoder.embeddings.position_ids")
    return {**published, **{name: torch.zeros(1) for name in beside}}


@pytest.fixture(scope="module")
def blip():
    return randomised(BlipForImageTextRetrieval(BlipConfig(**SIZES)), seed=7)


@pytest.fixture(scope="module")
def folder(blip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagereward")
    convert_image_reward(as_published(blip), folder, config=SIZES)
    BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


def samples():
    files = [encode_png(picture(n, height=40, width=32 + 16 * n)).bytes for n in range(3)]
    return [Sample(file, "image", prompt) for file, prompt in zip(files, PROMPTS, strict=True)]


def scored(folder, given, **options):
    return ImageReward(weights=Folder(path=str(folder)), **options).open("cpu", NOWHERE).score(given)[:, 0]


def test_the_reward_is_the_head_on_the_first_state_of_blips_text_encoder_normalised(folder, blip):
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(WORDS)})
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    found, weights = scored(folder, samples()), head()
    wanted = []
    for number, prompt in enumerate(PROMPTS):
        shown = processor(Image.fromarray(picture(number, height=40, width=32 + 16 * number)), return_tensors="pt")
        read = tokenizer([prompt], truncation=True, max_length=35, return_tensors="pt")  # no padding: it changes nothing
        with torch.no_grad():
            seen = blip.vision_model(**shown).last_hidden_state
            value = blip.text_encoder(
                read["input_ids"], attention_mask=read["attention_mask"], encoder_hidden_states=seen
            ).last_hidden_state[0, 0]
        for weight, bias in zip(NAMES[::2], NAMES[1::2], strict=True):
            value = weights[weight] @ value + weights[bias]
        wanted.append((float(value) - 0.16717362830052426) / 1.0333394966054072)
    assert found == pytest.approx(wanted, abs=1e-4) and np.ptp(wanted) > 1e-2


def test_the_same_sample_alone_in_company_and_in_another_order_has_the_same_bits(folder):
    given = samples()
    together = scored(folder, given, batch_size=2)
    assert (scored(folder, given[::-1], batch_size=2)[::-1] == together).all()
    assert [float(scored(folder, [sample], batch_size=2)[0]) for sample in given] == together.tolist()


def test_a_broken_picture_has_no_score_and_a_missing_tensor_is_refused(folder, tmp_path):
    one, nothing = scored(folder, [samples()[0], Sample(b"no picture", "image", "a fox")])
    assert np.isfinite(one) and np.isnan(nothing)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    del tensors["mlp.layers.7.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"lacks 'mlp.layers.7.bias'"):
        scored(tmp_path, samples())


def test_the_published_size_has_as_many_parameters_as_its_paper_says():
    """ViT-L/16 has 303 million, BERT-base with attention to a picture of width 1024 has 139 million."""
    from pipelines.models.scorers.image_reward_network import build

    with torch.device("meta"):
        network = build(BlipConfig(**published_config()))
    counts = {name: sum(value.numel() for value in part.parameters()) / 1e6 for name, part in network.items()}
    assert counts["vision_model"] == pytest.approx(303, abs=1)
    assert counts["text_encoder"] == pytest.approx(139, abs=3)
