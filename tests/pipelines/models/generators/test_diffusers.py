"""A diffusers pipeline as a generator gives what the pipeline's own call gives, alone or among others, LoRA included."""

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from infra.config import ConfigError
from infra.dag.stage import TableStage
from infra.store.files import Folder
from pipelines.miniature.generators import shipped
from pipelines.miniature.pipeline import load_pipeline
from pipelines.miniature.prompts import Grammar
from pipelines.models.generators.diffusers import Diffusers
from pipelines.models.generators.generator import Request
from pipelines.models.weights import Made
from pipelines.schemas.prompts import Prompt
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render
from support.tiny import write_tiny
from tests.support.places import NOWHERE, Folders

PICTURE = {"steps": 2, "height": 32, "width": 32, "dtype": "float32"}
REQUESTS = [Request("a red circle", 7), Request("two blue squares", 8)]


class TuneSomewhere(TableStage):
    """Stands for whatever stage leaves an adapter as its weights."""

    name = "tune_somewhere"
    row = Prompt

    def run(self, context):
        yield from ()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    made = {}

    def folder(family):
        if family not in made:
            made[family] = write_tiny(family, root / family)
        return made[family]

    return folder


def own_call(pipeline, request, **options):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(request.seed)
    output = pipeline(prompt=request.prompt, generator=generator, output_type="pil", num_inference_steps=2, **options)
    pictures = output.frames[0] if hasattr(output, "frames") else output.images
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "wan"])
def test_pixels_are_those_of_the_pipelines_own_call(tiny, family):
    clip = {"frames": 5} if family == "wan" else {}
    opened = Diffusers(name=family, weights=Folder(path=str(tiny(family))), guidance=2.0, **PICTURE, **clip).open(
        "cpu", NOWHERE
    )
    together = opened.sample(REQUESTS)
    options = {"height": 32, "width": 32, "guidance_scale": 2.0} | ({"num_frames": 5} if clip else {})
    pipeline = DiffusionPipeline.from_pretrained(tiny(family), torch_dtype=torch.float32)
    assert together[0].dtype == np.uint8 and together[0].shape == (5 if clip else 1, 32, 32, 3)
    assert np.array_equal(together[1], own_call(pipeline, REQUESTS[1], **options))
    assert np.array_equal(together[1], opened.sample(REQUESTS[1:])[0])
    assert not np.array_equal(together[0], together[1])


def write_lora(pipeline, folder):
    name = "unet" if "unet" in pipeline.components else "transformer"
    part = pipeline.components[name]
    part.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = {
        "unet_lora_layers" if hasattr(pipeline, "unet") else "transformer_lora_layers": get_peft_model_state_dict(part)
    }
    type(pipeline).save_lora_weights(str(folder), **layers)


@pytest.mark.parametrize("family", ["sd15", "sd3"])
def test_an_adapter_that_a_stage_made_renders_the_bytes_of_diffusers_own_lora_loader(tiny, family, tmp_path):
    write_lora(DiffusionPipeline.from_pretrained(tiny(family), torch_dtype=torch.float32), tmp_path)
    stage = TuneSomewhere()
    weights = Folder(path=str(tiny(family)))
    tuned = Diffusers(name="tuned", weights=weights, lora=Made(stage=stage), **PICTURE)
    found = tuned.open("cpu", Folders({stage.key: tmp_path})).sample(REQUESTS)[0]
    pipeline = DiffusionPipeline.from_pretrained(tiny(family), torch_dtype=torch.float32)
    pipeline.load_lora_weights(str(tmp_path))
    assert np.array_equal(found, own_call(pipeline, REQUESTS[0], height=32, width=32))
    base = Diffusers(name="base", weights=weights, **PICTURE).open("cpu", NOWHERE).sample(REQUESTS)[0]
    assert not np.array_equal(found, base)
    off = tuned.model_copy(update={"lora_scale": 0.0})
    assert np.array_equal(off.open("cpu", Folders({stage.key: tmp_path})).sample(REQUESTS)[0], base)


def test_the_miniatures_adapter_that_a_stage_made_renders_the_bytes_of_its_own_lora_loader(tmp_path):
    policy = shipped(steps=2)[-1]
    write_lora(load_pipeline(policy.weights.local), tmp_path)
    stage = TuneSomewhere()
    tuned = policy.tuned(Made(stage=stage), adapter="lora")
    found = tuned.open("cpu", Folders({stage.key: tmp_path})).pictures(REQUESTS)
    pipeline = load_pipeline(policy.weights.local)
    pipeline.load_lora_weights(str(tmp_path))
    generators = [torch.Generator().manual_seed(request.seed) for request in REQUESTS] + [
        torch.Generator().manual_seed(0) for _ in range(30)
    ]
    texts = [request.prompt for request in REQUESTS] + [""] * 30
    wanted = pipeline(texts, num_inference_steps=2, guidance_scale=1.0, generator=generators, output_type="np").images
    assert np.array_equal(found, wanted[:2])


def test_what_makes_a_generators_weights_is_a_parent_of_its_roster():
    stage, policy = TuneSomewhere(), shipped()[-1]
    render = Render(
        prompts=WritePrompts(source=Grammar()), roster=(policy, policy.tuned(Made(stage=stage), adapter="lora"))
    )
    assert stage in render.parents.values()


def test_an_option_that_the_pipeline_does_not_take_is_refused_by_name(tiny):
    generator = Diffusers(name="still", weights=Folder(path=str(tiny("sd15"))), frames=5, **PICTURE)
    with pytest.raises(ConfigError, match="still: StableDiffusionPipeline takes no num_frames"):
        generator.open("cpu", NOWHERE)


def test_a_first_frame_is_refused_by_a_pipeline_of_texts_and_leaves_the_others(tiny):
    opened = Diffusers(name="sd15", weights=Folder(path=str(tiny("sd15"))), **PICTURE).open("cpu", NOWHERE)
    refused, made = opened.sample([Request("a circle", 0, first_frame=b"png"), REQUESTS[0]])
    assert isinstance(refused, ValueError) and np.array_equal(made, opened.sample(REQUESTS[:1])[0])
