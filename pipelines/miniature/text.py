"""The miniature's text side: a word-level tokenizer and a small CLIPTextModel that learns to parse, then is frozen.

The encoder is trained on training captions alone to tell their structure (shapes, colours, counts, relation) from its
pooled state, as CLIP learns from pairs of captions and pictures; the generators then read it frozen, so that prompt
embeddings can be cached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from infra.config import Config
from infra.lazy import lazy
from pipelines.miniature.world.grammar import COLOURS, RELATIONS, SHAPES, TASKS, Caption, Expectation, vocabulary

if TYPE_CHECKING:
    import torch
    from torch.nn import functional
    from transformers import CLIPTextModel, PreTrainedTokenizerFast
else:
    torch, functional = lazy("torch"), lazy("torch.nn.functional")

MAX_TOKENS = 14  # twelve words, begin and end
SPECIAL = ("[PAD]", "[UNK]", "[BEGIN]", "[END]")

# (classes, what a parse of the caption says) for each question about its structure; class 0 is "none".
_QUESTIONS = (len(SHAPES) + 1, len(COLOURS) + 1, 5, len(SHAPES) + 1, len(COLOURS) + 1, len(RELATIONS) + 1)


class TextOptions(Config):
    """How the text encoder is built and trained."""

    hidden: int = Field(64, ge=8)
    """Width of a token's state and of the pooled state."""
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    steps: int = Field(500, ge=0)
    """Training steps; 0 leaves the encoder random."""
    batch: int = Field(256, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    seed: int = Field(0, ge=0)


@dataclass(frozen=True)
class Embedding:
    """What the generators read of a text: `tokens` float[b, 14, hidden] and `pooled` float[b, hidden]."""

    tokens: torch.Tensor
    pooled: torch.Tensor

    def __getitem__(self, index: Any) -> Embedding:
        """Rows of the batch."""
        return Embedding(self.tokens[index], self.pooled[index])

    def to(self, device: str | torch.device) -> Embedding:
        """The same on another device."""
        return Embedding(self.tokens.to(device), self.pooled.to(device))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level, lower case, one token a word of the grammar; begin and end are added."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate([*SPECIAL, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BEGIN] $A [END]", special_tokens=[("[BEGIN]", words["[BEGIN]"]), ("[END]", words["[END]"])]
    )
    pad, unknown, begin, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        bos_token=begin,
        eos_token=end,
        model_max_length=MAX_TOKENS,
    )


def build_text_encoder(options: TextOptions) -> CLIPTextModel:
    """A random CLIPTextModel for the tokenizer above, its weights given by the seed."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(SPECIAL) + len(vocabulary()),
                hidden_size=options.hidden,
                intermediate_size=2 * options.hidden,
                projection_dim=options.hidden,
                num_hidden_layers=options.layers,
                num_attention_heads=options.heads,
                max_position_embeddings=MAX_TOKENS,
                pad_token_id=0,
                bos_token_id=2,
                eos_token_id=3,
            )
        )


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> torch.Tensor:
    """Token numbers int[b, 14], padded or cut to the length of the world's longest caption."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    return encoded["input_ids"]


def encode(tokenizer: PreTrainedTokenizerFast, encoder: CLIPTextModel, texts: Sequence[str]) -> Embedding:
    """The embedding of each text, without gradient; it does not depend on the other texts."""
    with torch.no_grad():
        tokens = tokenize(tokenizer, texts).to(encoder.device)
        out = encoder(input_ids=tokens)
    return Embedding(out.last_hidden_state, out.pooler_output)


def train_text_encoder(
    options: TextOptions, captions: Sequence[Caption], *, on_step: Callable[[int, float], None]
) -> CLIPTextModel:
    """The encoder after `steps` of parsing the given captions, tasks in equal shares."""
    encoder, tokens = build_text_encoder(options), tokenize(build_tokenizer(), [c.text for c in captions])
    answers = torch.tensor([_answers(c.expectation) for c in captions])
    by_task = [np.array([n for n, c in enumerate(captions) if c.task == task]) for task in TASKS]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed + 1)
        head = torch.nn.Linear(options.hidden, sum(_QUESTIONS))
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=max(options.steps, 1), pct_start=0.1, cycle_momentum=False
    )
    generator = np.random.default_rng(options.seed)
    for step in range(options.steps):
        tasks = generator.integers(len(TASKS), size=options.batch)
        rows = torch.from_numpy(np.array([by_task[t][generator.integers(len(by_task[t]))] for t in tasks]))
        scores = head(encoder(input_ids=tokens[rows]).pooler_output).split(list(_QUESTIONS), dim=-1)
        losses = [functional.cross_entropy(score, answers[rows, n]) for n, score in enumerate(scores)]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        on_step(step + 1, loss.item())
    return encoder.requires_grad_(False).eval()


def _answers(expectation: Expectation) -> tuple[int, ...]:
    """The class of each question: shape, colour and count of the first object, shape and colour of the second, relation."""
    first, second = expectation.objects[0], expectation.objects[1] if len(expectation.objects) > 1 else None
    return (
        1 + SHAPES.index(first.shape),
        1 + COLOURS.index(first.colour) if first.colour else 0,
        first.count,
        1 + SHAPES.index(second.shape) if second else 0,
        1 + COLOURS.index(second.colour) if second and second.colour else 0,
        1 + RELATIONS.index(expectation.relation) if expectation.relation else 0,
    )
