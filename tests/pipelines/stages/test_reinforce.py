"""Stage reinforce: prompts to a trained policy with every rollout's numbers, and what is refused before any rollout."""

import math

import pytest

from actors.training.engines.engine import EngineOptions
from actors.training.options import TrainerOptions
from infra.config import ConfigError
from infra.dag.stage import Resources
from infra.store.artifacts import Store
from infra.store.files import Folder
from pipelines.algorithms.online.stop import StopRule
from pipelines.miniature.pipeline import load_pipeline
from pipelines.models.adapter import LoRA
from pipelines.models.exact import trained_names
from pipelines.models.prompts import Texts
from pipelines.models.rewards.slrm import SLRM
from pipelines.models.rewards.task_tokens import TaskTokenReward
from pipelines.models.rewards.trained import TrainedLatentReward
from pipelines.recipes.parts import online as presets
from pipelines.schemas.curves import Curve
from pipelines.schemas.training import RolloutState
from pipelines.stages.encode import Encoders
from pipelines.stages.encode_texts import EncodeTexts
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.reinforce import Reinforce
from pipelines.training.online_methods import TAPOMethod
from pipelines.training.rewarding import LatentTerm, ScorerTerm
from support.inline import computed
from support.online import METHODS, Darkness
from support.tiny import family_at, write_tiny
from support.training import SMALL

TORCH = EngineOptions(kind="torch")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("generators")
    (root / "prompts.txt").write_text("\n".join(f"a thing number {n}" for n in range(6)))
    return {name: write_tiny(name.split("-")[0], root / name, seed=len(name)) for name in ("miniature", "sd3", "sd3-other")}


def reinforce(folders, *, generator="miniature", **options) -> Reinforce:
    policy = family_at(generator.split("-")[0], folders[generator])
    source = Texts(path=str(folders["miniature"].parent / "prompts.txt"), evaluation_share=0.0)
    texts = EncodeTexts(prompts=WritePrompts(source=source), encoders=Encoders(family=policy))
    given = {
        "texts": texts,
        "policy": policy,
        "adapter": SMALL,
        "rewards": (ScorerTerm(scorer=Darkness()),),
        "method": METHODS["tapo"],
        "height": 24,
        "width": 24,
        "prompts_per_round": 2,
        "trainer": TrainerOptions(steps=4, batch=4, checkpoint_every=2, engine=TORCH),
        "resources": Resources(workers=1),
    }
    return Reinforce(**given | options)


def test_a_run_leaves_its_curve_its_rollouts_and_an_adapter_that_loads(folders, tmp_path):
    stage = reinforce(folders, held_out_prompts=2, measures=(ScorerTerm(scorer=Darkness(name="other")),), measure_every=2)
    store = Store(tmp_path)
    computed(stage, store)
    artifact = store.artifact(stage)
    curve = list(artifact.rows(Curve))
    assert {row.metric for row in curve} >= {
        "reward", "held_out_reward", "held_out_measure", "policy_shift", "clip_share", "zero_advantage_share",
        "order_flips", "masked_share", "rollout_seconds", "scoring_seconds", "update_seconds", "rollout_forwards",
        "scored", "parity",
    }  # fmt: skip
    assert [row.step for row in curve if row.metric == "held_out_reward"] == [1, 3]
    states = list(artifact.rows(RolloutState, name="rollouts"))
    assert len(states) == 4 * 2 * 2
    assert {state.round for state in states} == {0, 1, 2, 3}
    assert all(len(state.old) == len(state.reference) == 2 and state.used for state in states)
    load_pipeline(folders["miniature"], lora=artifact.weights())


def latent(folders, generator, *, weights=None) -> LatentTerm:
    backbone = family_at(generator.split("-")[0], folders[generator])
    given = Folder(path=str(weights or folders[generator]))
    return LatentTerm(reward=TrainedLatentReward(weights=given, model=TaskTokenReward(), backbone=backbone))


