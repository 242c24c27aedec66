"""The transformers engine on models of published classes: pictures, clips, one token, free text, lengths, bad folders."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from actors.media import encode_mp4, encode_png
from actors.serving.drawing import SeededDraws, likeliest
from actors.serving.engine import Answer, Question
from actors.serving.qwen_video import QwenVideoInput
from actors.serving.shown import ClipFrames, prepare
from actors.serving.transformers import TransformersEngine
from infra.config import ConfigError
from tests.support.tiny_vlm import KINDS, write_tiny_vlm

ENGINE = TransformersEngine(batch_size=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: write_tiny_vlm(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def engine(request, folders):
    return ENGINE.load(folders[request.param], device="cpu")


def picture(seed, *, width=32):
    return encode_png(np.random.default_rng(seed).integers(0, 255, (32, width, 3), dtype=np.uint8)).bytes


def clip(seed, *, frames=12, fps=8.0):
    """Frames of one shade each, so that compression hardly changes them."""
    shades = np.random.default_rng(seed).integers(0, 255, (frames, 1, 1, 3), dtype=np.uint8)
    return encode_mp4(np.broadcast_to(shades, (frames, 32, 32, 3)), fps=fps).bytes


def pair(picked, *, ask="which is better?", **options):
    words = options or {"answers": ("A", "B", "tie")}
    return Question((0, "first", 1, ask), (picture(picked), picture(picked + 100)), **words)


def test_words_are_as_likely_as_a_plain_call_of_the_model_says(engine):
    (answer,) = engine.ask([pair(1)])
    (one,) = [prepare(pair(1), clips=ClipFrames())]
    text = engine.processor.apply_chat_template(one.conversation, tokenize=False, add_generation_prompt=True)
    inputs = engine.processor(text=[text], images=[one.load().pictures], return_tensors="pt")
    with torch.inference_mode():
        expected = engine.model(**inputs).logits[0, -1].double().log_softmax(-1)
    for word, value in answer.log_probabilities.items():
        (token,) = engine.processor.tokenizer.encode(word, add_special_tokens=False)
        assert value == pytest.approx(float(expected[token]), abs=1e-4)


def test_answers_and_drawn_texts_are_the_same_alone_and_in_company(engine):
    drawn = {"max_tokens": 6, "temperature": 1.0}
    questions = [pair(1), pair(2, ask="better?"), pair(3, **drawn, seed=1), pair(3, **drawn, seed=2), pair(4, max_tokens=6)]
    together = engine.ask(questions)
    assert engine.ask(questions[::-1])[::-1] == together
    assert [engine.ask([question])[0] for question in questions] == together
    assert together[2] != together[3]


def test_up_to_eight_pictures_of_other_sizes_fit_in_one_question(engine):
    shown = tuple(picture(seed, width=16 * (1 + seed % 3)) for seed in range(8))
    (answer,) = engine.ask([Question((*range(8), "rank them"), shown, max_tokens=5)])
    assert isinstance(answer, Answer)


def test_a_clip_is_its_frames_with_their_times(engine):
    (one, other) = engine.ask([Question((0, "moves?"), (clip(seed),), ("yes", "no")) for seed in (1, 2)])
    assert one != other
    times = ClipFrames().times(seconds=12 / 8.0)
    assert times == (0.0, 0.5, 1.0)
    loaded = prepare(Question((0,), (clip(1),)), clips=ClipFrames()).load()
    shown = tuple(np.asarray(frame) for frame in loaded.pictures)
    parts = [part for number, at in enumerate(("0", "0.5", "1")) for part in (f"at {at} s: ", number)]
    assert engine.ask([Question((*parts, "moves?"), shown, ("yes", "no"))]) == [one]


def test_a_long_clip_is_shown_in_as_many_frames_further_apart():
    assert ClipFrames(fps=2, most=4).times(seconds=60.0) == (0.0, 15.0, 30.0, 45.0)
    assert ClipFrames(fps=2).times(seconds=0.1) == (0.0,)


def test_a_question_longer_than_the_context_and_what_does_not_decode_fail_alone(folders):
    engine = ENGINE.model_copy(update={"context": 300}).load(folders["qwen2-vl"], device="cpu")
    long = pair(1, ask="why? " * 100)
    torn = Question((0, "moves?"), (clip(1)[:400],), ("yes", "no"))
    cut = Question((0, "good?"), (picture(1)[:200],), ("yes", "no"))
    failed = engine.ask([long, torn, cut, pair(1)])
    assert [type(one) for one in failed] == [ValueError, type(failed[1]), OSError, Answer]
    assert isinstance(failed[1], Exception) and "context of 300" in str(failed[0])


def test_free_text_says_whether_it_was_cut_off(engine):
    (answer,) = engine.ask([pair(1, max_tokens=1)])
    assert not answer.ended
    settings, before = engine.model.generation_config, engine.ends
    settings.eos_token_id = engine.ends = list(range(len(engine.processor.tokenizer)))
    try:
        assert engine.ask([pair(1, max_tokens=5)])[0].ended
    finally:
        settings.eos_token_id = engine.ends = before


def test_a_processor_without_a_chat_template_is_refused(folders, tmp_path):
    for kind in KINDS:
        copy = tmp_path / kind
        copy.mkdir()
        for file in folders[kind].iterdir():
            if file.name != "chat_template.jinja":
                (copy / file.name).symlink_to(file)
        assert all("chat_template" not in json.loads(file.read_text()) for file in copy.glob("*.json"))
        with pytest.raises(ConfigError, match="no chat template"):
            ENGINE.load(copy, device="cpu")


def test_a_video_input_that_the_processor_lacks_is_refused(folders):
    with pytest.raises(ConfigError, match="as_video"):
        TransformersEngine(clips=ClipFrames(as_video=True)).load(folders["idefics3"], device="cpu")


def test_a_clip_is_a_video_to_a_processor_with_video_input(folders):
    """Frames of one clip in the model's own video input: as a plain call of the model says, and blind to no frame."""
    engine = TransformersEngine(clips=ClipFrames(as_video=True, most=3), batch_size=2).load(
        folders["qwen2-vl"], device="cpu"
    )
    asked = [Question((0, "and", 1, "which moves?"), (clip(seed), clip(9)), ("A", "B")) for seed in (1, 2)]
    (one, other) = engine.ask(asked)
    assert one != other and engine.ask(asked[:1]) == [one]
    (ready,) = [prepare(asked[0], clips=engine.engine.clips)]
    assert [part["type"] for part in ready.conversation[0]["content"]] == ["video", "text", "video", "text"]
    videos = [frames for frames, _ in ready.load().videos]
    text = engine.processor.apply_chat_template(ready.conversation, tokenize=False, add_generation_prompt=True)
    inputs = engine.processor(text=[text], videos=[videos], return_tensors="pt")
    grid = inputs["video_grid_thw"].tolist()
    assert [steps for steps, _, _ in grid] == [2, 2]  # three frames, two in a patch, the last one repeated
    assert int((inputs["input_ids"] == engine.model.config.video_token_id).sum()) == sum(t * h * w // 4 for t, h, w in grid)
    with torch.inference_mode():
        expected = engine.model(**inputs).logits[0, -1].double().log_softmax(-1)
    (token,) = engine.processor.tokenizer.encode("A", add_special_tokens=False)
    assert one.log_probabilities["A"] == pytest.approx(float(expected[token]), abs=1e-4)


def test_a_video_of_one_still_frame_twice_has_the_patches_of_the_picture():
    """What the model sees of two equal frames is what it sees of the picture, which transformers repeats in time."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    size = {"shortest_edge": 64, "longest_edge": 4096}
    pictures = Qwen2VLImageProcessorPil(patch_size=4, size=size)
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 24, 3), dtype=np.uint8)
    video = QwenVideoInput(pictures, size=size)
    still = video([[frames[[0, 0]]]])
    whole = pictures([frames[0], frames[1], frames[2]], return_tensors="np")["pixel_values"].reshape(3, 48, 3, 2, 4, 4)
    assert np.array_equal(still["pixel_values_videos"].reshape(48, 3, 2, 4, 4), whole[0])
    moving = video([frames])["pixel_values_videos"].reshape(2, 48, 3, 2, 4, 4)
    order = [(0, 0, 0), (0, 1, 1), (1, 0, 2), (1, 1, 2)]  # step, place in the patch, frame
    assert all(np.array_equal(moving[step, :, :, place], whole[frame, :, :, 0]) for step, place, frame in order)


def test_draws_from_seeds_follow_the_models_probabilities():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    questions = [Question((), (), temperature=0.5, seed=seed) for seed in range(4000)]
    drawn = SeededDraws(questions)(torch.zeros(4000, 0), logits.expand(4000, 4)).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / 4000
    expected = (logits / 0.5).softmax(-1)
    assert torch.all((shares - expected).abs() < 4 * math.sqrt(0.25 / 4000))
    kept = likeliest(torch.tensor([0.5, 0.3, 0.15, 0.05]).log(), top_p=0.7).softmax(-1)
    assert torch.allclose(kept, torch.tensor([0.625, 0.375, 0.0, 0.0]))
