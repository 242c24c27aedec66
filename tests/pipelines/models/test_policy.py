"""What is trained, what the reference is, what an earlier run left, and what comes back from disk, for every family."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from actors.training.engines.engine import EngineOptions
from infra.config import ConfigError
from pipelines.models.adapter import LORA_FILE, Full, LoRA, Start
from support.policies import (
    SMALL,
    Question,
    answer,
    apart,
    bare,
    loss,
    move,
    near,
    policy,
    predicted,
    seeded,
    trained,
)
from support.tiny import FAMILIES, write_tiny


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {family: write_tiny(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def questions(bases) -> dict[str, Question]:
    return {family: Question(folder, family) for family, folder in bases.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("adapter", "reference"), [(SMALL, "adapter"), (SMALL, "copy"), (Full(), "copy")])
def test_policy_and_reference_agree_at_first_and_part_when_the_policy_learns(bases, questions, family, adapter, reference):
    own = policy(bases[family], family, adapter=adapter, reference=reference)
    question = questions[family]
    before = predicted(own, question, reference=True)
    near(predicted(own, question), before)
    near(before, answer(bare(bases[family], family), question))
    first = loss(own, question).item()
    move(own, question, rate=0.5)
    assert loss(own, question).item() < first
    near(predicted(own, question, reference=True), before)
    assert apart(predicted(own, question), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_lora_gives_the_trained_policys_output_in_diffusers(bases, questions, family, tmp_path):
    own = policy(bases[family], family)
    parameters = move(own, questions[family])
    expected = predicted(own, questions[family])
    with torch.no_grad():
        for parameter in trained(own).values():
            parameter.zero_()  # as under ZeRO 3: what is exported is the argument, not what this rank holds
    own.export(parameters, tmp_path, comfyui=False)
    assert [path.name for path in tmp_path.iterdir()] == [LORA_FILE]
    loaded = bare(bases[family], family, lora=tmp_path)
    near(answer(loaded, questions[family]), expected)
    weights = dict(loaded.model.named_parameters())
    assert all(torch.equal(weights[name.replace(".default.", ".default_0.")], value) for name, value in parameters.items())
    assert apart(expected, answer(bare(bases[family], family), questions[family]))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_pipeline_is_the_base_with_the_trained_denoiser(bases, questions, family, tmp_path):
    own = policy(bases[family], family, adapter=Full(), reference="none")
    parameters = move(own, questions[family])
    expected = predicted(own, questions[family])
    with torch.no_grad():
        for parameter in trained(own).values():
            parameter.zero_()
    own.export(parameters, tmp_path / "out", comfyui=True)
    near(answer(bare(tmp_path / "out", family), questions[family]), expected)
    for path in bases[family].rglob("*"):
        name = path.relative_to(bases[family])
        if path.is_file() and name.parts[0] != own.family.part:
            assert path.read_bytes() == (tmp_path / "out" / name).read_bytes(), name


def test_rank_and_alpha_are_in_the_file_and_targets_in_a_fixed_order(bases, questions, tmp_path):
    own = policy(bases["sd3"], "sd3", adapter=LoRA(rank=4, alpha=12, dropout=0.5))
    own.export(move(own, questions["sd3"]), tmp_path, comfyui=False)
    with safe_open(tmp_path / LORA_FILE, framework="pt") as file:
        stored = json.loads(file.metadata()["lora_adapter_metadata"])
    assert (stored["transformer.r"], stored["transformer.lora_alpha"]) == (4, 12)
    assert stored["transformer.lora_dropout"] == 0
    assert stored["transformer.target_modules"] == sorted(own.family.lora_targets)


@pytest.mark.parametrize("reference", ["adapter", "copy"])
@pytest.mark.parametrize("family", ["sd15", "flux", "miniature"])
def test_a_lora_goes_on_from_a_lora_and_one_adapter_says_both(bases, questions, family, reference, tmp_path):
    question = questions[family]
    first = policy(bases[family], family)
    first.export(move(first, question), tmp_path / "first", comfyui=False)
    left = predicted(first, question)
    second = policy(bases[family], family, start=Start(tmp_path / "first", SMALL), reference=reference)
    near(predicted(second, question), left)
    near(predicted(second, question, reference=True), left)
    parameters = move(second, question)
    assert parameters.keys() == {name for name, _ in first.model.named_parameters() if ".default." in name}
    near(predicted(second, question, reference=True), left)
    second.export(parameters, tmp_path / "second", comfyui=False)
    expected = predicted(second, question)
    assert apart(expected, left)
    reloaded = answer(bare(bases[family], family, lora=tmp_path / "second"), question)
    near(reloaded, expected)


@pytest.mark.parametrize("family", ["sdxl", "wan"])
def test_full_training_goes_on_from_a_lora_merged_into_its_base(bases, questions, family, tmp_path):
    question = questions[family]
    first = policy(bases[family], family)
    first.export(move(first, question), tmp_path / "first", comfyui=False)
    left = predicted(first, question)
    second = policy(bases[family], family, adapter=Full(), start=Start(tmp_path / "first", SMALL), reference="copy")
    torch.testing.assert_close(predicted(second, question), left, rtol=1e-4, atol=1e-4)
    near(predicted(second, question, reference=True), predicted(second, question))
    second.export(move(second, question), tmp_path / "second", comfyui=False)
    expected = predicted(second, question)
    near(answer(bare(tmp_path / "second", family), question), expected)


@pytest.mark.parametrize(("adapter", "reference"), [(SMALL, "adapter"), (Full(), "copy")])
def test_any_training_goes_on_from_a_whole_pipeline_in_its_place(bases, questions, adapter, reference, tmp_path):
    question = questions["sd3"]
    first = policy(bases["sd3"], "sd3", adapter=Full(), reference="none")
    first.export(move(first, question), tmp_path / "first", comfyui=False)
    start = Start(tmp_path / "first", Full())
    second = policy(bases["sd3"], "sd3", adapter=adapter, start=start, reference=reference)
    near(predicted(second, question), predicted(first, question))
    near(predicted(second, question, reference=True), predicted(first, question))
    assert second.family.folder == tmp_path / "first"


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (LoRA(rank=8, alpha=12), r"adapter\.rank = 8 but the start's LoRA has 4"),
        (LoRA(rank=4, alpha=4), r"adapter\.alpha = 4\.0 but the start's LoRA has 12\.0"),
        (LoRA(rank=4, alpha=12, targets=("to_q",)), r"adapter\.targets = \['to_q'\] but"),
    ],
)
def test_a_lora_of_other_settings_is_refused_and_the_field_named(bases, questions, other, named, tmp_path):
    first = policy(bases["sd15"], "sd15")
    first.export(move(first, questions["sd15"]), tmp_path, comfyui=False)
    with pytest.raises(ConfigError, match=named):
        policy(bases["sd15"], "sd15", adapter=other, start=Start(tmp_path, SMALL))
    with pytest.raises(ConfigError, match="one of them is of another run"):
        policy(bases["sd15"], "sd15", start=Start(tmp_path, LoRA(rank=4, alpha=4)))


def test_the_familys_own_targets_given_by_name_are_the_same_settings(bases, questions, tmp_path):
    first = policy(bases["sd15"], "sd15")
    first.export(move(first, questions["sd15"]), tmp_path, comfyui=False)
    named = LoRA(rank=4, alpha=12, targets=("to_out.0", "to_v", "to_k", "to_q"))
    assert trained(policy(bases["sd15"], "sd15", adapter=named, start=Start(tmp_path, SMALL)))


def test_a_start_without_an_adapter_is_refused(bases, tmp_path):
    with pytest.raises(ConfigError, match=f"has no {LORA_FILE}"):
        policy(bases["sd15"], "sd15", start=Start(tmp_path, SMALL))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_target_that_matches_nothing_is_refused_even_beside_one_that_does(bases, family):
    with pytest.raises(ConfigError, match=r"'to_quarry' matches no layer of .*to_q"):
        policy(bases[family], family, adapter=LoRA(rank=2, targets=("to_q", "to_quarry")))


def test_only_the_targets_are_trained(bases):
    own = policy(bases["sd15"], "sd15", adapter=LoRA(rank=2, targets=("attn2.to_q", "ff.net.2")))
    assert all("attn2.to_q.lora_" in name or "ff.net.2.lora_" in name for name in trained(own))
    assert len({name.rsplit(".lora_", 1)[0][-6:] for name in trained(own)}) == 2


def test_full_training_cannot_switch_itself_off(bases):
    with pytest.raises(ConfigError, match="use 'copy'"):
        policy(bases["sd15"], "sd15", adapter=Full(), reference="adapter")


def test_a_policy_without_a_reference_says_so(bases, questions):
    with pytest.raises(ValueError, match="keeps no reference"):
        predicted(policy(bases["sd15"], "sd15", reference="none"), questions["sd15"], reference=True)


@pytest.mark.parametrize("started", [False, True])
def test_asking_the_reference_leaves_what_is_trained(bases, questions, started, tmp_path):
    own = policy(bases["sd3"], "sd3")
    own.export(move(own, questions["sd3"]), tmp_path, comfyui=False)
    own = policy(bases["sd3"], "sd3", start=Start(tmp_path, SMALL) if started else None)
    before = set(trained(own))
    answered = predicted(own, questions["sd3"], reference=True)
    assert set(trained(own)) == before
    assert not answered.requires_grad


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapter", [SMALL, Full()])
def test_checkpointing_changes_no_gradient_though_the_reference_is_asked_between(bases, questions, family, adapter):
    reference = "adapter" if isinstance(adapter, LoRA) else "copy"
    found = []
    for checkpointing in (False, True):
        own = policy(bases[family], family, adapter=adapter, reference=reference, checkpointing=checkpointing)
        if isinstance(adapter, LoRA):
            with torch.no_grad():
                for number, parameter in enumerate(trained(own).values()):
                    parameter.copy_(torch.randn(parameter.shape, generator=seeded(number)) / 10)
        value = loss(own, questions[family])
        predicted(own, questions[family], reference=True)
        value.backward()
        found.append({name: p.grad for name, p in trained(own).items() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lora_is_float32_on_a_bfloat16_model(bases, questions, family, tmp_path):
    first = policy(bases[family], family)
    first.export(move(first, questions[family]), tmp_path, comfyui=False)
    for start in (None, Start(tmp_path, SMALL)):
        own = policy(bases[family], family, start=start, dtype=torch.bfloat16)
        assert {p.dtype for name, p in own.model.named_parameters() if ".lora_" in name} == {torch.float32}
        loss(own, questions[family]).backward()
        assert all(p.grad.isfinite().all() for p in trained(own).values() if p.grad is not None)
        torch.testing.assert_close(predicted(own, questions[family]), predicted(own, questions[family], reference=True))


def test_a_copy_follows_the_dtype_an_engine_gave_the_model(bases, questions):
    own = policy(bases["sd3"], "sd3", adapter=Full(), reference="copy")
    own.model.bfloat16()
    answered = predicted(own, questions["sd3"], reference=True)
    near(answered, predicted(own, questions["sd3"]))


@pytest.mark.parametrize("adapter", [SMALL, Full()])
def test_a_copy_computes_under_the_policys_autocast(bases, questions, adapter):
    engine, device = EngineOptions(kind="torch", bf16=True), torch.device("cpu")
    given = {"adapter": adapter, "reference": "copy", "cast": engine.cast(device)}
    own, question = policy(bases["sd3"], "sd3", **given), questions["sd3"]
    cast = engine.cast(device)(own.model)
    answered = own.reference_predict(cast, question.sample, condition=question.condition)
    near(answered, own.predict(cast, question.sample, condition=question.condition).detach())
    assert apart(answered.float(), predicted(own, question))


def test_dropout_drops_while_training_and_never_in_the_reference(bases, questions):
    own = policy(bases["sd3"], "sd3", adapter=LoRA(rank=4, alpha=12, dropout=0.5))
    move(own, questions["sd3"])
    assert loss(own, questions["sd3"]).item() != loss(own, questions["sd3"]).item()
    near(predicted(own, questions["sd3"]), predicted(own, questions["sd3"]))
    first, second = (predicted(own, questions["sd3"], reference=True) for _ in range(2))
    near(first, second)


def test_another_family_is_refused(bases):
    with pytest.raises(ConfigError, match="expected a StableDiffusionXLPipeline"):
        policy(bases["sd15"], "sdxl")


def test_a_parameter_the_model_lacks_is_no_export(bases, questions, tmp_path):
    own = policy(bases["sd15"], "sd15", adapter=Full(), reference="none")
    with pytest.raises(ValueError, match="'strange'"):
        own.export({"strange": torch.zeros(1)}, tmp_path, comfyui=False)


def test_an_export_that_lacks_a_parameter_is_refused_and_not_filled_with_the_base(bases, questions, tmp_path):
    own = policy(bases["sd15"], "sd15", adapter=Full(), reference="none")
    parameters = {name: value.detach() for name, value in own.model.named_parameters()}
    lacking = dict(list(parameters.items())[1:])
    with pytest.raises(ConfigError, match="the trained policy lacks"):
        own.export(lacking, tmp_path / "export", comfyui=False)
