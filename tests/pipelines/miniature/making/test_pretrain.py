"""Pre-training: it learns, it is deterministic, and a killed training goes on as if nothing had happened."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.miniature.making.pretrain import Pretraining, Snapshot, learning_rate, pretrain, training_captions
from pipelines.miniature.pipeline import load_pipeline
from pipelines.miniature.text import MAX_TOKENS, TextOptions, build_tokenizer, tokenize
from pipelines.miniature.world.grammar import split_of


class Killed(Exception):
    """Stands for SIGKILL."""


def _options(architecture: str) -> Pretraining:
    return Pretraining(
        architecture=architecture,
        layers=2,
        heads=2,
        head_width=16,
        text=TextOptions(hidden=16, heads=2, layers=1, steps=5, batch=16),
        steps=9,
        batch=8,
        warm_up=2,
        cool_down=2,
        captions_a_task=40,
        checkpoint_every=4,
        snapshots=(Snapshot(name="half", at=5), Snapshot(name="whole", at=9)),
    )


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("architecture", ["sd3", "pixart"])
def test_a_killed_training_goes_on_exactly(architecture, tmp_path):
    def kill(step: int, steps: int, loss: float) -> None:
        if step == 7:
            raise Killed

    options = _options(architecture)
    losses: list[float] = []
    pretrain(options, out=tmp_path / "a", scratch=tmp_path / "1", on_step=lambda step, steps, loss: losses.append(loss))
    with pytest.raises(Killed):
        pretrain(options, out=tmp_path / "b", scratch=tmp_path / "2", on_step=kill)
    again: list[float] = []
    pretrain(options, out=tmp_path / "b", scratch=tmp_path / "2", on_step=lambda step, steps, loss: again.append(loss))
    assert again == losses[4:]
    for name in ("half", "whole"):
        first, second = _weights(tmp_path / "a" / name), _weights(tmp_path / "b" / name)
        assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
        assert all(value.dtype == torch.float16 for value in first.values())
    assert load_pipeline(tmp_path / "a" / "whole").transformer.dtype == torch.float32


def test_the_loss_falls(tmp_path):
    losses: list[float] = []
    options = _options("sd3").model_copy(update={"steps": 60, "batch": 32, "snapshots": ()})
    pretrain(options, out=tmp_path, scratch=tmp_path / "s", on_step=lambda step, steps, loss: losses.append(loss))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_the_rate_warms_up_follows_the_cosine_and_cools_down():
    options = Pretraining(steps=1000, horizon=1000, warm_up=100, cool_down=200, last_rate=0.1, learning_rate=1.0)
    assert learning_rate(options, 0) == 0.01
    assert learning_rate(options, 100) == 1.0
    assert learning_rate(options, 550) == pytest.approx(0.55)
    assert learning_rate(options, 999) < 0.001


def test_no_evaluation_caption_is_trained_on():
    assert {split_of(c.text) for c in training_captions(Pretraining())} == {"train"}


def test_every_word_has_a_token_and_every_caption_fits():
    tokenizer = build_tokenizer()
    tokens = tokenize(tokenizer, [c.text for c in training_captions(Pretraining(captions_a_task=500))])
    assert tokens.shape[1] == MAX_TOKENS
    assert not (tokens == tokenizer.unk_token_id).any()
    assert (tokens == tokenizer.eos_token_id).any(dim=1).all()
