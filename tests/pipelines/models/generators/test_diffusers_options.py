"""Every option of a diffusers pipeline does what its own call would do, or is refused with the reason."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FirstBlockCacheConfig
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from actors.media import encode_png
from infra.config import ConfigError
from infra.identity import key_of
from infra.store.files import Folder
from pipelines.models.generators.diffusers import Diffusers
from pipelines.models.generators.generator import Request
from pipelines.models.generators.options import Scheduler, StepCache
from support.tiny import write_tiny
from tests.support.places import NOWHERE

PROMPTS = ["a red circle", "two blue squares on a table", "x"]
REQUESTS = [Request(prompt, seed) for seed, prompt in enumerate(PROMPTS, start=7)]
UNEVEN = ("qwen-image", "z-image")


def write_picture_to_clip(root):
    """A pipeline of the kind of Wan 2.2's picture-to-clip model: the first frame enters by channels alone."""
    from diffusers import WanImageToVideoPipeline, WanTransformer3DModel

    parts = DiffusionPipeline.from_pretrained(write_tiny("wan", root / "wan-text")).components
    latent = parts["transformer"].config.in_channels
    config = dict(parts["transformer"].config) | {"in_channels": 2 * latent + 4}  # noise, mask and first frame
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = WanTransformer3DModel.from_config(config)
    kept = {name: parts[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler")}
    pipeline = WanImageToVideoPipeline(transformer=transformer.eval(), image_encoder=None, image_processor=None, **kept)
    pipeline.save_pretrained(root / "wan-i2v")
    return root / "wan-i2v"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    made = {}

    def folder(family):
        if family not in made:
            made[family] = write_picture_to_clip(root) if family == "wan-i2v" else write_tiny(family, root / family)
        return made[family]

    return folder


@pytest.fixture
def generator(tiny):
    def made(family, **options):
        clip = {"frames": 5} if family.startswith("wan") else {}
        small = {"steps": 2, "height": 32, "width": 32, "dtype": "float32"}
        weights = {} if "weights" in options else {"weights": Folder(path=str(tiny(family)))}
        return Diffusers(name=family, **small | clip | weights | options)

    return made


@pytest.fixture
def pipeline(tiny):
    def loaded(family):
        found = DiffusionPipeline.from_pretrained(tiny(family), torch_dtype=torch.float32)
        found.set_progress_bar_config(disable=True)
        return found

    return loaded


def sampled(generator, requests=REQUESTS[:1]):
    return generator.open("cpu", NOWHERE).sample(requests)


def own_call(pipeline, request=REQUESTS[0], **options):
    options = {"num_inference_steps": 2, "height": 32, "width": 32} | options
    noise = torch.Generator().manual_seed(request.seed)
    output = pipeline(prompt=request.prompt, generator=noise, output_type="pil", **options)
    pictures = output.frames[0] if hasattr(output, "frames") else output.images
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "flux2-klein", "qwen-image", "z-image", "wan"])
def test_a_request_gives_the_same_bytes_alone_and_in_any_batch(generator, family):
    opened = generator(family, batch=3).open("cpu", NOWHERE)
    assert opened.rows == (1 if family in UNEVEN else 3)
    others = [Request("another prompt", 1), Request("y", 2)]
    together = opened.sample([*REQUESTS, others[0]])
    for place, request in enumerate(REQUESTS):
        assert np.array_equal(opened.sample([request])[0], together[place])
        assert np.array_equal(opened.sample([*others, request])[2], together[place])
    assert not np.array_equal(together[0], together[1])


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "flux2-klein", "qwen-image", "z-image", "wan"])
def test_a_prompt_is_encoded_once_for_all_its_samples_and_gives_the_pipelines_own_bytes(generator, pipeline, family):
    opened = generator(family).open("cpu", NOWHERE)
    requests = [Request(prompt, seed) for prompt in PROMPTS[:2] for seed in range(3)]
    found = opened.sample(requests)
    first = opened.encoded.computed
    opened.sample(requests)
    assert opened.encoded.computed == first <= 4
    options = {"num_frames": 5} if family == "wan" else {}
    assert np.array_equal(found[4], own_call(pipeline(family), requests[4], **options))


