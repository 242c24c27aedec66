"""Published values of the scorers beside what the scorers here compute, for anyone who has the weights and the pictures.

    python -m tests.benchmarks.published_scores --pictures FOLDER \
        --clip openai/clip-vit-base-patch32 --imagereward CONVERTED_FOLDER
    python -m tests.benchmarks.published_scores --samples FOLDER --pickscore yuvalkirstain/PickScore_v1 \
        --hpsv2 CONVERTED_FOLDER --aesthetic openai/clip-vit-large-patch14 CONVERTED_HEAD

Weights are folders or repositories of the Hub (HF_HUB_OFFLINE=0 lets them be downloaded). `--pictures` holds the pictures
of the published examples: 000000039769.jpg of COCO val2017, and 1.webp to 4.webp of assets/images of ImageReward's
repository. `--samples` holds pictures of SD1.5 for prompts of the Pick-a-Pic v2 test set, each NAME.png with its prompt in
NAME.txt: their mean is to be near the published mean over that set, to the extent that the pictures are like those.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from infra.store.files import Folder
from pipelines.models.scorers.aesthetic import Aesthetic
from pipelines.models.scorers.clip_score import ClipScore
from pipelines.models.scorers.hps import HPSv2
from pipelines.models.scorers.image_reward import ImageReward
from pipelines.models.scorers.pickscore import PickScore
from pipelines.models.scorers.scorer import Sample, Scorer
from pipelines.models.weights import Hub, Weights
from tests.support.places import NOWHERE

OCEAN = "a painting of an ocean with clouds and birds, day time, low depth field effect"


@dataclass(frozen=True)
class Reference:
    """One published value of one picture."""

    picture: str
    prompt: str
    value: float


EXAMPLES = {
    # transformers' integration test of openai/clip-vit-base-patch32: its logits are 100 times the cosine.
    "clip": [
        Reference("000000039769.jpg", "a photo of a cat", 24.5701),
        Reference("000000039769.jpg", "a photo of a dog", 19.3049),
    ],
    # The example of ImageReward's README.
    "imagereward": [
        Reference("1.webp", OCEAN, 0.5811622738838196),
        Reference("2.webp", OCEAN, 0.2745276093482971),
        Reference("3.webp", OCEAN, -1.4131819009780884),
        Reference("4.webp", OCEAN, -2.029569625854492),
    ],
}
SD15_MEANS = {"pickscore": 20.57, "hpsv2.1": 0.2502, "aesthetic": 5.42, "imagereward": 0.085}
"""Means of SD1.5's pictures for Pick-a-Pic v2's test prompts (ViPO, Table 2)."""


def weights_of(name: str) -> Weights:
    """A folder, or a repository of the Hub."""
    return Folder(path=name) if Path(name).is_dir() else Hub(repo=name, holds="model")


def scorers_of(given: argparse.Namespace) -> dict[str, Scorer]:
    """The scorers whose weights were named."""
    tokenizer = None if given.tokenizer is None else weights_of(given.tokenizer)
    found: list[Scorer] = []
    if given.clip:
        found.append(ClipScore(weights=weights_of(given.clip)))
    if given.pickscore:
        found.append(PickScore(weights=weights_of(given.pickscore), tokenizer=tokenizer))
    if given.hpsv2:
        found.append(HPSv2(weights=weights_of(given.hpsv2), tokenizer=tokenizer))
    if given.imagereward:
        found.append(ImageReward(weights=weights_of(given.imagereward)))
    if given.aesthetic:
        clip, head = given.aesthetic
        found.append(Aesthetic(weights=weights_of(clip), head=weights_of(head)))
    return {scorer.name: scorer for scorer in found}


def report(scorers: Mapping[str, Scorer], *, pictures: Path | None, samples: Path | None, device: str) -> list[str]:
    """A line for each published value that can be computed."""
    lines = [f"{'scorer':12} {'published':>10} {'here':>10}  of"]
    for name, scorer in scorers.items():
        opened = scorer.open(device, NOWHERE)
        shown = [] if pictures is None else [r for r in EXAMPLES.get(name, []) if (pictures / r.picture).is_file()]
        if shown and pictures is not None:
            given = [Sample((pictures / each.picture).read_bytes(), "image", each.prompt) for each in shown]
            for each, value in zip(shown, opened.score(given)[:, 0], strict=True):
                lines.append(f"{name:12} {each.value:10.4f} {value:10.4f}  {each.picture}: {each.prompt}")
        if samples is not None and name in SD15_MEANS:
            files = sorted(samples.glob("*.png"))
            given = [Sample(f.read_bytes(), "image", f.with_suffix(".txt").read_text().strip()) for f in files]
            mean = float(np.nanmean(opened.score(given))) if given else np.nan
            lines.append(f"{name:12} {SD15_MEANS[name]:10.4f} {mean:10.4f}  mean of {len(given)} pictures of SD1.5")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("clip", "pickscore", "hpsv2", "imagereward"):
        parser.add_argument(f"--{name}", metavar="WEIGHTS", help=f"weights of {name}: a folder or a repository")
    parser.add_argument("--aesthetic", nargs=2, metavar=("CLIP", "HEAD"), help="CLIP-L/14 and the converted head")
    parser.add_argument("--tokenizer", help="tokenizer of PickScore and HPSv2.1, if not beside their weights")
    parser.add_argument("--pictures", type=Path, help="folder with the pictures of the published examples")
    parser.add_argument("--samples", type=Path, help="folder with pictures of SD1.5, NAME.png and NAME.txt")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute; cpu by default")
    given = parser.parse_args(arguments)
    scorers = scorers_of(given)
    print("\n".join(report(scorers, pictures=given.pictures, samples=given.samples, device=given.device)))


if __name__ == "__main__":
    main()
