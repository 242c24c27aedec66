"""The report's page: self-contained, complete, deterministic, and deaf to what hostile text says."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from actors.media import encode_mp4, measures
from infra.store.tables import Video
from pipelines.reporting.dag_figure import assign_lanes
from pipelines.reporting.data import ReportData
from pipelines.reporting.page import render_report
from pipelines.reporting.pictures import draw, embed
from pipelines.schemas.curves import curve_rows
from pipelines.schemas.votes import JurorStatistics
from support.report_rows import HOSTILE, png, report_data, summary

SECTIONS = ("summary", "dag", "ratings", "jury", "tune", "reward", "gallery", "scores", "reproduce")
VOID = {"meta", "img", "link", "br", "input"}


class Page(HTMLParser):
    """Every start tag with its attributes, the texts, and whether tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.stack: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def source() -> str:
    return render_report(report_data())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_every_section_is_there_and_tags_close_in_order(page: Page) -> None:
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == list(SECTIONS)
    assert page.stack == []


def test_nothing_is_loaded_from_outside(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "action", "data", "xlink:href", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,"))
        assert not any(name.startswith("on") or name == "style" for name in attributes)


def test_the_policy_admits_this_style_and_nothing_else(source: str, page: Page) -> None:
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    style = source.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    media = "img-src data:; media-src data:"
    assert policy == f"default-src 'none'; {media}; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style and "@import" not in style


def test_hostile_text_is_shown_and_never_obeyed(source: str, page: Page) -> None:
    assert "<script" not in source and "<img src=http" not in source
    assert "\x00" not in source and "\u202e" not in source
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    assert any(shown in text for text in page.texts)


def test_the_same_rows_give_the_same_bytes(source: str) -> None:
    assert render_report(report_data()) == source


def test_a_curve_is_drawn_for_every_metric_that_a_training_reports(page: Page) -> None:
    drawn = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    starts = ("loss:", "implicit accuracy:", "winner error and loser error:", "error drift:", "entropy bonus:", "accuracy:")
    assert all(any(label.startswith(start) for label in drawn) for start in starts)
    assert not any(label.startswith("loser error") for label in drawn)


def test_a_training_without_pairs_metrics_is_shown_and_found_no_fault_with() -> None:
    rows = curve_rows({"step": k + 1, "loss": 1.0, "group_reward": float(k)} for k in range(30))
    shown = render_report(ReportData(tune_curve=list(rows)))
    assert "30 steps" in shown and "group reward" in shown and "no better than chance" not in shown


def test_the_page_is_small(source: str) -> None:
    assert len(source.encode()) < 1_500_000


def test_every_picture_has_a_text_and_small_ones_keep_their_pixels(page: Page) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 2 * 25 - 1
    assert all(attributes["alt"] for attributes in pictures)
    assert sum(a.get("class") == "pixelated" for a in pictures) == 2 * 24
    assert all(int(a["width"]) >= 96 and int(a["width"]) % 32 == 0 for a in pictures)
    assert all(attributes["aria-label"] for tag, attributes in page.tags if tag == "svg")


def test_a_report_without_rows_has_every_section_too() -> None:
    empty = Page(render_report(ReportData()))
    assert [a["id"] for tag, a in empty.tags if tag == "section"] == list(SECTIONS)
    assert any("nothing can be said" in text for text in empty.texts)


def test_where_it_does_not_work_is_said_first(source: str) -> None:
    summary = source.split('id="summary"')[1].split('id="dag"')[0]
    for said in (
        "checker strict, position",
        "is below zero",
        "checker strict, counting",
        "includes zero",
        "judge: 3 rows",
        "unparsable",
    ):
        assert said in summary
    assert "strict, single" not in summary


def test_the_draw_is_by_caption_alone() -> None:
    captions = [(f"caption {k}", "single" if k % 2 else "two", k % 3) for k in range(60)]
    first = [(f"id{k}", *caption) for k, caption in enumerate(captions)]
    later = [(f"other{k}", *caption) for k, caption in enumerate(captions)][::-1]
    one, two = draw(first, per_task=4), draw(later, per_task=4)
    assert len(one) == 8
    assert [name.removeprefix("id") for name in one] == [name.removeprefix("other") for name in two]


def test_a_large_picture_is_reduced() -> None:
    shown = embed(png((1, 2, 3), edge=600))
    assert (shown.width, shown.height) == (192, 192) and shown.uri.startswith("data:image/jpeg;")


def test_a_clip_is_a_reduced_video_of_all_its_frames_at_its_own_rate() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 90, 400, 3), dtype=np.uint8)
    shown = embed(encode_mp4(frames, fps=12))
    assert shown.plays and (shown.width, shown.height) == (256, 58)
    kind, data = shown.uri.split(",", 1)
    assert kind == "data:video/mp4;base64"
    played = measures(base64.b64decode(data), clip=True)
    assert (played.frames, played.fps, played.width, played.height) == (7, 12.0, 256, 58)
    assert embed(Video(b"no clip")).uri == ""


def test_edges_that_overlap_take_different_lanes() -> None:
    lanes = assign_lanes([(0, 2), (1, 3), (4, 6)])
    assert lanes[0, 2] != lanes[1, 3] and lanes[4, 6] == lanes[0, 2]


def test_the_page_names_whatever_arms_and_measures_there_are() -> None:
    rows = [
        summary("sharpness", "edges", "overall", (0.2, 0.1, 0.3), arm="round 1", convention="mean gradient"),
        summary("sharpness", "edges", "overall", (-0.2, -0.3, -0.1), arm="round 2", convention="mean gradient"),
        summary("people", "overall", "overall", (0.1, -0.1, 0.3), arm="round 2", statistic="win_rate", trained_on=True),
    ]
    page = render_report(ReportData(summary=rows))
    assert "round 1 is better than policy: sharpness edges" in page
    assert "round 2 is worse than policy: sharpness edges" in page
    assert "people win rate" in page and "strict" not in page and "checker" not in page


def test_an_arm_measured_only_by_what_taught_it_has_no_headline() -> None:
    rows = [summary("reward", "overall", "overall", (0.2, 0.1, 0.3), trained_on=True)]
    assert "policy-tuned: no held-out measure" in render_report(ReportData(summary=rows))


def test_every_stacked_table_names_each_number_where_a_phone_stacks_its_cells(page: Page, source: str) -> None:
    style = source.split("<style>")[1].split("</style>")[0]
    assert "table.stacked td::before { content: attr(data-label)" in style
    tables = source.split('<table class="stacked">')[1:]
    assert len(tables) >= 4  # measures, ratings, jurors, accuracy by noise level
    for table in tables:
        inside = table.split("<tbody>")[1].split("</tbody>")[0]
        cells = inside.count("<td")
        assert cells and cells == inside.count("data-label=")


def test_a_jurors_dimensions_are_told_apart_where_there_are_several() -> None:
    one = JurorStatistics("steady", 40, 0.01, 0.12, 0.0, 0.08, 0.81)
    assert ">dimension<" not in render_report(ReportData(jurors=[one]))
    page = render_report(ReportData(jurors=[replace(one, dimension="VQ"), replace(one, dimension="MQ", position_bias=0.4)]))
    assert ">dimension<" in page and ">VQ<" in page and ">MQ<" in page
    assert "steady, MQ: " in page and "steady, VQ: " not in page
