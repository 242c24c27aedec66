"""`python -m tests.benchmarks.gpu_judge`: questions to a juror of Qwen2-VL-2B's size, with random weights, on a GPU.

Questions per second, peak memory and model-FLOPs utilisation for several questions per batch. A question shows two
pictures and is answered by one token, as in Salon's pairwise comparison by the transformers engine; pictures are random
patches on the device, so reading, resizing and tokenising them is not part of it. Results go to
`results/judge-DEVICE.json`. Needs torch and transformers alone. `--tiny` runs the same code in seconds on a CPU.

`salon plan` reckons no memory of judging; beside the peak stands what the weights take (`weights_gib`).
Measured nowhere yet: no GPU was at hand when this was written. Only `--tiny` has run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tests.benchmarks import gpu
from tests.benchmarks.measure import Result

FORMULA = (
    "per question, 2 m n k of every matrix product: for each patch of a picture 2 (C P D + depth (4 + 2 r) D^2) and in "
    "attention 4 depth N D; for each merged token 2 (16 D^2 + 4 D H); for each token of text and pictures 2 layers (2 H^2 "
    "+ 2 H K + 3 H I) and in attention 4 layers S H (the causal half is not taken off); for the answer 2 H V"
)
BATCHES = (1, 4, 16, 32)
PICTURES, CALLS = 2, 5
MERGE = 2  # patches along each side of a token
START, END, IMAGE, VIDEO = 0, 1, 2, 3  # ids of the special tokens, in a vocabulary of random words


@dataclass(frozen=True)
class Size:
    """Of the model and of a question."""

    text: dict[str, Any]
    vision: dict[str, Any]
    side: int
    """Of a square picture, in pixels."""
    words: int
    """Tokens of the question's text."""

    @property
    def grid(self) -> int:
        """Patches along a side of a picture."""
        return self.side // self.vision["patch_size"]

    @property
    def tokens(self) -> int:
        """Tokens of a question: its text, and of each picture the merged patches between two marks."""
        return self.words + PICTURES * ((self.grid // MERGE) ** 2 + 2)


SIZES = {
    "qwen2-vl-2b": Size(
        text={
            "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
            "num_attention_heads": 12, "num_key_value_heads": 2, "mrope_section": [16, 24, 24],
        },
        vision={
            "depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14,
        },
        side=448,
        words=128,
    )
}  # fmt: skip
"""Qwen/Qwen2-VL-2B-Instruct, config.json."""
TINIES = {
    "qwen2-vl-2b": Size(
        text={
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "mrope_section": [2, 3, 3],
        },
        vision={"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4},
        side=32,
        words=9,
    )
}  # fmt: skip


def build(size: Size, *, device: torch.device) -> Any:
    """The model with random weights; word embeddings are its output layer, too, as in the published one."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = dict(size.text)
    rope = {"rope_type": "default", "type": "mrope", "mrope_section": text.pop("mrope_section"), "rope_theta": 1e6}
    ids = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": END}
    config = Qwen2VLConfig(
        text_config=text | ids | {"rope_parameters": rope, "tie_word_embeddings": True},
        vision_config=size.vision,
        vision_start_token_id=START,
        vision_end_token_id=END,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        tie_word_embeddings=True,
    )
    with gpu.made_on(device):
        model = Qwen2VLForConditionalGeneration(config)
    return model.eval()


def questions(size: Size, batch: int, *, device: torch.device) -> dict[str, Any]:
    """So many questions as the processor would give them to the model."""
    generator = gpu.seed(device)
    merged = (size.grid // MERGE) ** 2
    picture = [START, *[IMAGE] * merged, END]
    words = torch.randint(VIDEO + 1, size.text["vocab_size"], (batch, size.words), generator=generator, device=device)
    shown = torch.tensor(picture * PICTURES, device=device).expand(batch, -1)
    ids = torch.cat([shown, words], dim=1)
    values = 3 * 2 * size.vision["patch_size"] ** 2  # a picture is shown as two equal frames
    patches = batch * PICTURES * size.grid**2
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).int(),
        "pixel_values": torch.randn(patches, values, generator=generator, device=device, dtype=torch.bfloat16),
        "image_grid_thw": torch.tensor([[1, size.grid, size.grid]] * (batch * PICTURES), device=device),
    }


def flops_of(size: Size) -> float:
    """Operations of one question; see FORMULA."""
    text, vision = size.text, size.vision
    wide, width, depth = text["hidden_size"], vision["embed_dim"], vision["depth"]
    patches, tokens = size.grid**2, size.tokens
    seen = 3 * 2 * vision["patch_size"] ** 2 * width + depth * (4 + 2 * vision["mlp_ratio"]) * width**2
    seen += 2 * depth * patches * width
    joined = MERGE**2 * width
    merged = patches / MERGE**2 * (joined**2 + joined * wide)
    keys = wide // text["num_attention_heads"] * text["num_key_value_heads"]
    layer = 2 * wide**2 + 2 * wide * keys + 3 * wide * text["intermediate_size"] + 2 * tokens * wide
    read = tokens * text["num_hidden_layers"] * layer + wide * text["vocab_size"]
    return 2.0 * (PICTURES * (patches * seen + merged) + read)


def asking(size: Size, batch: int, *, device: torch.device) -> Callable[[], torch.Tensor]:
    """A call that answers a batch: log-probabilities of the next token, float[batch, vocabulary]."""
    model, given = build(size, device=device), questions(size, batch, device=device)

    def ask() -> torch.Tensor:
        with torch.inference_mode():
            return model(**given, use_cache=False, logits_to_keep=1).logits[:, -1].float().log_softmax(-1).cpu()

    return ask


def weights_of(size: Size) -> float:
    """GiB of the weights in bfloat16."""
    model = build(size, device=torch.device("meta"))
    return sum(2 * parameter.numel() for parameter in model.parameters()) / 2**30


def results(*, tiny: bool, batches: Sequence[int], peak: float | None, calls: int = CALLS) -> dict[str, Any]:
    """Every batch on this machine's device, with what it ran under."""
    device = gpu.device_of(tiny=tiny)
    peak = gpu.peak_of(gpu.name_of(device)) if peak is None else peak
    rows = []
    for name, size in (TINIES if tiny else SIZES).items():
        flops, weights = flops_of(size), weights_of(size)
        for batch in batches:

            def seconds(size: Size = size, batch: int = batch) -> float:
                return gpu.seconds_of(asking(size, batch, device=device), device=device, calls=calls)

            row = {"model": name, "pictures": PICTURES, "side": size.side, "tokens": size.tokens, "batch": batch}
            row |= {"weights_gib": weights} | gpu.measured(seconds, device=device)
            if not row["out_of_memory"]:
                row["questions_per_second"] = batch / row["seconds"]
                row |= gpu.utilisation(batch * flops, seconds=row["seconds"], peak=peak)
            print(json.dumps(row), flush=True)
            rows.append(row)
    said = gpu.about(device, peak=peak, packages=("torch", "transformers"), formula=FORMULA)
    return said | {"sizes": "tiny" if tiny else "published, random weights", "rows": rows}


def run() -> list[Result]:
    """The best rate, beside no bar; nothing on a machine without a CUDA device."""
    if not torch.cuda.is_available():
        print("gpu_judge: there is no CUDA device here, so nothing is measured")
        return []
    found = results(tiny=False, batches=BATCHES, peak=None)
    gpu.write(found, gpu.RESULTS, kind="judge")
    fit = [row for row in found["rows"] if not row["out_of_memory"]]
    best = {row["model"]: row for row in sorted(fit, key=lambda row: row["questions_per_second"])}
    return [
        Result(f"gpu_judge: questions per second, {name}", row["questions_per_second"], ">= 0", row)
        for name, row in best.items()
    ]


def main(arguments: list[str]) -> int:
    """Exit status 2 where there is no CUDA device and `--tiny` is not given."""
    given = gpu.parsed("gpu_judge", arguments, batch=BATCHES, unit="questions")
    if given is None:
        return 2
    found = results(tiny=given.tiny, batches=given.batch, peak=given.peak, **({"calls": 1} if given.tiny else {}))
    print(gpu.write(found, given.out, kind="judge"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
