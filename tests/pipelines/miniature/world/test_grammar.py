"""Laws of the miniature's captions."""

import time

import pytest

from infra.config import ConfigError
from pipelines.miniature.world.grammar import TASKS, Asked, Expectation, captions, split_of, task_captions, vocabulary


def test_every_task_has_enough_captions_in_both_splits():
    for task in TASKS:
        assert sum(1 for _ in task_captions(task, split="evaluation", seed=0)) >= 170
        assert sum(1 for _ in task_captions(task, split="train", seed=0)) >= 500


def test_no_caption_is_in_both_splits_whatever_the_count_and_seed():
    train = {c.text for seed in (0, 1) for c in captions(3000, split="train", seed=seed)}
    held_out = {c.text for seed in (2, 3) for c in captions(1020, split="evaluation", seed=seed)}
    assert not train & held_out
    assert {split_of(text) for text in train} == {"train"}


def test_captions_are_distinct_and_balanced():
    found = captions(1020, split="evaluation", seed=7)
    assert len({c.text for c in found}) == 1020
    assert [sum(c.task == task for c in found) for task in TASKS] == [170] * 6


def test_a_longer_list_begins_with_the_shorter_one_and_another_seed_differs():
    long, short = captions(200, split="train", seed=0), captions(101, split="train", seed=0)
    assert long[:101] == short
    assert captions(101, split="train", seed=1) != short


def test_vocabulary_and_captions_are_short():
    words = set(vocabulary())
    assert len(words) <= 80
    for caption in captions(3000, split="train", seed=0):
        assert len(caption.text.split()) <= 12 and set(caption.text.split()) <= words


def test_too_many_captions_are_refused_with_the_most_there_are():
    with pytest.raises(ConfigError, match="ask for at most"):
        captions(100_000, split="evaluation", seed=0)


def test_five_thousand_captions_come_at_once():
    start = time.process_time()
    captions(5000, split="train", seed=0)
    assert time.process_time() - start < 3.0  # thirty times what is measured


def test_expectation_survives_json_and_bad_json_is_refused():
    asked = Expectation((Asked("circle", "red"), Asked("cross")), "left")
    assert Expectation.from_json(asked.to_json()) == asked
    assert asked.to_json() == (
        '{"objects":[{"colour":"red","count":1,"shape":"circle"},{"colour":null,"count":1,"shape":"cross"}],"relation":"left"}'
    )
    for bad in ("{", "{}", '{"objects":[],"relation":null}', asked.to_json().replace("circle", "dog")):
        with pytest.raises(ConfigError, match="expectation"):
            Expectation.from_json(bad)


@pytest.mark.parametrize(
    ("text", "json"),
    [
        ("three discs", '{"objects":[{"colour":null,"count":3,"shape":"circle"}],"relation":null}'),
        ("a picture of a blue box on grey", '{"objects":[{"colour":"blue","count":1,"shape":"square"}],"relation":null}'),
    ],
)
def test_captions_mean_what_they_say(text, json):
    splits = ("train", "evaluation")
    found = {c.text: c for task in TASKS[:4] for split in splits for c in task_captions(task, split=split, seed=0)}
    assert found[text].expectation.to_json() == json
