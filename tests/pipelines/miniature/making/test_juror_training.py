"""Training a juror: it learns, and a killed training ends on the same weights."""

from __future__ import annotations

import pytest

from infra.config import ConfigError
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.algorithms.prompting.pointwise import Pointwise
from pipelines.miniature.juror_architecture import JurorShape
from pipelines.miniature.making import juror_training
from pipelines.miniature.making.juror_training import JurorTraining, caption_pool, make_batch, train_juror
from pipelines.miniature.world.grammar import split_of

SMALL = JurorShape(vision_width=16, vision_layers=1, text_width=32, text_layers=1, heads=2)


def _options(**changes):
    return JurorTraining(**({"shape": SMALL, "questionnaire": Pointwise(), "steps": 12, "captions": 2} | changes))


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(juror_training, "_CHECKPOINT_EVERY", 5)
    options = _options()
    train_juror(options, out=tmp_path / "whole", scratch=tmp_path / "a")

    def kill(step, loss):
        if step == 7:
            raise Killed

    with pytest.raises(Killed):
        train_juror(options, out=tmp_path / "killed", scratch=tmp_path / "b", on_step=kill)
    train_juror(options, out=tmp_path / "killed", scratch=tmp_path / "b")
    whole, killed = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


def test_the_loss_falls(tmp_path):
    losses = []
    train_juror(
        _options(steps=60, describing_share=1, learning_rate=1e-2),
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
        on_step=lambda step, loss: losses.append(loss),
    )
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_a_pairwise_batch_asks_for_the_better_picture_or_a_tie():
    options = _options(questionnaire=Pairwise(), describing_share=0, pointwise_share=0, captions=8)
    batch = make_batch(options, pool=caption_pool(seed=0), step=0)
    assert all(len(question.pictures) == 2 for question in batch.questions)
    assert (batch.wanted.sum(axis=1) == 1).all()
    assert (batch.wanted.sum(axis=0) > 0).all()


def test_only_captions_of_the_train_split_are_learnt():
    pool = caption_pool(seed=0)
    assert all(split_of(caption.text) == "train" for found in pool.values() for caption in found)


def test_a_juror_that_continues_needs_the_folder_it_continues_from(tmp_path):
    with pytest.raises(ConfigError, match="continues"):
        train_juror(_options(continues="other"), out=tmp_path, scratch=tmp_path)
