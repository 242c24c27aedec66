"""A base in four bits: its bytes are those of diffusers' own loader, and a LoRA learns on it and leaves it alone."""

import diffusers
import pytest
import torch
from diffusers.quantizers.bitsandbytes import BnB4BitDiffusersQuantizer
from safetensors.torch import load_file

from infra.config import ConfigError
from pipelines.models import quantised
from pipelines.models.adapter import LORA_FILE, Full, LoRA
from pipelines.models.families.base import read_index
from pipelines.models.quantised import BLOCK, NF4_BYTES, SCALES, quantise, require_frozen, require_quantiser
from support.policies import SMALL, Question, answer, apart, bare, loss, move, near, policy, predicted
from support.tiny import write_tiny


def test_all_weights_of_a_quantised_base_cannot_be_trained():
    require_frozen("nf4", LoRA())
    require_frozen("unquantised", Full())
    with pytest.raises(ConfigError, match="base precision nf4: .*train a LoRA"):
        require_frozen("nf4", Full())


def test_a_missing_quantiser_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(quantised, "PACKAGE", "a-package-that-nobody-has")
    require_quantiser("unquantised")
    with pytest.raises(ConfigError, match=r"nf4 needs bitsandbytes, which is not installed: pip install \"salon\[nf4\]\""):
        require_quantiser("nf4")


@pytest.fixture(scope="module")
def bnb():
    return pytest.importorskip("bitsandbytes", reason="the extra nf4 is not installed")


FAMILIES = ("sd15", "sd3", "wan")
"""A U-Net with convolutions, a transformer, and one that keeps some of its weights in float32."""


@pytest.fixture(scope="module")
def bases(bnb, tmp_path_factory):
    root = tmp_path_factory.mktemp("bases")
    return {family: write_tiny(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def questions(bases):
    return {family: Question(folder, family) for family, folder in bases.items()}


def bytes_of(model, kind) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Packed levels and scales of every quantised layer, by its name."""
    layers = {name: layer.weight for name, layer in model.named_modules() if isinstance(layer, kind)}
    return {name: (weight.data, weight.quant_state.absmax) for name, weight in layers.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_and_bytes_are_those_of_diffusers_own_loader(bnb, bases, family, monkeypatch):
    # Nothing but this check keeps the loader from working on a CPU.
    monkeypatch.setattr(BnB4BitDiffusersQuantizer, "validate_environment", lambda *given, **named: None)
    own = policy(bases[family], family, adapter=None, reference="none", base_precision="nf4", dtype=torch.bfloat16)
    part = own.family.part
    config = diffusers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    kind = getattr(diffusers, read_index(bases[family])[part][1])
    given = {"subfolder": part, "quantization_config": config, "torch_dtype": torch.bfloat16, "device_map": {"": "cpu"}}
    theirs = bytes_of(kind.from_pretrained(bases[family], **given), bnb.nn.Linear4bit)
    ours = bytes_of(own.model, bnb.nn.Linear4bit)
    assert theirs.keys() == ours.keys() and len(ours) > 10
    for name, tensors in ours.items():
        for mine, other in zip(tensors, theirs[name], strict=True):
            assert torch.equal(mine, other), name


def test_a_weight_takes_the_bytes_that_plan_reckons_with(bnb):
    layer = torch.nn.Sequential(torch.nn.Linear(4 * SCALES, 2 * BLOCK, bias=False))
    layer._keep_in_fp32_modules = None
    quantise(layer, device="cpu", dtype=torch.float32)
    state = layer[0].weight.quant_state
    found = sum(each.nbytes for each in (layer[0].weight, state.absmax, state.state2.absmax))
    assert found == NF4_BYTES * 4 * SCALES * 2 * BLOCK


@pytest.mark.parametrize("reference", ["adapter", "copy"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_on_a_quantised_base_learns_and_leaves_the_base_alone(bnb, bases, questions, family, reference, tmp_path):
    own, question = policy(bases[family], family, base_precision="nf4", reference=reference), questions[family]
    base = {name: levels.clone() for name, (levels, _) in bytes_of(own.model, bnb.nn.Linear4bit).items()}
    before = predicted(own, question, reference=True)
    near(predicted(own, question), before)
    unquantised = answer(bare(bases[family], family), question)
    assert 0.01 < (before - unquantised).norm() / unquantised.norm() < 0.3  # four bits round, and no more than that
    first = loss(own, question).item()
    parameters = move(own, question, rate=0.5)
    assert loss(own, question).item() < first
    near(predicted(own, question, reference=True), before)
    for name, (levels, _) in bytes_of(own.model, bnb.nn.Linear4bit).items():
        assert torch.equal(levels, base[name])
    own.export(parameters, tmp_path / "lora", comfyui=False)
    stored = load_file(tmp_path / "lora" / LORA_FILE)
    named = {f"{own.family.part}.{name.replace('.default.', '.')}": value for name, value in parameters.items()}
    assert stored.keys() == named.keys() and all(torch.equal(stored[name], named[name]) for name in named)
    assert apart(answer(bare(bases[family], family, lora=tmp_path / "lora"), question), unquantised)
    assert SMALL.rank == next(value for name, value in stored.items() if "lora_A" in name).shape[0]
