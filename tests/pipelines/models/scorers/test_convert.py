"""Published forms converted: a CLIP of OpenCLIP computed by torch's own layers gives the scores of the converted one."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel

from actors.media import encode_png
from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.models.scorers.convert import convert_hpsv2, main, read_published
from pipelines.models.scorers.hps import HPSv2
from pipelines.models.scorers.linear_head import NAMES
from pipelines.models.scorers.pixels import whole_in_square
from pipelines.models.scorers.scorer import Sample
from tests.support.places import NOWHERE
from tests.support.tiny import clip_tokenizer
from tests.support.tiny_scorers import picture, randomised

WIDTH, OUT, PATCH, SIZE, LENGTH = 32, 24, 8, 32, 77


class Block(nn.Module):
    """A layer as OpenCLIP names it."""

    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(WIDTH, 64), "c_proj": nn.Linear(64, WIDTH)})

    def forward(self, x, mask=None):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Tower(nn.Module):
    """Blocks under the names transformer.resblocks.N."""

    def __init__(self):
        super().__init__()
        self.resblocks = nn.ModuleList([Block(), Block()])

    def forward(self, x, mask=None):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    """The picture encoder."""

    def __init__(self):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(WIDTH))
        self.positional_embedding = nn.Parameter(torch.zeros((SIZE // PATCH) ** 2 + 1, WIDTH))
        self.proj = nn.Parameter(torch.zeros(WIDTH, OUT))
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.ln_pre, self.ln_post, self.transformer = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), Tower()

    def forward(self, pixels):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """The model as the published file names it."""

    def __init__(self, words):
        super().__init__()
        self.visual, self.transformer = Visual(), Tower()
        self.token_embedding = nn.Embedding(words, WIDTH)
        self.positional_embedding = nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.ln_final = nn.LayerNorm(WIDTH)
        self.text_projection = nn.Parameter(torch.zeros(WIDTH, OUT))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def text(self, tokens):
        mask = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
        x = self.transformer(self.token_embedding(tokens) + self.positional_embedding, mask)
        return self.ln_final(x)[torch.arange(len(x)), tokens.argmax(-1)] @ self.text_projection


@pytest.fixture(scope="module")
def published():
    return randomised(OpenClip(len(clip_tokenizer())), seed=2)


def test_a_converted_openclip_gives_the_scores_of_the_original(published, tmp_path):
    file = tmp_path / "HPS.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v.half() for k, v in published.state_dict().items()}}, file)
    published = published.half().float()
    convert_hpsv2(read_published(file), tmp_path / "hps", heads=(2, 2))
    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert CLIPModel.from_pretrained(tmp_path / "hps").config.vision_config.image_size == SIZE
    prompts = ["a red fox", "a cat " * 40]
    shown = [picture(n, height=40, width=32 + 24 * n) for n in range(2)]
    scorer = HPSv2(weights=Folder(path=str(tmp_path / "hps")), tokenizer=Folder(path=str(tmp_path / "tokenizer")))
    samples = [Sample(encode_png(p).bytes, "image", text) for p, text in zip(shown, prompts, strict=True)]
    found = scorer.open("cpu", NOWHERE).score(samples)[:, 0]
    for pixels, text, score in zip(shown, prompts, found, strict=True):
        ids = tokenizer(text)["input_ids"]
        ids = ids if len(ids) <= LENGTH else [*ids[: LENGTH - 1], tokenizer.eos_token_id]
        tokens = torch.tensor([ids + [0] * (LENGTH - len(ids))])  # OpenCLIP pads with zeros
        with torch.no_grad():
            image = published.visual(torch.from_numpy(whole_in_square(pixels, size=SIZE))[None])
            value = nn.functional.cosine_similarity(image, published.text(tokens))
        assert score == pytest.approx(float(value), abs=1e-4)
    assert abs(found[0] - found[1]) > 1e-3


def test_a_missing_tensor_and_one_of_another_architecture_are_refused(published, tmp_path):
    tensors = dict(published.state_dict())
    with pytest.raises(ConfigError, match="no tensor of a CLIP"):
        convert_hpsv2({**tensors, "visual.attn_pool.query": torch.zeros(1)}, tmp_path / "a", heads=(2, 2))
    del tensors["visual.ln_pre.bias"]
    with pytest.raises(ConfigError, match=r"lacks 'vision_model.pre_layrnorm.bias'"):
        convert_hpsv2(tensors, tmp_path / "b", heads=(2, 2))


class Attack:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        import os

        return os.system, ("touch attacked",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"state_dict": Attack()}))
    torch.save({"state_dict": Attack()}, tmp_path / "torch.pt")
    for file in ("raw.pt", "torch.pt"):
        with pytest.raises(ConfigError, match="only tensors"):
            read_published(tmp_path / file)
    assert not (tmp_path / "attacked").exists()


def test_the_command_writes_the_aesthetic_head_and_never_over_something(tmp_path, capsys):
    tensors = {name: torch.zeros(2) for name in NAMES}
    torch.save(tensors, tmp_path / "head.pth")
    main(["aesthetic", str(tmp_path / "head.pth"), str(tmp_path / "head")])
    assert "model.safetensors" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="not empty"):
        main(["aesthetic", str(tmp_path / "head.pth"), str(tmp_path / "head")])
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="five linear layers"):
        main(["aesthetic", str(tmp_path / "other.safetensors"), str(tmp_path / "new")])
