"""A handful of preference pairs with real pictures or clips, to write in any format and read again."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.exchange.folder import read_pairs
from pipelines.exchange.media import MediaReader, Place
from pipelines.exchange.pairs import PairWithMedia

CHOICES = ("a", "b", "tie")


def picture(seed: int, kind: str = "PNG") -> bytes:
    """An encoded picture of 8 x 6 random pixels."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, format=kind)
    return out.getvalue()


def clip(seed: int, frames: int = 5) -> bytes:
    """An encoded clip of 16 x 16 pixels, 8 frames a second."""
    import av

    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 16, 16, 3), dtype=np.uint8)
    with av.open(out, mode="w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def some_pairs(count: int = 6, *, clips: bool = False) -> list[PairWithMedia]:
    """Pairs whose choices go round a, b and tie; two of them have one prompt, all have odd characters in it."""
    make = clip if clips else picture
    return [
        PairWithMedia(
            id=f"pair{number}",
            prompt=f'a "red", naïve\nfox №{number // 2}',
            choice=CHOICES[number % 3],
            agreement=0.5 + number / 16,
            score=0.25 * (1 - number % 3) * (number + 1),
            generator_a=f"maker {number % 2}",
            generator_b="other, maker",
            a=make(2 * number),
            b=make(2 * number + 1),
            margins={"VQ": 1.0 - number % 3, "TA": 0.0},
            subset=("", "text rendering")[number % 2],
        )
        for number in range(count)
    ]


def read(folder: Path, *, format: str, renamed: dict[str, str] | None = None) -> tuple[list[PairWithMedia], list[str]]:
    """The pairs of a folder with their files, and what is wrong with the others, file and line first."""
    reader = MediaReader(folder)
    pairs, wrong = [], []
    for batch in read_pairs(folder, format=format, renamed=renamed or {}):
        for row in batch.to_pylist():
            place = f"{row['file']} {row['place']}".strip()
            if row["error"]:
                wrong.append(f"{place}: {row['error']}")
                continue
            places = [Place(row["file"], row["row"], row[f"column_{side}"], row[f"path_{side}"]) for side in "ab"]
            data = reader.fetch(places)
            kept = {name: row[name] for name in ("prompt", "choice", "agreement", "score", "generator_a", "generator_b")}
            said = {"margins": dict(row["margins"] or []), "subset": row["subset"] or ""}
            pairs.append(PairWithMedia(id=row["pair_id"], **kept, a=data[0], b=data[1], **said))
    return pairs, wrong


def swapped(pair: PairWithMedia) -> PairWithMedia:
    """The same said the other way round."""
    other = {"a": "b", "b": "a", "tie": "tie"}[pair.choice]
    return replace(
        pair,
        choice=other,
        a=pair.b,
        b=pair.a,
        generator_a=pair.generator_b,
        generator_b=pair.generator_a,
        score=-pair.score,
    )


def winner_first(pair: PairWithMedia) -> PairWithMedia:
    """With the winner as a."""
    return swapped(pair) if pair.choice == "b" else pair


def essence(pairs: list[PairWithMedia]) -> list[tuple]:
    """What every format says: prompt, choice, makers and files; in an order of its own."""
    return sorted((p.prompt, p.choice, p.generator_a, p.generator_b, p.a, p.b) for p in pairs)
