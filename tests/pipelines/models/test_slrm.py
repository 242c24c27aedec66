"""SLRM: what it is at its first step, what it learns, what it depends on, and what is refused."""

import pytest
import torch

from infra.config import ConfigError
from pipelines.algorithms.reward.enhanced import Enhancement
from pipelines.models.adapter import LoRA
from pipelines.models.families.loaded import DenoiserCall, stack
from pipelines.models.rewards.slrm import SLRM
from pipelines.models.rewards.task_tokens import TaskTokenReward
from support.tiny import family_at, write_tiny
from support.training import TEXTS, shape_of

PLAIN = SLRM(enhancement=None)
PLACES = ("sd3", "miniature", "flux", "qwen-image", "wan")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    return {name: write_tiny(name, root / name) for name in (*PLACES, "sd15")}


class Case:
    """A tiny generator with two noised latents and their texts, of different lengths where that is possible."""

    def __init__(self, name, folder, *, model, condition=None):
        self.family = family_at(name, folder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = model.build(self.family, device="cpu")
            frames, height, width = shape_of(name)
            shape = self.family.latent_shape(frames=frames, height=height, width=width)
            self.x, self.target = torch.randn(2, *shape), torch.randn(2, *shape)
        self.t = torch.tensor([0.3, 0.7])
        self.condition = condition

    def scores(self, network=None, **changes):
        given = {"t": self.t, "condition": self.condition, "target": self.target} | changes
        return (network or self.network)(given.pop("x", self.x), **given)


@pytest.fixture(scope="module")
def conditions(folders):
    found = {}
    for name in PLACES:
        coder = family_at(name, folders[name]).load(parts="encoders", device="cpu", dtype=torch.float32)
        found[name] = stack(coder.encode_texts(TEXTS))
    return found


@pytest.fixture
def case(folders, conditions):
    return lambda name, model=PLAIN: Case(name, folders[name], model=model, condition=conditions[name])


@pytest.mark.parametrize("name", ["sd3", "miniature"])
def test_with_copied_projections_it_is_the_task_token_model_at_step_0(case, name):
    ours = case(name)
    other = TaskTokenReward(task_tokens=1).build(ours.family, device="cpu")
    state = ours.network.state_dict()
    own = {key.replace("heads.0.", "head."): value for key, value in state.items() if not key.startswith("projections.")}
    other.load_state_dict(own)
    torch.testing.assert_close(ours.scores(), ours.scores(other), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PLACES)
def test_copied_projections_are_the_shared_ones_until_they_change(case, name):
    own, shared = case(name), case(name, SLRM(enhancement=None, projections="shared"))
    shared.network.load_state_dict({k: v for k, v in own.network.state_dict().items() if not k.startswith("projections.")})
    torch.testing.assert_close(own.scores(), own.scores(shared.network), rtol=0, atol=1e-5)
    with torch.no_grad():
        own.network.projections[0]["v"].own.weight.mul_(2)
    assert not torch.allclose(own.scores(), own.scores(shared.network), atol=1e-5)


@pytest.mark.parametrize("name", PLACES)
def test_it_is_differentiable_in_the_latent_and_every_part_of_its_own_learns(case, name):
    tested = case(name, SLRM(enhancement=Enhancement(scale="absolute")))
    x = tested.x.clone().requires_grad_(True)
    tested.scores(x=x).sum().backward()
    assert x.grad.abs().flatten(1).amax(1).min() > 0
    ours = {key: value for key, value in tested.network.named_parameters() if not key.startswith("transformer.")}
    unread = {f"projections.{len(tested.network.projections) - 1}.q." if name in ("sd3", "miniature") else "none"}
    for key, value in ours.items():
        if not key.startswith(tuple(unread)):
            assert value.grad is not None, key


@pytest.mark.parametrize("name", PLACES)
def test_the_gradient_is_one_step_of_finite_differences(case, name):
    tested = case(name, SLRM(enhancement=Enhancement(scale="absolute")))
    tested.network.double()
    tested.condition = {
        key: value.double() if value.is_floating_point() else value for key, value in tested.condition.items()
    }
    x, direction = tested.x.double(), torch.randn(tested.x.shape, generator=torch.Generator().manual_seed(3))
    asked = {"t": tested.t.double(), "target": tested.target.double()}
    leaf = x.clone().requires_grad_(True)
    slope = torch.autograd.grad(tested.scores(x=leaf, **asked).sum(), leaf)[0].mul(direction).sum().item()
    step = 1e-2
    up, down = (tested.scores(x=x + sign * step * direction, **asked).double().sum().item() for sign in (1, -1))
    assert slope == pytest.approx((up - down) / (2 * step), rel=2e-2, abs=2e-3)


@pytest.mark.parametrize("name", PLACES)
def test_the_task_tokens_are_no_part_of_the_untouched_prediction(case, name):
    tested = case(name, SLRM(enhancement=Enhancement(scale="absolute")))
    place = tested.network.place
    plain = tested.family.load(parts="denoiser", device="cpu", dtype=torch.float32)
    call = DenoiserCall(tested.x, plain.path.timesteps(tested.t), tested.condition)
    expected = plain.denoise(plain.model, call)
    place.active = False
    torch.testing.assert_close(tested.network._predict(tested.x, tested.t, tested.condition), expected, rtol=0, atol=1e-6)
    place.active = True
    assert tested.network._predict(tested.x, tested.t, tested.condition).shape == expected.shape


@pytest.mark.parametrize("name", PLACES)
def test_checkpointing_changes_neither_scores_nor_gradients(case, name):
    found = []
    for checkpointing in (False, True):
        tested = case(name, SLRM(enhancement=Enhancement(scale="absolute")))
        tested.network.train()
        if checkpointing:
            tested.network.generator.checkpointing()
        scores = tested.scores()
        scores.sum().backward()
        found.append((scores.detach(), tested.network.task_tokens.grad, tested.network.projections[0]["k"].own.weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PLACES)
def test_a_score_does_not_depend_on_its_neighbours_text(case, conditions, name):
    tested = case(name)
    together = tested.scores()
    for place in (0, 1):
        mask = tested.condition.get("mask")
        length = int(mask[place].sum()) if mask is not None else None
        alone = {key: value[place : place + 1] for key, value in tested.condition.items() if key != "mask"}
        if length is not None:
            alone["tokens"] = alone["tokens"][:, :length]
        given = {"x": tested.x[place : place + 1], "t": tested.t[place : place + 1], "condition": alone}
        torch.testing.assert_close(tested.scores(**given), together[place : place + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PLACES)
def test_without_task_tokens_the_score_is_a_similarity(case, name):
    tested = case(name, SLRM(readout="similarity", enhancement=None))
    scores = tested.scores()
    assert scores.abs().max() <= torch.e
    assert not hasattr(tested.network, "task_tokens")


def test_the_error_lowers_the_score_as_the_formula_says(case):
    plain, enhanced = case("sd3", SLRM(enhancement=None)), case("sd3", SLRM(enhancement=Enhancement(scale="absolute")))
    far = enhanced.scores(target=enhanced.target + 5)
    prediction = enhanced.network._predict(enhanced.x, enhanced.t, enhanced.condition)
    near = enhanced.scores(target=prediction)
    error = (prediction - enhanced.target - 5).square().flatten(1).mean(1)
    torch.testing.assert_close((near - far)[:, 0], Enhancement().rho * error, rtol=1e-4, atol=1e-5)
    assert plain.network.reads_target is False
    with pytest.raises(ConfigError, match="give a target"):
        enhanced.scores(target=None)


def test_dimensions_have_their_own_tokens_and_a_score_each(case):
    tested = case("wan", SLRM(dimensions=("quality", "motion", "text"), enhancement=None))
    assert tested.scores().shape == (2, 3)
    assert len(tested.network.task_tokens) == 3


def test_low_rank_additions_are_all_that_is_trained_of_the_generator(case):
    tested = case("sd3", SLRM(enhancement=None, adapter=LoRA(rank=2)))
    names = {key for key, value in tested.network.named_parameters() if value.requires_grad}
    assert all(".lora_" in key for key in names if key.startswith("transformer."))
    assert any(".lora_" in key for key in names)
    with pytest.raises(ConfigError, match="low-rank additions to random weights"):
        SLRM(adapter=LoRA(), backbone="random")


def test_random_weights_are_the_same_on_every_rank_and_not_the_generators(case):
    one, other, usual = (case("sd3", SLRM(backbone=name, enhancement=None)) for name in ("random", "random", "generator"))
    key = "transformer.context_embedder.weight"
    assert torch.equal(one.network.state_dict()[key], other.network.state_dict()[key])
    assert not torch.equal(one.network.state_dict()[key], usual.network.state_dict()[key])


def test_generators_without_a_place_are_refused_with_a_remedy(folders):
    with pytest.raises(ConfigError, match="choose SD3"):
        SLRM().refuse(family_at("sd15", folders["sd15"]))
