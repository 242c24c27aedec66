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

from actors.device import prepare
from actors.serving.engine import (
    Answer,
    AnswerEngine,
    Decoded,
    OpenAnswerEngine,
    Precision,
    Question,
    ask_distinct,
    precision_on,
)
from actors.serving.vocabulary import answer_tokens, load_processor
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

    def load(self, folder: Path, *, device: str) -> OpenAnswerEngine:
        """Reads the weights; one thread of arithmetic where the device is a CPU."""
        return LoadedTransformers(self, folder, device=device)


class LoadedTransformers:
    """A model in memory."""

    def __init__(self, engine: TransformersEngine, folder: Path, *, device: str) -> None:
        from transformers import AutoModelForImageTextToText

        prepare(device)
        self.engine = engine
        self.device = device
        self.processor = load_processor(folder)
        dtype = getattr(torch, precision_on(device, asked=engine.dtype))
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        self.model = model.to(device).eval()

    def ask(self, questions: Sequence[Question]) -> list[Answer | Exception]:
        """Answers in the order of the questions; an exception in the place of a question that could not be asked."""
        return ask_distinct(questions, ask=self._ask)

    def _ask(self, asked: list[Decoded]) -> list[Answer | Exception]:
        """Groups questions that may share a forward pass: equal in tokens, pictures and kind of answer."""
        texts = [
            self.processor.apply_chat_template(one.question.conversation, tokenize=False, add_generation_prompt=True)
            for one in asked
        ]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for place, (one, text) in enumerate(zip(asked, texts, strict=True)):
            sizes = tuple(picture.size for picture in one.pictures)
            length = len(self.processor.tokenizer(text)["input_ids"])
            free = 0 if one.question.answers else one.question.max_tokens
            groups.setdefault((length, sizes, free), []).append(place)
        answers: dict[int, Answer | Exception] = {}
        for (_, _, free), places in sorted(groups.items()):
            for start in range(0, len(places), self.engine.batch_size):
                chosen = places[start : start + self.engine.batch_size]
                filled = chosen + chosen[-1:] * (self.engine.batch_size - len(chosen))
                inputs = self._inputs([asked[place] for place in filled], [texts[place] for place in filled])
                questions = [asked[place].question for place in chosen]
                found = self._written(inputs, free) if free else self._chosen(inputs, questions)
                answers.update(zip(chosen, found, strict=False))
        return [answers[place] for place in range(len(asked))]

    def _inputs(self, asked: list[Decoded], texts: list[str]) -> Any:
        pictures = [one.pictures for one in asked]
        given = {"images": pictures} if any(pictures) else {}
        inputs = self.processor(text=texts, **given, padding=True, padding_side="right", return_tensors="pt")
        inputs = inputs.to(self.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].contiguous().to(self.model.dtype)
        return inputs

    def _chosen(self, inputs: Any, questions: list[Question]) -> list[Answer]:
        """The most likely next token, and how likely each word that counts is."""
        last = inputs["attention_mask"].sum(1) - 1
        with torch.inference_mode():
            states = self.model.model(**inputs, use_cache=False).last_hidden_state
            rows = torch.arange(len(last), device=states.device)
            logits = self.model.get_output_embeddings()(states[rows, last])
            log_p = logits.float().log_softmax(-1).cpu()
        best, tokenizer = log_p.argmax(-1).tolist(), self.processor.tokenizer
        answers: list[Answer] = []
        for row, question in enumerate(questions):
            tokens = answer_tokens(tokenizer, question.answers)
            words = {word: float(log_p[row, token]) for word, token in zip(question.answers, tokens, strict=True)}
            answers.append(Answer(tokenizer.decode([best[row]]), words))
        return answers

    def _written(self, inputs: Any, max_tokens: int) -> list[Answer]:
        """Free text, the most likely token at every step."""
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, do_sample=False, max_new_tokens=max_tokens)
        new = tokens[:, inputs["input_ids"].shape[1] :]
        return [Answer(text) for text in self.processor.batch_decode(new, skip_special_tokens=True)]
