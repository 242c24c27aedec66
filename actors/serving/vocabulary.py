"""A juror's processor, and the tokens of the words that count as answers."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from actors.serving.qwen_video import MODELS, QwenVideoInput
from infra.config import ConfigError
from infra.store.files import refuse_unsafe


def load_processor(folder: Path) -> Any:
    """Tokenizer and picture processor of a local folder; no code of the folder is run.

    Raises ConfigError for a folder that has no processor of pictures or no chat template.
    """
    from transformers.utils import logging

    refuse_unsafe(folder)
    logging.set_verbosity_error()  # a line for each picture processor that torchvision would speed up
    logging.disable_progress_bar()
    processor = _processor(folder)
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise ConfigError(f"{folder} has no processor of pictures and text: save the model's own processor into it")
    if not processor.chat_template:
        processor.chat_template = tokenizer.chat_template
    if not processor.chat_template:
        raise ConfigError(
            f"the processor in {folder} has no chat template, so nobody knows how its model is asked; save one as "
            "chat_template.jinja beside it (a base model that was never tuned to answer has none)"
        )
    return processor


def _processor(folder: Path) -> Any:
    """The processor; where there is no torchvision, without its video input, or with Qwen's own made here."""
    from transformers import AutoProcessor
    from transformers.utils.import_utils import is_torchvision_available

    if is_torchvision_available():
        return AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config = folder / "config.json"
    model = json.loads(config.read_text()).get("model_type", "") if config.is_file() else ""
    processor = _class_without_video(model).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if model in MODELS:
        processor.video_processor = QwenVideoInput.of(folder, processor.image_processor)
    return processor


def _class_without_video(model: str) -> Any:
    """The class that loads a model's processor, its video input left out; AutoProcessor where it has none."""
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name = PROCESSOR_MAPPING_NAMES.get(model)
    kind = getattr(import_module("transformers"), name) if isinstance(name, str) else None
    return AutoProcessor if kind is None or "video_processor" not in kind.get_attributes() else without_video(kind)


def without_video(kind: Any) -> Any:
    """A processor's class that needs no video processor: all of those need torchvision, which few machines need else."""
    kept = [name for name in kind.get_attributes() if name != "video_processor"]
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda cls: kept)})


def answer_tokens(tokenizer: Any, answers: tuple[str, ...]) -> list[int]:
    """One token id a word; a word of another length is a ConfigError."""
    tokens = []
    for answer in answers:
        pieces = tokenizer.encode(answer, add_special_tokens=False)
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
            raise ConfigError(
                f"answer {answer!r} is not one token of this juror's tokenizer; ask for a word that is, or let the juror "
                "answer in free text that a grammar reads"
            )
        tokens.append(pieces[0])
    return tokens