def test_true_guidance_and_the_length_of_the_text_are_the_pipelines_own(generator, pipeline):
    options = {"true_cfg": 3.0, "negative_prompt": "blur", "max_sequence_length": 16}
    found = sampled(generator("flux", **options))
    wanted = own_call(pipeline("flux"), true_cfg_scale=3.0, negative_prompt="blur", max_sequence_length=16)
    assert np.array_equal(found[0], wanted)
    assert not np.array_equal(found[0], sampled(generator("flux"))[0])


def test_another_scheduler_samples_as_the_pipeline_does_with_it(generator, pipeline):
    from diffusers import DPMSolverMultistepScheduler

    chosen = Scheduler(name="DPMSolverMultistepScheduler", config={"use_karras_sigmas": True})
    own = pipeline("sd15")
    own.scheduler = DPMSolverMultistepScheduler.from_config(own.scheduler.config, use_karras_sigmas=True)
    assert np.array_equal(sampled(generator("sd15", scheduler=chosen))[0], own_call(own))


def test_the_shift_of_the_pipelines_own_scheduler_can_be_changed(generator, pipeline):
    own = pipeline("sd3")
    own.scheduler = type(own.scheduler).from_config(own.scheduler.config, shift=6.0)
    found = sampled(generator("sd3", steps=3, scheduler=Scheduler(config={"shift": 6.0})))
    assert np.array_equal(found[0], own_call(own, num_inference_steps=3))
    assert not np.array_equal(found[0], sampled(generator("sd3", steps=3))[0])


def test_a_scheduler_that_does_not_exist_is_refused_when_it_is_declared():
    with pytest.raises(ConfigError, match="no scheduler 'EulerDiscretScheduler'; did you mean 'EulerDiscreteScheduler'"):
        Scheduler(name="EulerDiscretScheduler")


@pytest.mark.parametrize(
    ("family", "scheduler", "reason"),
    [
        ("sd15", {"config": {"shiff": 3.0}}, "PNDMScheduler has no option 'shiff'"),
        (
            "sd15",
            {"name": "FlowMatchEulerDiscreteScheduler"},
            "samples a model of flow matching, and Stable.* of diffusion",
        ),
        ("sd3", {"name": "DDIMScheduler"}, "samples a model of diffusion, and Stable.* of flow matching"),
    ],
)
def test_a_scheduler_that_does_not_fit_is_refused(generator, family, scheduler, reason):
    with pytest.raises(ConfigError, match=reason):
        sampled(generator(family, scheduler=Scheduler(**scheduler)))


def test_a_cache_gives_the_pipelines_own_bytes_with_it_and_forgets_between_requests(generator, pipeline):
    options = {"steps": 6, "cache": StepCache(method="first_block", options={"threshold": 5.0})}
    found = sampled(generator("flux", **options), REQUESTS)
    own = pipeline("flux")
    own.transformer.enable_cache(FirstBlockCacheConfig(threshold=5.0))
    assert np.array_equal(found[0], own_call(own, num_inference_steps=6))
    assert np.array_equal(found[2], sampled(generator("flux", **options), REQUESTS[2:])[0])
    assert not np.array_equal(found[0], sampled(generator("flux", steps=6))[0])


@pytest.mark.parametrize("method", ["taylor_seer", "mag", "pyramid_attention"])
def test_each_cache_of_diffusers_is_applied(generator, method):
    options = {
        "taylor_seer": {"cache_interval": 2, "disable_cache_before_step": 1, "taylor_factors_dtype": None},
        "mag": {"threshold": 1.0, "mag_ratios": [1.0] * 8, "retention_ratio": 0.1},
        "pyramid_attention": {"spatial_attention_block_skip_range": 2, "spatial_attention_timestep_skip_range": [0, 1000]},
    }[method]
    cached = generator("flux", steps=8, cache=StepCache(method=method, options=options))
    assert not np.array_equal(sampled(cached)[0], sampled(generator("flux", steps=8))[0])


def test_options_that_contradict_each_other_or_the_model_are_refused(generator):
    with pytest.raises(ConfigError, match="batch must be 1"):
        generator("flux", batch=2, cache=StepCache(method="mag"))
    with pytest.raises(ConfigError, match="the cache first_block has no option 'treshold'"):
        sampled(generator("flux", cache=StepCache(method="first_block", options={"treshold": 1.0})))
    with pytest.raises(ConfigError, match="UNet2DConditionModel has no caches"):
        sampled(generator("sd15", cache=StepCache(method="first_block")))
    with pytest.raises(ConfigError, match="StableDiffusionPipeline takes no true_cfg_scale"):
        sampled(generator("sd15", true_cfg=2.0))
    with pytest.raises(ConfigError, match="StableDiffusionPipeline has no choice of attention"):
        sampled(generator("sd15", attention="_native_math"))
    with pytest.raises(ConfigError, match="attention = 'flash' cannot be used here"):
        sampled(generator("flux", attention="flash"))


