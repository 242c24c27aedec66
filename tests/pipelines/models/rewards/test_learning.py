"""Every kind of latent reward model learns an order by the trainer, whether activations are kept or computed again."""

import pytest
import torch

from actors.training.engines.engine import EngineOptions
from actors.training.launch import here
from actors.training.options import TrainerOptions
from actors.training.trainer import Training, train
from pipelines.algorithms.diffusion.flow import UniformTimes
from pipelines.algorithms.reward.accuracy import GRID
from pipelines.algorithms.reward.bradley_terry import BradleyTerry
from pipelines.models.rewards.drm import DRM
from pipelines.models.rewards.early import EarlyLayers
from pipelines.models.rewards.lrm import LRM
from pipelines.models.rewards.pixels import PixelReward
from pipelines.training.held_out import HeldOutPairs
from pipelines.training.noise import NoiseDraws
from pipelines.training.reward import RewardObjective, scores_by_time
from support.tiny import family_at, write_tiny
from support.training import data_of, write_world

MODELS = {
    "drm": DRM(dropped=1, channels=(64,)),
    "early": EarlyLayers(blocks=1),
    "lrm": LRM(width=16, guidance=1),
    "pixels": PixelReward(channels=(64,)),
}
OPTIONS = TrainerOptions(steps=15, batch=8, learning_rate=2e-3, engine=EngineOptions(kind="torch"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Pairs in which the darker picture wins."""
    root = tmp_path_factory.mktemp("world")
    write_world(root, pairs=12, darker=True)
    return root


@pytest.mark.parametrize("name", MODELS)
def test_it_learns_that_the_darker_picture_wins(world, tmp_path, name):
    model, policy, data = MODELS[name], family_at("miniature", world / "policy"), data_of(world)
    noise = NoiseDraws(UniformTimes(), draws=None)
    objective = RewardObjective(model, policy, data, BradleyTerry(), noise, described={})
    checkpoint = here(train, Training(objective, OPTIONS), folder=tmp_path, on_report=None)
    network = model.loaded(checkpoint / "export", backbone=policy, device="cpu")
    pairs = data.open()
    held = HeldOutPairs.of(scores_by_time(network, pairs, dimensions=("overall",)), pairs, dimension="overall")
    found = {row.t: row.accuracy for row in held.at_times()}
    assert tuple(found) == GRID
    assert min(found[t] for t in GRID[:4]) >= 0.9


DEEP = [
    ("sd3", EarlyLayers(blocks=2)),
    ("flux", EarlyLayers(blocks=2)),
    ("sd15", LRM(width=16)),
    ("wan", DRM(dropped=1, channels=(64,))),
]


@pytest.mark.parametrize(("family", "model"), DEEP)
def test_gradients_are_the_same_when_activations_are_computed_again(tmp_path, family, model):
    backbone = family_at(family, write_tiny(family, tmp_path))
    torch.manual_seed(0)
    network = model.build(backbone, device="cpu").eval()
    shape = backbone.latent_shape(frames=1 if backbone.frame_multiple is None else 5, height=32, width=32)
    texts = backbone.load(parts="encoders", device="cpu", dtype=torch.float32).encode_texts(["a red circle"])
    condition = {name: value[None] for name, value in texts[0].items()}
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    kept = gradients(network, x, condition)
    network.generator.checkpointing()
    again = gradients(network, x, condition)
    assert kept.keys() == again.keys()
    for key, value in kept.items():
        torch.testing.assert_close(again[key], value, rtol=1e-4, atol=1e-6)


def gradients(network, x, condition):
    network.zero_grad()
    network(x, t=torch.tensor([0.4]), condition=condition).sum().backward()
    return {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}
