"""Does a picture show the text that its prompt asks for? Read by PP-OCRv6, whose weights are in the wheel of rapidocr.

What is asked for is the `text` of the prompt's expectation (`{"text": "OPEN"}`, or a list of texts), and otherwise what the
prompt puts between quotation marks. It needs the extra `ocr` (`pip install "salon[ocr]"`) and runs on the CPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from infra.config import ConfigError
from infra.dag.stage import Places
from pipelines.algorithms.metrics.text_match import exact_match, quoted, similarity, word_accuracy
from pipelines.models.scorers.frames import mean_over_frames
from pipelines.models.scorers.scorer import OpenScorer, Sample, Scorer

FILES = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}


DIMENSIONS = ("exact", "similarity", "words")
"""exact: 0 or 1; similarity: 1 - normalised edit distance; words: share of the asked words that are shown."""
CONVENTION = "in [0, 1]: exact match, 1 - edit distance / longer length, share of asked words; mean of frames"


class Ocr(Scorer):
    """Compares the text in a picture with the text that was asked for, without regard to case and white space."""

    convention: ClassVar = CONVENTION

    name: str = "ocr"
    model: Literal["PP-OCRv6-small"] = "PP-OCRv6-small"
    """Detector and recogniser; Latin and Chinese script among others."""
    detect: bool = True
    """Finds lines of text first; False reads the whole picture as one line, which suits pictures of few pixels."""
    frames: int = Field(4, ge=1)
    """Frames of a clip that are read, evenly spaced; a clip's scores are their means."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """See DIMENSIONS."""
        return DIMENSIONS

    def open(self, device: str, places: Places) -> OpenScorer:
        """Loads the recogniser onto the CPU, whatever the device."""
        return OpenOcr(load_reader(), options=self)


class OpenOcr:
    """The recogniser in memory; NaN where a prompt asks for no text or a file cannot be read."""

    def __init__(self, reader: Any, *, options: Ocr) -> None:
        self.reader = reader
        self.options = options

    def score(self, samples: Sequence[Sample]) -> Float[np.ndarray, "samples 3"]:
        found = np.full((len(samples), 3), np.nan)
        asked = [asked_text(sample) for sample in samples]
        places = [place for place, text in enumerate(asked) if text]
        if places:
            chosen, texts = [samples[place] for place in places], [asked[place] for place in places]
            compare = lambda frame, place: compared(self.read(frame), asked=texts[place])  # noqa: E731
            found[places] = mean_over_frames(chosen, frames=self.options.frames, measure=compare, dimensions=3)
        return found

    def read(self, frame: np.ndarray) -> str:
        """The text in uint8[height, width, 3], lines from top to bottom, joined by spaces; "" where there is none."""
        given: dict[str, Any] = {} if self.options.detect else {"use_det": False, "use_cls": False, "use_rec": True}
        # rapidocr takes arrays in OpenCV's order of channels: blue, green, red.
        read = self.reader(np.ascontiguousarray(frame[..., ::-1]), **given)
        return " ".join(read.txts or ())


def compared(shown: str, *, asked: str) -> tuple[float, ...]:
    """The measures of DIMENSIONS of the text that is shown."""
    return tuple(measure(shown, asked=asked) for measure in (exact_match, similarity, word_accuracy))


def load_reader() -> Any:
    """rapidocr on one thread with the weights of its own wheel: nothing is downloaded."""
    try:
        import rapidocr
    except ImportError as error:
        raise ConfigError('scorer ocr needs rapidocr and onnxruntime: pip install "salon[ocr]"') from error
    folder = Path(rapidocr.__file__).parent / "models"
    missing = [file for file in FILES.values() if not (folder / file).is_file()]
    if missing:
        raise ConfigError(f'{folder} lacks {missing[0]}: this rapidocr is not the one that "salon[ocr]" asks for')
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    weights = {f"{part}.model_path": str(folder / file) for part, file in FILES.items()}
    return rapidocr.RapidOCR(params={"Global.log_level": "critical", **threads, **weights})


def asked_text(sample: Sample) -> str:
    """The text that a sample's prompt asks for; "" where it asks for none."""
    expected = json.loads(sample.expectation) if sample.expectation else None
    texts = expected.get("text") if isinstance(expected, dict) else None
    if texts is None:
        texts = quoted(sample.prompt)
    return " ".join([texts] if isinstance(texts, str) else texts).strip()
