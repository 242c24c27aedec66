"""Asks a vision-language model of the transformers library: any class that AutoModelForImageTextToText loads.

Every forward pass has the same number of rows, and all of one token count, so nothing is padded within a row. What is left
over is filled up with repetitions: matrix products of one shape are computed alike for every row, whatever the others
hold, while another number of rows changes the last bits. An answer is therefore the same in any company.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from actors import device as devices
from actors.serving.drawing import SeededDraws
from actors.serving.engine import Answer, AnswerEngine, OpenAnswerEngine, Precision, Question, precision_on
from actors.serving.shown import ClipFrames, Loaded, Prepared, ask_distinct, load_each
from actors.serving.vocabulary import answer_tokens, load_processor
from infra.config import ConfigError
from infra.lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class TransformersEngine(AnswerEngine):
    """How the transformers library runs a model."""

    kind: Literal["transformers"] = "transformers"
    batch_size: int = Field(16, ge=1)
    """Questions in every forward pass. It is part of the identity: another number changes the last bits of a score."""
    dtype: Precision | None = None
    """Precision of weights and activations; by default float32 on a CPU and bfloat16 on a GPU."""
    context: int | None = Field(None, ge=2, exclude=True)
    """Longest question and answer together in tokens, pictures included; by default what the model's own config allows."""
    clips: ClipFrames = ClipFrames()
    """Which frames of a clip are shown."""

    def load(self, folder: Path, *, device: str) -> OpenAnswerEngine:
        """Reads the weights; one thread of arithmetic where the device is a CPU."""
        return LoadedTransformers(self, folder, device=device)


class LoadedTransformers:
    """A model in memory."""

    def __init__(self, engine: TransformersEngine, folder: Path, *, device: str) -> None:
        from transformers import AutoModelForImageTextToText, GenerationConfig

        devices.prepare(device)
        self.engine = engine
        self.device = device
        self.processor = load_processor(folder)
        if engine.clips.as_video and getattr(self.processor, "video_processor", None) is None:
            raise ConfigError(
                f"the processor in {folder} has no video input here (some need torchvision): give clips.as_video = false, "
                "and frames are shown as pictures with their times"
            )
        dtype = getattr(torch, precision_on(device, asked=engine.dtype))
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        self.model = model.to(device).eval()
        self.context = engine.context or getattr(model.config.get_text_config(), "max_position_embeddings", None)
        own = model.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else self.processor.tokenizer.eos_token_id
        self.ends: list[int] = ends if isinstance(ends, list) else [ends]
        pad = own.pad_token_id if own.pad_token_id is not None else self.ends[0]
        # The folder's own penalties and temperatures would make another answer than the one that is asked for.
        model.generation_config = GenerationConfig(eos_token_id=self.ends, pad_token_id=pad, do_sample=False)

    def ask(self, questions: Sequence[Question]) -> list[Answer | Exception]:
        """Answers in the order of the questions; an exception in the place of a question that could not be asked."""
        return ask_distinct(questions, clips=self.engine.clips, ask=self._ask)

    def _ask(self, asked: list[Prepared]) -> list[Answer | Exception]:
        """Groups questions that may share a forward pass: equal in tokens, pictures and kind of answer."""
        texts = [
            self.processor.apply_chat_template(one.conversation, tokenize=False, add_generation_prompt=True)
            for one in asked
        ]
        # All at once: a call of the tokenizer for each text takes longer than the tokens.
        tokens = self.processor.tokenizer(texts)["input_ids"] if texts else []
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, (one, length) in enumerate(zip(asked, map(len, tokens), strict=True)):
            free = 0 if one.question.answers else one.question.max_tokens
            groups.setdefault((length, one.sizes, free), []).append(place)
        answers: dict[int, Answer | Exception] = {}
        for (_, _, free), places in sorted(groups.items()):
            for chosen, loaded in load_each(asked, answers=answers, places=places, at_once=self.engine.batch_size):
                missing = self.engine.batch_size - len(chosen)
                filled = chosen + chosen[-1:] * missing
                inputs = self._inputs([texts[place] for place in filled], loaded + loaded[-1:] * missing)
                questions = [asked[place].question for place in filled]
                found = self._answered(inputs, questions, free)
                answers.update(zip(chosen, found, strict=False))
        return [answers[place] for place in range(len(asked))]

    def _inputs(self, texts: list[str], loaded: list[Loaded]) -> Any:
        given: dict[str, Any] = {}
        if any(one.pictures for one in loaded):
            given["images"] = [one.pictures for one in loaded]
        if any(one.videos for one in loaded):
            given["videos"] = [[pixels for pixels, _ in one.videos] for one in loaded]
            about = [[about for _, about in one.videos] for one in loaded]
            given |= {"video_metadata": about, "do_sample_frames": False}
        inputs = self.processor(text=texts, **given, padding=True, padding_side="right", return_tensors="pt")
        inputs = inputs.to(self.device)
        for name, value in inputs.items():
            if torch.is_tensor(value) and value.is_floating_point():
                inputs[name] = value.contiguous().to(self.model.dtype)
        return inputs

    def _answered(self, inputs: Any, questions: list[Question], free: int) -> Sequence[Answer | Exception]:
        length = inputs["input_ids"].shape[1]
        if self.context is not None and length + max(free, 1) > self.context:
            error = f"{length} tokens of question and {max(free, 1)} of answer are more than the context of {self.context}"
            return [ValueError(f"{error}; ask for fewer, or show fewer or smaller pictures")] * len(questions)
        return self._written(inputs, questions, free) if free else self._chosen(inputs, questions)

    def _chosen(self, inputs: Any, questions: list[Question]) -> list[Answer]:
        """The most likely next token, and how likely each word that counts is."""
        if not bool(inputs["attention_mask"].all()):
            raise AssertionError("questions of one forward pass have different numbers of tokens")
        with torch.inference_mode():
            logits = self.model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
            log_p = logits.float().log_softmax(-1).cpu()
        best, tokenizer = log_p.argmax(-1).tolist(), self.processor.tokenizer
        said = {token: tokenizer.decode([token]) for token in set(best)}
        known = {words: answer_tokens(tokenizer, words) for words in {question.answers for question in questions}}
        answers: list[Answer] = []
        for row, question in enumerate(questions):
            likely = log_p[row, known[question.answers]].tolist()
            answers.append(Answer(said[best[row]], dict(zip(question.answers, likely, strict=True))))
        return answers

    def _written(self, inputs: Any, questions: list[Question], max_tokens: int) -> list[Answer]:
        """Free text, token by token: the most likely one, or one drawn from the question's own seed."""
        from transformers import LogitsProcessorList

        drawn = any(question.temperature > 0 for question in questions)
        draws = [SeededDraws(questions)] if drawn else []
        with torch.inference_mode():
            tokens = self.model.generate(
                **inputs, do_sample=False, max_new_tokens=max_tokens, logits_processor=LogitsProcessorList(draws)
            )
        new = tokens[:, inputs["input_ids"].shape[1] :]
        texts = self.processor.batch_decode(new, skip_special_tokens=True)
        ended = [bool(set(row.tolist()) & set(self.ends)) for row in new]
        return [Answer(text, ended=end) for text, end in zip(texts, ended, strict=True)]
