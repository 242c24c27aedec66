"""A reward chooses or guides the samples of any family's generator; without one the family's sampler is as it was."""

import numpy as np
import pytest
import torch

from infra.config import ConfigError
from infra.identity import key_of
from infra.store.files import Folder
from pipelines.algorithms.diffusion.stochastic import DDIM
from pipelines.miniature.generators import MiniatureGenerator
from pipelines.models.exact import trained_names
from pipelines.models.families.steps import SamplingSteps
from pipelines.models.generators.generator import Request
from pipelines.models.generators.steered import BestOfN, FlowNRG, Steered, StepwiseSampling
from pipelines.models.rewards.drm import DRM
from pipelines.models.rewards.task_tokens import TaskTokenReward
from pipelines.models.rewards.trained import TrainedLatentReward
from pipelines.models.rollout import Candidates
from support.tiny import family_at, write_tiny
from tests.support.places import NOWHERE

REQUESTS = [Request("a red circle", 3), Request("two blue squares", 4), Request("a green star", 5)]
STEERINGS = {
    "none": None,
    "best of n": BestOfN(count=3),
    "step-wise": StepwiseSampling(candidates=3),
    "guided": FlowNRG(scale=5.0),
}


def written(root, name, model):
    """A tiny generator, and a reward model of random weights on it."""
    family = family_at(name, write_tiny(name, root / name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = model.build(family, device="cpu")
    names = set(trained_names(network))
    model.save({key: value for key, value in network.named_parameters() if key in names}, root / "reward", backbone=family)
    return family, TrainedLatentReward(weights=Folder(path=str(root / "reward")), model=model, backbone=family)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    return written(tmp_path_factory.mktemp("steered"), "miniature", TaskTokenReward())


def steered(made, steering, **changed):
    family, reward = made
    needs = steering is not None and steering.asks
    given = {"steps": 4, "guidance": 1.0, "height": 24, "width": 24, "dtype": "float32", "batch": 4}
    given |= {"reward": reward if needs else None, "steering": steering} | changed
    return Steered(name="steered", family=family, **given)


def test_without_steering_it_is_the_generator_itself_to_the_byte(miniature):
    family, _ = miniature
    plain = MiniatureGenerator(name="plain", weights=family.weights, steps=4).open("cpu", NOWHERE).sample(REQUESTS)
    ours = steered(miniature, None, batch=32).open("cpu", NOWHERE).sample(REQUESTS)
    assert [picture.shape for picture in ours] == [(1, 24, 24, 3)] * 3
    for one, other in zip(plain, ours, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("kind", STEERINGS)
def test_a_picture_depends_on_its_own_request_alone(miniature, kind):
    opened = steered(miniature, STEERINGS[kind]).open("cpu", NOWHERE)
    together = opened.sample(REQUESTS)
    assert np.array_equal(opened.sample([REQUESTS[2]])[0], together[2])
    refused = opened.sample([REQUESTS[0], Request("a red circle", 3, first_frame=b"png"), REQUESTS[1]])
    assert isinstance(refused[1], ValueError)
    assert np.array_equal(refused[2], together[1])


def scores_of(made, pictures):
    """The reward of finished pictures."""
    opened = steered(made, BestOfN(count=1)).open("cpu", NOWHERE)
    conditions = opened.loaded.encode_texts([request.prompt for request in REQUESTS])
    given = {"negative": None, "shape": (3, 24, 24), "steps": 4, "guidance": 1.0}
    grid = SamplingSteps(opened.loaded, opened.loaded.model, conditions, **given)
    x = opened.loaded.encode_pixels(np.stack(pictures))
    with torch.no_grad():
        return opened.reward.on(grid)(Candidates(x=x, t=torch.zeros(3), target=None, prompts=torch.arange(3)))


def test_the_best_of_n_has_the_highest_reward_of_its_samples(miniature):
    plain = scores_of(miniature, steered(miniature, None).open("cpu", NOWHERE).sample(REQUESTS))
    best = scores_of(miniature, steered(miniature, BestOfN(count=6)).open("cpu", NOWHERE).sample(REQUESTS))
    assert (best >= plain - 1e-3).all()
    assert (best > plain + 1e-3).any()


def test_guidance_of_weight_0_changes_no_byte_and_guidance_moves_towards_the_reward(miniature):
    plain = steered(miniature, None).open("cpu", NOWHERE).sample(REQUESTS)
    still = steered(miniature, FlowNRG(scale=0.0)).open("cpu", NOWHERE).sample(REQUESTS)
    assert all(np.array_equal(one, other) for one, other in zip(plain, still, strict=True))
    guided = steered(miniature, FlowNRG(scale=20.0)).open("cpu", NOWHERE).sample(REQUESTS)
    assert (scores_of(miniature, guided) > scores_of(miniature, plain)).all()


def test_a_table_of_noise_levels_is_searched_by_ddim_and_not_guided(tmp_path):
    made = written(tmp_path, "sd15", DRM(dropped=1, channels=(64,)))
    given = {"height": 32, "width": 32, "batch": 1, "guidance": 3.0}
    opened = steered(made, StepwiseSampling(candidates=2, step=DDIM()), **given).open("cpu", NOWHERE)
    [picture] = opened.sample(REQUESTS[:1])
    assert picture.shape == (1, 32, 32, 3)
    for steering, message in ((FlowNRG(), "for flows"), (StepwiseSampling(), "give step-wise sampling DDIM")):
        with pytest.raises(ConfigError, match=message):
            steered(made, steering, **given).open("cpu", NOWHERE)


def test_the_reward_is_part_of_the_identity(miniature, tmp_path):
    family, reward = miniature
    other = reward.model_copy(update={"target": "generator"})
    keys = {
        key_of(steered(miniature, None)),
        key_of(steered(miniature, BestOfN(count=3))),
        key_of(steered(miniature, BestOfN(count=4))),
        key_of(steered((family, other), BestOfN(count=3))),
    }
    assert len(keys) == 4


def test_what_cannot_be_steered_is_refused(miniature, tmp_path):
    family, reward = miniature
    with pytest.raises(ConfigError, match="give reward and steering together"):
        steered(miniature, BestOfN(), reward=None)
    with pytest.raises(ConfigError, match="give reward and steering together"):
        steered(miniature, None, reward=reward)
    with pytest.raises(ConfigError, match="no multiple of 24"):
        steered(miniature, None, height=32)
    with pytest.raises(ConfigError, match="cannot read latents of a sd3 generator"):
        steered((family_at("sd3", write_tiny("sd3", tmp_path / "sd3")), reward), BestOfN(), height=32, width=32)
    with pytest.raises(ConfigError, match="no dimension 'motion'"):
        TrainedLatentReward(weights=reward.weights, model=reward.model, backbone=family, dimension_weights={"motion": 1.0})