def test_an_attention_backend_is_one_generators_and_not_the_processes(generator):
    plain = sampled(generator("flux"))[0]
    exact = generator("flux", attention="_native_math").open("cpu", NOWHERE)
    assert np.abs(exact.sample(REQUESTS[:1])[0].astype(int) - plain).max() <= 1
    backends = {
        module.processor._attention_backend.value
        for module in exact.pipeline.transformer.modules()
        if getattr(getattr(module, "processor", None), "_attention_backend", None)
    }
    assert backends == {"_native_math"}
    assert np.array_equal(sampled(generator("flux"))[0], plain)


def write_lora(pipeline, folder, *, rank=2):
    part = pipeline.transformer
    part.add_adapter(LoraConfig(r=rank, target_modules=["to_q", "to_v"], init_lora_weights=False))
    type(pipeline).save_lora_weights(str(folder), transformer_lora_layers=get_peft_model_state_dict(part))


@pytest.mark.parametrize("base", ["sd15", "flux", "wan"])
def test_a_lora_of_another_base_is_refused(generator, pipeline, tmp_path, base):
    write_lora(pipeline("sd3"), tmp_path)
    with pytest.raises(ConfigError, match="holds no LoRA of .*; give one that was trained on this base"):
        sampled(generator(base, lora=Folder(path=str(tmp_path))))


def test_a_lora_for_layers_of_another_width_is_refused(generator, pipeline, tmp_path):
    from safetensors.torch import load_file, save_file

    write_lora(pipeline("sd3"), tmp_path)
    [file] = tmp_path.glob("*.safetensors")
    save_file({name: torch.cat([value] * 2, dim=-1) for name, value in load_file(file).items()}, file)
    with pytest.raises(ConfigError, match="holds no LoRA of StableDiffusion3Pipeline"):
        sampled(generator("sd3", lora=Folder(path=str(tmp_path))))


def test_pickled_weights_are_refused(generator, tiny, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny("sd15"), folder)
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ConfigError, match="unpickling runs code"):
        sampled(generator("sd15", weights=Folder(path=str(folder))))


def test_an_unknown_pipeline_is_refused_when_it_is_declared(generator, tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipelin"}))
    with pytest.raises(
        ConfigError, match="names the pipeline 'FluxPipelin', which diffusers .* did you mean 'FluxPipeline'"
    ):
        generator("flux", weights=Folder(path=str(tmp_path)))


def test_what_changes_no_picture_is_no_identity(generator):
    assert key_of(generator("sd15")) == key_of(generator("sd15", offload="model"))
    changed = [{}, {"batch": 2}, {"compiled": True}, {"attention": "flex"}, {"scheduler": Scheduler()}, {"true_cfg": 2.0}]
    assert len({key_of(generator("sd15", **options)) for options in changed}) == len(changed)


def test_a_clip_begins_with_the_picture_it_is_given_alone_or_among_others(generator, pipeline):
    from PIL import Image

    first = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    given = Request(PROMPTS[0], 7, first_frame=encode_png(first).bytes)
    other = Request(PROMPTS[1], 8, first_frame=encode_png(255 - first).bytes)
    bad = Request(PROMPTS[1], 8, first_frame=b"no picture")
    found = sampled(generator("wan-i2v", batch=2), [other, bad, given])
    wanted = own_call(pipeline("wan-i2v"), given, num_frames=5, image=Image.fromarray(first))
    assert np.array_equal(found[2], wanted)
    assert isinstance(found[1], ValueError) and "first frame does not decode" in str(found[1])


@pytest.mark.parametrize("family", ["sd15", "flux", "wan"])
def test_the_repeated_blocks_are_compiled_where_the_model_names_them(generator, family):
    """Set up only: the first call compiles, which takes a minute and a half on a CPU."""
    pipeline = generator(family, compiled=True).open("cpu", NOWHERE).pipeline
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    compiled = {type(part).__name__ for part in denoiser.modules() if part._compiled_call_impl is not None}
    assert compiled and compiled <= set(denoiser._repeated_blocks)
