"""A juror's processor, and the tokens of the words that count as answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.config import ConfigError
from infra.store.files import refuse_unsafe


def load_processor(folder: Path) -> Any:
    """Tokenizer and picture processor of a local folder; no code of the folder is run."""
    from transformers import AutoProcessor
    from transformers.utils import logging

    refuse_unsafe(folder)
    logging.set_verbosity_error()  # a line for each picture processor that torchvision would speed up
    logging.disable_progress_bar()
    return AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def answer_tokens(tokenizer: Any, answers: tuple[str, ...]) -> list[int]:
    """One token id a word; a word of another length is a ConfigError."""
    tokens = []
    for answer in answers:
        pieces = tokenizer.encode(answer, add_special_tokens=False)
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
            raise ConfigError(f"answer {answer!r} is not one token of this juror's tokenizer; ask for a word that is")
        tokens.append(pieces[0])
    return tokens
