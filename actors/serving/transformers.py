"""Asks a vision-language model of the transformers library: any class that AutoModelForImageTextToText loads.

Questions of equal token count form a batch, so nothing is padded and an answer depends on no other question beyond float
noise. A question that was asked already in the same call is not asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from actors.serving.engine import Answer, Question, conversation, decoded, same, shown
from actors.serving.vocabulary import answer_tokens, load_processor
from infra.config import Config
from infra.lazy import lazy
from infra.store.files import Folder

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch")


class TransformersEngine(Config):
    """Where the model lies and how it is run."""

    weights: Folder
    """Folder with model, tokenizer and processor, as transformers saves them; safetensors only."""
    batch_size: int = Field(64, ge=1, exclude=True)
    """Questions in one forward pass."""
    device: str = Field("cpu", exclude=True)
    """torch's name of the device."""

    def load(self) -> LoadedTransformers:
        """Reads the weights into float32; one thread where the device is a CPU."""
        return LoadedTransformers(self)


class LoadedTransformers:
    """A model in memory."""

    def __init__(self, engine: TransformersEngine) -> None:
        from transformers import AutoModelForImageTextToText

        if engine.device == "cpu":
            torch.set_num_threads(1)
        self.engine = engine
        self.processor = load_processor(engine.weights)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            engine.weights.path, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        self.model = model.to(engine.device).eval()

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions."""
        keys = [same(question) for question in questions]
        distinct = dict(zip(keys, questions, strict=True))
        answers = dict(zip(distinct, self._ask(list(distinct.values())), strict=True))
        return [answers[key] for key in keys]

    def _ask(self, questions: list[Question]) -> list[Answer]:
        texts = [
            self.processor.apply_chat_template(conversation(q), tokenize=False, add_generation_prompt=True)
            for q in questions
        ]
        lengths = [
            (len(shown(q)), len(self.processor.tokenizer(text)["input_ids"]))
            for q, text in zip(questions, texts, strict=True)
        ]
        answers: dict[int, Answer] = {}
        for length in sorted(set(lengths)):
            places = [place for place, own in enumerate(lengths) if own == length]
            for start in range(0, len(places), self.engine.batch_size):
                chosen = places[start : start + self.engine.batch_size]
                found = self._forward([questions[place] for place in chosen], [texts[place] for place in chosen])
                answers.update(zip(chosen, found, strict=True))
        return [answers[place] for place in range(len(questions))]

    def _forward(self, questions: list[Question], texts: list[str]) -> list[Answer]:
        pictures = [[decoded(picture) for picture in shown(q)] for q in questions]
        inputs = self.processor(text=texts, images=pictures, padding=True, padding_side="right", return_tensors="pt")
        inputs = inputs.to(self.engine.device)
        inputs["pixel_values"] = inputs["pixel_values"].contiguous()
        last = inputs["attention_mask"].sum(1) - 1
        with torch.inference_mode():
            states = self.model.model(**inputs, use_cache=False).last_hidden_state
            rows = torch.arange(len(questions), device=states.device)
            logits = self.model.get_output_embeddings()(states[rows, last])
            log_p = logits.float().log_softmax(-1).cpu()
        best, tokenizer = log_p.argmax(-1).tolist(), self.processor.tokenizer
        answers = []
        for row, question in enumerate(questions):
            tokens = answer_tokens(tokenizer, question.answers)
            words = {word: float(log_p[row, token]) for word, token in zip(question.answers, tokens, strict=True)}
            answers.append(Answer(tokenizer.decode([best[row]]), words))
        return answers
