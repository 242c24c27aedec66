"""Hand-made rows of a small run, hostile text among them, for the tests of the report."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from PIL import Image as Pillow

from infra.store.tables import Image
from pipelines.reporting.data import Duel, Gallery, GalleryEntry, GalleryPicture, LabelCounts, Node, ReportData
from pipelines.schemas.curves import Curve, curve_rows
from pipelines.schemas.evaluation import EvaluationSummary, GateReason
from pipelines.schemas.training import RewardAccuracy
from pipelines.schemas.votes import JurorStatistics, Rating

TASKS = ("single", "two", "counting", "colours", "position", "attribution")
HOSTILE = "<script>alert('1')</script> \"two\" <img src=http://evil.example/x onerror=alert(1)> & {{ 7 * 7 }} \u202e\x00"


def png(colour: tuple[int, int, int], *, edge: int = 32) -> Image:
    """A square with a frame."""
    picture = Pillow.new("RGB", (edge, edge), (235, 235, 235))
    picture.paste(colour, (edge // 4, edge // 4, 3 * edge // 4, 3 * edge // 4))
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return Image(sink.getvalue())


def entry(number: int, *, text: str = "", edge: int = 32, tuned: Image | None = None) -> GalleryEntry:
    """One caption by two arms; both are right and wrong in turn."""
    pictures = [
        GalleryPicture("policy", f"{number:031x}a", png((200, 30, 30), edge=edge), {"checker strict": number % 4 == 0}),
        GalleryPicture(
            "policy-tuned",
            f"{number:031x}b",
            tuned or png((30, 30, 200), edge=edge),
            {"checker strict": number % 3 == 0, "reward overall": None},
            ("no", "tie", "yes")[number % 3],
        ),
    ]
    caption = text or f"a picture of {number} red circles left of a blue square"
    return GalleryEntry(caption, TASKS[number % len(TASKS)], 0, 1000 + number, pictures)


def summary(
    measure: str,
    dimension: str,
    task: str,
    numbers: tuple[float, float, float],
    *,
    arm: str = "policy-tuned",
    **changed: Any,
) -> EvaluationSummary:
    """A mean of a held-out measure unless said otherwise; numbers are difference, low, high."""
    row = EvaluationSummary(
        arm=arm,
        baseline="policy",
        measure=measure,
        dimension=dimension,
        statistic="mean",
        task=task,
        value=0.4 + numbers[0],
        baseline_value=0.4,
        difference=numbers[0],
        low=numbers[1],
        high=numbers[2],
        n=1000,
        trained_on=False,
        convention="share in [0, 1]",
    )
    return replace(row, **changed)


def summaries() -> list[EvaluationSummary]:
    """Strict rises over all, falls in position, is open in counting; the jury and the reward taught the arm."""
    rows = [summary("checker", "strict", "overall", (0.071, 0.044, 0.098))]
    change = {"position": (-0.06, -0.11, -0.01), "counting": (0.01, -0.03, 0.05)}
    rows += [summary("checker", "strict", task, change.get(task, (0.09, 0.04, 0.14))) for task in TASKS]
    rows.append(summary("checker", "quality", "overall", (0.06, 0.03, 0.09)))
    rows.append(summary("reward", "overall", "overall", (1.2, 0.9, 1.5), trained_on=True, convention="logit"))
    rows.append(summary("jury", "overall", "overall", (0.06, 0.03, 0.09), statistic="win_rate", trained_on=True))
    return rows


def tune_curve(count: int = 300) -> list[Curve]:
    """A run that learns, by a method with a metric of its own."""
    log = []
    for k in range(count):
        s = k / count
        log.append(
            {
                "step": k + 1,
                "loss": 0.69 - 0.2 * s + 0.03 * (k % 3),
                "implicit_accuracy": 0.5 + 0.3 * s,
                "winner_error": 0.30 - 0.02 * s,
                "loser_error": 0.31 + 0.05 * s,
                "error_drift": 0.01 * s,
                "entropy_bonus": 0.1 * s if k % 2 else None,
                "gradient_norm": 1 + s,
                "learning_rate": 1e-4,
            }
        )
    return list(curve_rows(log))


def reward_curve(count: int = 200) -> list[Curve]:
    """A reward model that learns."""
    return list(curve_rows({"step": k + 1, "loss": 0.69 - k / 1000, "accuracy": 0.5 + k / 1000} for k in range(count)))


def ratings() -> list[Rating]:
    """Four generators, one with a hostile name."""
    names = ["strong", "middle", "weak", HOSTILE]
    return [
        Rating(
            name,
            30 - 4 * k,
            1.0 + k / 5,
            0.1,
            30 - 4 * k - 3 - 3 * k / 5,
            900,
            500 - 90 * k,
            300 + 90 * k,
            100,
            b,
            b - 0.2,
            b + 0.2,
        )
        for k, (name, b) in enumerate(zip(names, (0.9, 0.3, -0.3, -0.9), strict=True))
    ]


def nodes() -> list[Node]:
    """The ten stages of the main job, with the edges they have."""
    parents = {
        "prompts": (),
        "render": ("prompts",),
        "pair": ("render",),
        "judge": ("pair", "render"),
        "label": ("judge", "pair"),
        "arena": ("label",),
        "reward": ("label", "render"),
        "tune": ("label", "arena", "render"),
        "evaluate": ("tune", "reward", "prompts"),
        "report": ("label", "arena", "reward", "tune", "evaluate"),
    }
    seconds = dict(zip(parents, (0.4, 21.0, 0.3, 38.5, 0.5, 0.6, 25.0, 133.7, 30.2, None), strict=True))
    return [
        Node(
            node=name,
            stage=name,
            key=f"{name:0<24}",
            state="this page" if name == "report" else "hit" if name in ("prompts", "render") else "computed",
            seconds=seconds[name],
            rows=None if name == "report" else 2400,
            error_rows=3 if name == "judge" else 0,
            reused_rows=1200 if name == "judge" else 0,
            parents=above,
            settings={"seed": "0", "juror": HOSTILE} if name == "judge" else {"version": "1"},
        )
        for name, above in parents.items()
    ]


def report_data() -> ReportData:
    """A full report."""
    entries = [entry(k) for k in range(23)]
    entries += [entry(23, text=HOSTILE), entry(24, edge=512, tuned=Image(b"no picture"))]
    return ReportData(
        nodes=nodes(),
        ratings=ratings(),
        duels=[Duel("middle", "strong", 30, 80, 10), Duel("strong", "weak", 90, 10, 20), Duel("weak", "weak", 5, 5, 0)],
        gaps=[0.5 + 0.01 * k for k in range(400)],
        jurors=[
            JurorStatistics("steady", 4000, 0.01, 0.12, 0.0, 0.08, 0.81),
            JurorStatistics(HOSTILE, 4000, -0.21, 0.05, 0.02, 0.4, 0.46),
        ],
        labels=LabelCounts(pairs=2000, ties=310, unanimous=900, agreement=0.78, unparsable_votes=80),
        reward_accuracy=[
            RewardAccuracy(t / 10, 0.75 - 0.03 * t, 0.71 - 0.03 * t, 0.79 - 0.03 * t, 500, 0.7 - 0.03 * t, 0.2, 540)
            for t in range(1, 10)
        ],
        reward_curve=reward_curve(),
        tune_curve=tune_curve(),
        summary=summaries(),
        gallery=Gallery(entries, 4, 1000),
        gate=[GateReason("policy-tuned", True, "held-out strict (+0.0710, [+0.0440, +0.0980], n = 1000) does not fall")],
        libraries={"python": "3.11", "torch": "2.13.0"},
        commit="0123456789abcdef",
        target="feedfacefeedface",
    )
