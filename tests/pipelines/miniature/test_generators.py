"""The shipped generators: loading, independence of the batch, adapters, and their order of strength."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from infra.config import ConfigError
from infra.store.files import Folder
from pipelines.miniature.generators import WEIGHTS, shipped, training
from pipelines.miniature.pipeline import MiniaturePipeline, load_pipeline, to_model, to_pictures
from pipelines.miniature.world.checker import check
from pipelines.miniature.world.grammar import captions
from pipelines.models.generators.generator import Request
from tests.support.places import NOWHERE

TEXTS = [caption.text for caption in captions(40, split="evaluation", seed=0)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def policy():
    return next(g for g in shipped() if g.name == "policy")


def test_a_picture_depends_on_its_prompt_and_seed_alone(policy):
    opened = policy.open("cpu", NOWHERE)
    requests = [Request(text, seed) for seed, text in enumerate(TEXTS)]
    together = opened.sample(requests)
    order = [37, 3, 21]
    apart = opened.sample([requests[n] for n in order])
    for picture, n in zip(apart, order, strict=True):
        assert picture.shape == (1, 24, 24, 3) and np.array_equal(picture, together[n])


def test_a_request_that_is_refused_leaves_its_neighbours_as_they_are(policy):
    opened = policy.open("cpu", NOWHERE)
    plain = [Request(text, seed) for seed, text in enumerate(TEXTS[:3])]
    found = opened.sample([plain[0], Request(TEXTS[1], 1, first_frame=b"png"), plain[2]])
    assert isinstance(found[1], ValueError) and "first frame" in str(found[1])
    wanted = opened.sample(plain)
    assert np.array_equal(found[0], wanted[0]) and np.array_equal(found[2], wanted[2])


def test_strict_score_rises_along_the_roster():
    asked = captions(96, split="evaluation", seed=1)
    scores = {}
    for generator in shipped(guidance=2.0):
        if generator.name in ("early", "late", "policy"):
            pictures = generator.open("cpu", NOWHERE).pictures([Request(c.text, n) for n, c in enumerate(asked)])
            scores[generator.name] = np.mean([check(p, c.expectation).strict for p, c in zip(pictures, asked, strict=True)])
    assert scores["early"] + 0.1 < scores["late"] < scores["policy"] + 0.05
    assert scores["policy"] > 0.6


def test_the_roster_is_distinct_and_every_member_samples():
    roster = shipped(steps=2)
    assert len({g.name for g in roster}) == len(roster) >= 4
    for generator in roster:
        assert generator.open("cpu", NOWHERE).pictures([Request("a red circle", 0)]).shape == (1, 24, 24, 3)


def test_all_shipped_generators_together_are_small():
    assert sum(p.stat().st_size for g in shipped() for p in g.weights.local.rglob("*.safetensors")) < 24_000_000


def test_an_adapter_saved_by_diffusers_loads_and_changes_the_picture(policy, tmp_path):
    pipe = load_pipeline(policy.weights.local)
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    StableDiffusion3Pipeline.save_lora_weights(
        str(tmp_path), transformer_lora_layers=get_peft_model_state_dict(pipe.transformer)
    )
    tuned = policy.tuned(Folder(path=str(tmp_path)), adapter="lora")
    assert tuned.name == "policy-tuned" and tuned.lora.local == tmp_path
    base, changed = (
        g.open("cpu", NOWHERE).pipeline("a red circle", latents=torch.ones(1, 3, 24, 24), output_type="np").images
        for g in (policy, tuned)
    )
    assert not np.array_equal(base, changed)


def test_a_full_tuning_takes_the_place_of_the_weights(policy, tmp_path):
    folder = Folder(path=str(tmp_path))
    assert policy.tuned(folder, adapter="full").weights == folder


def test_the_loader_of_diffusers_opens_the_folder(policy):
    pipe = MiniaturePipeline.from_pretrained(policy.weights.local, dtype=torch.float32, local_files_only=True)
    assert pipe("a red circle", num_inference_steps=2).images[0].size == (24, 24)


def test_the_denoisers_velocity_leads_to_its_own_clean_picture(policy):
    pipe = load_pipeline(policy.weights.local)
    noised, condition = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)), pipe.encode(TEXTS[:2])
    clean = []
    for scale in (1.0, 2.0):
        times = torch.full((2,), 500.0)
        v = pipe.velocity(noised, times[0], condition, free=pipe.encode(["", ""]), guidance_scale=scale)
        clean.append(noised - 0.5 * v)
    plain = pipe.velocity(noised, torch.tensor(500.0), condition, free=None, guidance_scale=1.0)
    assert torch.allclose(clean[0], noised - 0.5 * plain, atol=1e-4)
    assert not torch.allclose(clean[0], clean[1], atol=1e-4)


def test_pictures_survive_the_way_to_the_model_and_back():
    levels = np.arange(24 * 24 * 3, dtype=np.int64).reshape(1, 24, 24, 3) % 256
    pictures = levels.astype(np.uint8)
    assert np.array_equal(to_pictures(to_model(pictures)), pictures)


def test_weights_that_are_not_safetensors_are_refused(tmp_path):
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="safetensors"):
        load_pipeline(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        load_pipeline(tmp_path / "nowhere")


def test_every_shipped_folder_has_a_card_and_a_training():
    made = {snapshot.name for options in training() for snapshot in options.snapshots}
    for generator in shipped():
        assert generator.name in made
        assert (WEIGHTS / generator.name / "card.md").read_text().startswith(f"# {generator.name}")
        assert "safetensors" not in json.dumps(generator.model_dump())


def test_configs_need_neither_torch_nor_diffusers():
    modules = ("generators", "making.pretrain", "world.checker", "world.grammar", "world.draw", "text")
    code = "; ".join(f"import pipelines.miniature.{name}" for name in modules)
    code += "; import sys; assert not {'torch', 'transformers', 'diffusers', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