@pytest.mark.parametrize("name", ["tapo", "flow_grpo"])
def test_slrm_is_told_what_the_generator_predicted_at_every_sample_that_it_scores(folders, tmp_path, name):
    backbone, model, method = family_at("miniature", folders["miniature"]), SLRM(), METHODS[name]
    network = model.build(backbone, device="cpu")
    network.usual_errors.fill_(0.05)
    kept = {*trained_names(network), *network.constants}
    model.save(
        {key: value for key, value in network.state_dict().items() if key in kept}, tmp_path / "slrm", backbone=backbone
    )
    reward = TrainedLatentReward(weights=Folder(path=str(tmp_path / "slrm")), model=model, backbone=backbone)
    trainer = TrainerOptions(steps=2, batch=2 * method.per_prompt(), checkpoint_every=1, engine=TORCH)
    stage = reinforce(folders, rewards=(LatentTerm(reward=reward),), method=method, trainer=trainer)
    store = Store(tmp_path / "store")
    computed(stage, store)
    rewards = [row.value for row in store.artifact(stage).rows(Curve) if row.metric == "reward"]
    assert len(rewards) == 2 and all(math.isfinite(value) for value in rewards)


def test_a_reward_of_another_family_is_refused_when_the_recipe_is_built(folders):
    with pytest.raises(ConfigError, match="a reward model on a sd3 generator cannot read latents of a miniature generator"):
        reinforce(folders, rewards=(latent(folders, "sd3"),))


def test_a_reward_of_another_vae_is_refused_before_anything_is_rolled_out(folders, tmp_path):
    stage = reinforce(folders, generator="sd3", rewards=(latent(folders, "sd3-other"),), height=32, width=32)
    with pytest.raises(Exception, match=r"the reward model reads latents of the VAE of .*has another"):
        computed(stage, Store(tmp_path))


def test_a_window_that_reaches_the_last_step_is_refused_when_the_recipe_is_built():
    with pytest.raises(ConfigError, match="noise of the last step would stay in the picture"):
        TAPOMethod(sampling_steps=8).per_prompt()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"adapter": LoRA(rank=4, alpha=8, dropout=0.1)}, "dropout = 0.1 of the LoRA .* set it to 0"),
        ({"trainer": TrainerOptions(steps=4, batch=3, engine=TORCH)}, r"has 4 states; batch = 3 must divide them"),
        ({"trainer": TrainerOptions(epochs=1.0, batch=4, engine=TORCH)}, "rounds have no epochs; give steps"),
        ({"steps_per_round": 3, "prompts_per_round": 4}, "3 steps per round must be whole passes: give"),
        ({"stop": StopRule()}, "give measures and held_out_prompts"),
        ({"rewards": (ScorerTerm(scorer=Darkness(), dimensions={"style": 1.0}),)}, "no dimension 'style'; it has overall"),
        (
            {
                "trainer": TrainerOptions(steps=4, batch=6, engine=EngineOptions(zero=3)),
                "prompts_per_round": 3,
                "resources": Resources(workers=2),
            },
            "under ZeRO 3 all 2 workers must make the same number of forward passes; give a multiple of 2 prompts",
        ),
    ],
)
def test_what_could_not_be_right_is_refused_when_the_recipe_is_built(folders, options, told):
    with pytest.raises(ConfigError, match=told):
        reinforce(folders, **options)


def test_a_threshold_skips_no_forward_so_that_zero_3_can_divide_the_model(folders):
    trainer = TrainerOptions(steps=4, batch=8, engine=EngineOptions(zero=3))
    assert (
        reinforce(folders, method=METHODS["spo"], trainer=trainer, resources=Resources(workers=2)).reference_kind
        == "adapter"
    )


def test_the_presets_are_the_papers():
    method = presets.tapo(sampling_steps=20, count=8, first=1, candidates=4, beta=1000.0, guidance=4.5)
    assert method.plan.stochastic(20) == (1, 3, 6, 8, 11, 13, 16, 18)
    assert method == TAPOMethod(guidance=4.5)
