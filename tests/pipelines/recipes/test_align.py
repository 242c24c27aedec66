"""The whole loop on generators and jurors of the user's choice, on tiny random models of the real classes."""

from __future__ import annotations

import base64
import hashlib
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from actors.executor import RayExecutor
from actors.media import decode
from infra.config import ConfigError
from infra.dag.compute import StoreInputs
from infra.dag.plan import HIT, MISS, CachePolicy, Planner
from infra.dag.run import Runner
from infra.dag.selection import Selection
from infra.dag.source import Sources
from infra.dag.stage import topological
from infra.store.artifacts import Store
from infra.store.runs import read_runs
from infra.store.views import Database
from jobs.export import main as export
from jobs.recipes import call_recipe
from pipelines.miniature.jurors import WEIGHTS
from pipelines.recipes.align_image import align_image
from pipelines.recipes.align_video import align_video
from pipelines.recipes.arenapo import arenapo
from pipelines.recipes.flow_dpo_video import flow_dpo_video
from pipelines.recipes.parts import kinds, rosters
from pipelines.recipes.vipo_image import vipo_image
from pipelines.schemas.evaluation import EvaluationSummary
from pipelines.schemas.samples import Clip, Picture
from pipelines.schemas.training import Example
from pipelines.schemas.votes import Vote
from support.http_server import Asked, Reply, serving
from support.tiny import write_tiny
from support.tiny_vlm import write_tiny_vlm
from tests.benchmarks.quiet import Quiet

CPU = {"render_workers": 1, "render_gpus": 0.0, "judge_workers": 1, "judge_gpus": 0.0, "encode_workers": 1}
CPU |= {"encode_gpus": 0.0, "workers": 2, "gpus": 0.0, "precision": "fp32", "zero": "1", "micro_batch": 2, "batch": 4}
SMALL = CPU | {"steps": 2, "policy_samples": 2, "held_out": 0.3}

ROSTER = """
- name: sd15
  weights: sd15
  steps: 2
  height: 32
  width: 32
  dtype: float32
- kind: diffusers
  name: flux
  weights: flux
  steps: 2
  height: 32
  width: 32
  dtype: float32
- name: qwen
  weights: qwen-image
  steps: 2
  height: 32
  width: 32
  dtype: float32
"""


HOSTED = """- kind: served
  name: hosted
  model: anything
  revision: "1"
  height: 32
  width: 32
  endpoint: {base_url: "URL", first_wait_s: 0.01}
"""


def juror(name: str, model: str | Path, questionnaire: str) -> str:
    return f"- name: {name}\n  weights: {WEIGHTS / model}\n  questionnaire: {questionnaire}\n"


JURY = juror("one", "idefics3-pairwise", "{kind: pairwise}") + juror("two", "qwen2-vl", "{kind: pairwise}").replace(
    str(WEIGHTS / "qwen2-vl"), "qwen2-vl"
)
SERVED = """
- kind: served
  name: served
  questionnaire: {kind: pairwise}
  server:
    model: anything
    revision: "1"
    endpoint: {base_url: "URL", first_wait_s: 0.01}
"""
JUDGES = juror("three", "idefics3-fine", "{kind: pairwise}")


@pytest.fixture(scope="module")
def executor(ray_session):
    with RayExecutor(workers=2) as made:
        yield made


@pytest.fixture(scope="module")
def brought(tmp_path_factory) -> Path:
    """A folder with three tiny pipelines, lists of them and of jurors, and prompts."""
    root = tmp_path_factory.mktemp("brought")
    for name in ("sd15", "flux", "qwen-image"):
        write_tiny(name, root / name)
    write_tiny_vlm("qwen2-vl", root / "qwen2-vl")
    for name, text in (("roster", ROSTER + HOSTED), ("jury", JURY), ("judges", JUDGES)):
        (root / f"{name}.yaml").write_text(text)
    (root / "prompts.txt").write_text("\n".join(f"a thing number {n}" for n in range(12)))
    return root


class Chat:
    """A chat server that prefers the picture with the smaller hash; every fifth of its first requests finds it down."""

    def __init__(self) -> None:
        self.down = 0

    def __call__(self, asked: Asked) -> Reply:
        if asked.number < 30 and asked.number % 5 == 0:
            self.down += 1
            return Reply(status=503)
        parts = asked.body["messages"][0]["content"]
        shown = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        first, second = (hashlib.sha256(url.encode()).hexdigest() for url in shown)
        message = {"role": "assistant", "content": "A" if first < second else "B"}
        choice = {"message": message, "finish_reason": "stop", "logprobs": None}
        return Reply(body={"choices": [choice], "usage": {"total_tokens": 9}})


class Painter:
    """A server of pictures that refuses the first prompt it is given, and sends half a picture for the second."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def __call__(self, asked: Asked) -> Reply:
        place = self.seen.setdefault(asked.body["prompt"], len(self.seen))
        if place == 0:
            return Reply(status=400, body={"error": {"message": "against the content policy"}})
        file = BytesIO()
        Image.new("RGB", (32, 32), (place * 20, 0, 0)).save(file, "PNG")
        data = file.getvalue()[: 40 if place == 1 else None]
        return Reply(body={"data": [{"b64_json": base64.b64encode(data).decode()}]})


@pytest.fixture(scope="module")
def chat(brought):
    """Two servers: the third juror, which is yielded, and the fourth generator; the lists name where they are."""
    answers = Chat()
    with serving(answers) as running, serving(Painter()) as painting:
        (brought / "jury.yaml").write_text(JURY + SERVED.replace("URL", running.url))
        (brought / "roster.yaml").write_text(ROSTER + HOSTED.replace("URL", painting.url))
        yield answers


def flags(root: Path, **changed):
    files = {"prompts": "prompts.txt", "roster": "roster.yaml", "jury": "jury.yaml", "evaluation_jury": "judges.yaml"}
    return SMALL | {name: str(root / file) for name, file in files.items()} | changed


@pytest.fixture(scope="module")
def finished(executor, brought, chat, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    target = call_recipe(align_image, flags(brought))
    Runner(store, executor, Quiet(), recipe="align_image", name="first").run(target, Selection())
    return store, target


def plans_of(store, target):
    planner = Planner(store, CachePolicy(), Sources(None))
    return {stage.node: planner.plan(stage) for stage in topological(target)}


def node(target, name):
    return next(stage for stage in topological(target) if stage.node == name)


def test_three_real_generators_two_jurors_and_a_served_one_end_in_a_report(finished, chat):
    store, target = finished
    pictures = store.artifact(node(target, "render")).table(Picture, ["generator", "prompt_id"])
    counts = {name: pictures["generator"].to_pylist().count(name) for name in ("sd15", "flux", "qwen", "hosted")}
    prompts = len(set(pictures["prompt_id"].to_pylist()))
    assert counts == {"sd15": 2 * prompts, "flux": prompts, "qwen": prompts, "hosted": prompts - 2}
    jurors = store.artifact(node(target, "judge")).table(Vote, ["juror", "order"])
    assert set(jurors["juror"].to_pylist()) == {"one", "two", "served"} and set(jurors["order"].to_pylist()) == {"ab", "ba"}
    votes = store.artifact(node(target, "judge"))
    assert votes.record.error_rows == 0 and chat.down == 6  # a server that is down for a moment costs no vote
    rows = list(store.artifact(node(target, "evaluate")).rows(EvaluationSummary))
    found = {(row.measure, row.trained_on) for row in rows}
    assert found == {("jury", True), ("held_out_jury", False)} and {row.arm for row in rows} == {"sd15-tuned"}
    page = (store.artifact(node(target, "report")).weights() / "report.html").read_text()
    assert "held_out_jury" in page and "flux" in page


def test_a_refused_prompt_and_a_broken_picture_are_rows_of_errors_and_the_rest_goes_on(finished):
    store, target = finished
    artifact = store.artifact(node(target, "render"))
    reasons = sorted(pq.read_table(artifact.directory / "errors.parquet")["message"].to_pylist())
    assert artifact.record.error_rows == len(reasons) == 2
    assert sum("against the content policy" in reason for reason in reasons) == 1, reasons
    for name in ("pair", "judge", "encode", "examples", "tune"):
        assert store.artifact(node(target, name)).record.error_rows == 0


def test_again_everything_is_a_hit_and_nothing_is_computed(finished):
    store, target = finished
    assert {plan.state for plan in plans_of(store, target).values()} == {HIT}


def test_of_a_juror_who_joins_only_the_own_votes_are_computed(finished, brought):
    store, target = finished
    fourth = juror("four", "idefics3-pairwise", "{kind: pairwise, after: 'who shows {caption}?'}")
    (brought / "larger.yaml").write_text((brought / "jury.yaml").read_text() + fourth)
    larger = call_recipe(align_image, flags(brought, jury=str(brought / "larger.yaml")))
    now, before = plans_of(store, larger), plans_of(store, target)["judge"].rows
    assert (now["judge"].rows, now["judge"].to_do, now["render"].state) == (before // 3 * 4, before // 3, HIT)


def test_the_policy_is_what_diffusers_reads(finished, brought):
    from diffusers import StableDiffusionPipeline

    store, target = finished
    pipe = StableDiffusionPipeline.from_pretrained(brought / "sd15", safety_checker=None, local_files_only=True)
    pipe.load_lora_weights(str(store.artifact(node(target, "tune")).weights()))
    assert any("lora_B" in name and value.abs().max() > 0 for name, value in pipe.unet.named_parameters())


def exported(store, out):
    """The folder of a whole run, written by the command."""
    assert export(["run", str(out), "--root", str(store.root), "--run", "first"]) == 0
    return out


def test_a_whole_run_is_exported_in_one_folder_that_needs_no_salon(finished, brought, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset
    from diffusers import StableDiffusionPipeline

    store, target = finished
    out = exported(store, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "pairs", "report", "tune"]
    found = load_dataset(str(out / "pairs"), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.num_rows == store.artifact(node(target, "label")).record.rows and found[0]["image_a"].size == (32, 32)
    pipe = StableDiffusionPipeline.from_pretrained(brought / "sd15", safety_checker=None, local_files_only=True)
    pipe.load_lora_weights(str(out / "tune"))
    assert (out / "report" / "report.html").is_file() and "load_lora_weights" in (out / "tune" / "README.md").read_text()
    card = (out / "README.md").read_text()
    assert "| held\\_out\\_jury | overall | win\\_rate | sd15-tuned |" in card and "judged pairs of pictures" in card


def from_run(store, brought, **changed):
    """ViPO's recipe on what the run has judged."""
    given = {"weights": str(brought / "sd15"), "pairs": str(store.root / "runs" / "first.json"), "side": 32} | changed
    small = {name: CPU[name] for name in ("encode_workers", "encode_gpus", "workers", "gpus", "precision", "zero", "batch")}
    return call_recipe(vipo_image, small | {"steps": 1, "sft": False} | given)


def test_a_paper_recipe_learns_from_a_run_and_takes_its_latents_over(finished, brought, executor):
    store, target = finished
    paper = from_run(store, brought)
    before = plans_of(store, paper)
    assert [before[name].state for name in ("render", "pair", "label")] == [HIT] * 3 and "import" not in before
    assert before["encode"].to_do == 0  # one VAE, one shape: nothing is encoded twice
    Runner(store, executor, Quiet(), recipe="vipo_image", name="paper").run(paper, Selection(until="examples"))
    learnt, own = (store.artifact(node(one, "examples")).table(Example, ["id"]).sort_by("id") for one in (paper, target))
    assert learnt.equals(own) and learnt.num_rows
    # What the run began with may change; what is learnt from is what the run has judged.
    assert node(paper, "label").key == node(target, "label").key


def test_margins_of_an_arena_come_from_the_ratings_of_the_run(finished, brought):
    store, target = finished
    run = str(store.root / "runs" / "first.json")
    paper = call_recipe(arenapo, {"weights": str(brought / "sd15"), "pairs": run, "side": 32})
    assert node(paper, "arena").key == node(target, "arena").key and plans_of(store, paper)["arena"].state == HIT


NO_RUN = [
    ({"pairs": "jury.yaml"}, r"jury.yaml is no run: it is not JSON; give the file of a run, STORE/runs/NAME.json"),
    ({"subset": ("text",)}, r"--subset is for a folder of pairs, and --pairs .*first.json is the file of a run"),
    ({"exclude_subset": ("text",)}, r"--exclude-subset is for a folder of pairs"),
    ({"pairs_map": ("a=b",)}, r"--pairs-map is for a folder of pairs"),
]


@pytest.mark.parametrize(("changed", "message"), NO_RUN, ids=["-".join(given) for given, _ in NO_RUN])
def test_what_a_run_cannot_give_is_refused(finished, brought, changed, message):
    changed = {name: str(brought / value) if name == "pairs" else value for name, value in changed.items()}
    with pytest.raises(ConfigError, match=message):
        from_run(finished[0], brought, **changed)


VIDEO_FLAGS = [
    ({}, r"this run made pictures, and this recipe learns from clips"),
    ({"method": "rwr"}, r"no scores of single samples, which --method rwr needs; fit scores to the labels"),
]


@pytest.mark.parametrize(("changed", "message"), VIDEO_FLAGS, ids=["clips", "scores"])
def test_a_run_of_pictures_teaches_no_video_model(finished, changed, message):
    with pytest.raises(ConfigError, match=message):
        call_recipe(flow_dpo_video, {"pairs": str(finished[0].root / "runs" / "first.json")} | changed)


def test_in_another_store_a_run_is_not_learnt_from(finished, brought, tmp_path):
    store, _ = finished
    plans = plans_of(Store(tmp_path / "other"), from_run(store, brought))
    assert plans["label"].state == MISS
    with pytest.raises(ConfigError, match="is not in this store; give --root the store of that run, or write its pairs"):
        node(from_run(store, brought), "label").run(StoreInputs(store))


REFUSED = [
    ({"policy": "nobody"}, r"--policy nobody: the roster has sd15, flux, qwen, hosted"),
    ({"evaluation_jury": ""}, r"--evaluation-jury: give jurors or --scorers that do not teach the policy"),
    ({"ranking": 4}, r"--ranking 4: no juror of --jury ranks; give one `questionnaire: ranking`"),
    ({"ranking": 1}, r"--ranking 1: a ranking is of 2 to 8 pictures"),
    ({"dimensions": ("VQ",)}, r"--dimensions VQ: no juror judges it; the jury of --jury has overall"),
    ({"jury": "videoalign_jury"}, r"overall is the default: no juror judges it; the jury of --jury has MQ, TA, VQ"),
    (
        {"jury": "videoalign_jury", "dimensions": ("VQ",)},
        r"--dimensions VQ: no juror judges it; the jury of --evaluation-jury has overall",
    ),
    ({"architecture": "sd16"}, r"--architecture sd16: choose one of .*sd15"),
    ({"roster": "vipo_imag"}, r"--roster vipo_imag: no such file; did you mean vipo_image\?"),
    ({"jury": "nowhere.yaml"}, r"--jury nowhere.yaml: no such file; give a file, or one of"),
    ({"render_on": ("gpu",)}, r"--render-on gpu: give LABEL=VALUE"),
    ({"animate": ("flux",)}, r"--animate and --first-frames are of align_video"),
    ({"quota": ("sd16=3",)}, r"--quota sd16=3: give NAME=N with a generator of the roster \(sd15, flux, qwen, hosted\)"),
    ({"quota": ("sd15=many",)}, r"--quota sd15=many: give NAME=N"),
    ({"method": "dpo_time"}, r"--method dpo_time: sd15 predicts noise, not a velocity; choose dpo"),
    ({"prompts": "nowhere.txt"}, r"nowhere.txt"),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED, ids=["-".join(given) for given, _ in REFUSED])
def test_what_cannot_be_meant_is_refused_while_the_recipe_is_built(brought, changed, message):
    with pytest.raises(ConfigError, match=message):
        target = call_recipe(align_image, flags(brought, **changed))
        assert target.key


def test_a_juror_with_a_ranking_ranks_four_pictures_and_the_others_compare_pairs(brought, tmp_path):
    (brought / "ranking.yaml").write_text(JURY + juror("ranks", "idefics3-pairwise", "ranking"))
    (brought / "three.yaml").write_text(ROSTER)
    lists = {"roster": str(brought / "three.yaml"), "jury": str(brought / "ranking.yaml")}
    target = call_recipe(align_image, flags(brought, **lists, ranking=4))
    rank, votes = node(target, "rank"), node(target, "ranked_votes")
    assert (rank.most, [one.name for one in rank.jury]) == (4, ["ranks"])
    assert [one.name for one in votes.jurors] == ["ranks", "one", "two"]
    assert [one.name for one in node(target, "judge[evaluation]").jury] == ["one", "two", "ranks"]
    plans = plans_of(Store(tmp_path), target)
    pictures, prompts = plans["render"].rows, plans["render"].rows // 4
    assert plans["rank"].rows == 2 * prompts and pictures == 4 * prompts  # a set of four, in an order and its reverse


def test_jurors_who_teach_are_no_held_out_measure_under_another_name(brought):
    (brought / "same.yaml").write_text(juror("other", "idefics3-pairwise", "{kind: pairwise}"))
    with pytest.raises(ConfigError, match=r"^--evaluation-jury .*same.yaml: .*taught by every measure"):
        call_recipe(align_image, flags(brought, evaluation_jury=str(brought / "same.yaml")))


def test_clips_are_no_roster_of_pictures_and_a_lora_is_no_policy(brought):
    lines = ROSTER.replace("- name: sd15\n", "- name: sd15\n  frames: 5\n")
    (brought / "clips.yaml").write_text(lines)
    with pytest.raises(ConfigError, match="sd15 makes a video; use the recipe align_video"):
        call_recipe(align_image, flags(brought, roster=str(brought / "clips.yaml")))
    (brought / "lora.yaml").write_text(ROSTER.replace("- name: sd15\n", "- name: sd15\n  lora: sd15\n"))
    with pytest.raises(ConfigError, match="--policy sd15 cannot be tuned: it already carries a LoRA"):
        call_recipe(align_image, flags(brought, roster=str(brought / "lora.yaml")))


WRONG = [
    ("- name: a\n  weights: a/b\n- name: a\n  weights: a/c\n", r":3: the name 'a' is that of the model at .*:1"),
    ("- name: a\n  weights: a/b\n  steps: 0\n", r":3: steps = 0 is refused"),
    ("- name: a\n  weights: a/b\n  stepz: 3\n", r":3: unknown option stepz; did you mean steps\?"),
    ("- name: a\n  weights: ./nowhere\n", r":1: weights ./nowhere: no such folder"),
    ("- name: a\n  weights: a/b\n  name: c\n", r":3: name is given twice"),
    ("- kind: comfy\n  name: a\n", r":1: kind 'comfy' is not known; choose diffusers or served"),
    ("- name: a\n", r":1: weights is missing"),
    ("name: a\n", r":1: give a list"),
    ("", r":1: give a list"),
    ("- a\n", r":1: a model is a mapping"),
    ("- [\n", r":2: this is no YAML"),
    ("- !!python/object/apply:os.system ['true']\n", r":1: "),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_list_is_checked_closed_and_every_error_names_its_line(tmp_path, text, message):
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        kinds.generators(str(tmp_path / "list.yaml"))


def test_a_questionnaire_is_named_or_a_file_beside_the_list(tmp_path):
    (tmp_path / "mine.toml").write_text('kind = "pairwise"\nafter = "who shows {caption}?"\n')
    lines = "- name: a\n  weights: a/b\n  questionnaire: {}\n"
    (tmp_path / "own.yaml").write_text(lines.format("mine.toml"))
    (tmp_path / "named.yaml").write_text(lines.format("videoalign"))
    (own,), (named,) = (kinds.jurors(str(tmp_path / f"{name}.yaml")) for name in ("own", "named"))
    assert own.questionnaire.after == "who shows {caption}?" and set(named.dimensions) == {"VQ", "MQ", "TA"}
    (tmp_path / "none.yaml").write_text(lines.format("nothing"))
    with pytest.raises(ConfigError, match=r"none.yaml:3: no wording is called 'nothing'; there are .*videoalign"):
        kinds.jurors(str(tmp_path / "none.yaml"))


def test_a_server_is_a_generator_and_a_juror(tmp_path):
    (tmp_path / "roster.yaml").write_text(
        "- kind: served\n  name: a\n  model: m\n  revision: v1\n  height: 64\n  width: 64\n"
        "  endpoint: {base_url: 'http://127.0.0.1:1/v1'}\n"
    )
    (tmp_path / "jury.yaml").write_text(
        "- kind: served\n  name: b\n  questionnaire: pictures\n"
        "  server: {model: m, revision: v1, endpoint: {base_url: 'http://127.0.0.1:1/v1'}}\n"
    )
    assert kinds.generators(str(tmp_path / "roster.yaml"))[0].medium == "image"
    assert kinds.jurors(str(tmp_path / "jury.yaml"))[0].dimensions


def test_the_shipped_lists_are_read_and_planned_without_weights(tmp_path, brought):
    for name in rosters.committed():
        read = kinds.jurors if "ju" in name else kinds.scorers if "scorers" in name else kinds.generators
        assert read(name)
    target = call_recipe(
        align_image,
        {
            "prompts": str(brought / "prompts.txt"),
            "evaluation_jury": "image_judges",
            "policy": "sd3.5-medium",
            "held_out": 0.3,
        },
    )
    plans = plans_of(Store(tmp_path), target)
    held_out = plans["render[evaluation]"].rows // 2
    assert plans["render"].rows == (12 - held_out) * 6 and 0 < held_out < 12  # four of the policy, one of each other
    assert "GiB per rank" in plans["tune"].demand


CLIPS = """
- name: wan
  weights: wan
  steps: 2
  height: 32
  width: 32
  frames: 5
  frame_rate: 16
  dtype: float32
- name: other
  weights: other
  steps: 2
  height: 32
  width: 32
  frames: 9
  frame_rate: 24
  dtype: float32
- name: animator
  weights: wan-i2v
  steps: 2
  height: 32
  width: 32
  frames: 5
  frame_rate: 16
  dtype: float32
"""
PAINTER = """
- name: painter
  weights: sd15
  steps: 1
  height: 32
  width: 32
  dtype: float32
"""


@pytest.fixture(scope="module")
def clips(executor, brought, tmp_path_factory):
    """align_video, whole: generators of clips of two lengths and frame rates, one of which animates pictures."""
    for name, seed in (("wan", 0), ("other", 1)):
        write_tiny("wan", brought / name, seed=seed)
    write_tiny("wan-i2v", brought / "wan-i2v")
    (brought / "clips.yaml").write_text(CLIPS)
    (brought / "painter.yaml").write_text(PAINTER)
    (brought / "pointwise.yaml").write_text(juror("two", "idefics3-pointwise", "{kind: pointwise, tie_within: 0}"))
    (brought / "scorers.yaml").write_text("- kind: ocr\n  frames: 2\n")
    (brought / "signs.txt").write_text("\n".join(f'a sign that says "{n}"' for n in range(8)))
    files = {
        "roster": str(brought / "clips.yaml"),
        "prompts": str(brought / "signs.txt"),
        "jury": str(brought / "pointwise.yaml"),
    }
    store = Store(tmp_path_factory.mktemp("clips"))
    files |= {"first_frames": str(brought / "painter.yaml"), "animate": ("animator",)}
    given = flags(brought, frames=(5,), scorers=str(brought / "scorers.yaml"), evaluation_jury="", **files)
    target = call_recipe(align_video, given)
    Runner(store, executor, Quiet(), recipe="align_video", name="first").run(target, Selection())
    return store, target


def test_clips_of_two_generators_end_in_a_report_that_plays_them(clips):
    store, target = clips
    assert {plan.state for plan in plans_of(store, target).values()} == {HIT}
    rows = (
        store.artifact(node(target, "render_clips")).table(Clip, ["generator", "frames", "fps", "first_frame"]).to_pylist()
    )
    made = {(row["generator"], row["frames"], row["fps"], row["first_frame"] is not None) for row in rows}
    assert made == {("wan", 5, 16.0, False), ("other", 9, 24.0, False), ("animator", 5, 16.0, True)}
    measures = {(row.measure, row.dimension) for row in store.artifact(node(target, "evaluate")).rows(EvaluationSummary)}
    assert measures == {("jury", "overall"), ("ocr", "exact"), ("ocr", "similarity"), ("ocr", "words")}
    page = (store.artifact(node(target, "report")).weights() / "report.html").read_text()
    assert "<video" in page and "data:video/mp4;base64," in page


def test_the_clips_of_a_run_are_a_data_set_of_videos_whose_bytes_decode(clips, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import Video, load_dataset

    store, target = clips
    out = exported(store, tmp_path / "out")
    found = load_dataset(str(out / "pairs"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(found.features["video_a"], Video) and isinstance(found.features["video_b"], Video)
    # torchcodec, with which `datasets` decodes, is no part of Salon: without it the bytes are read as they are.
    raw = found.select_columns("video_a").cast_column("video_a", Video(decode=False))
    assert found.num_rows == store.artifact(node(target, "label")).record.rows
    assert decode(raw[0]["video_a"]["bytes"], clip=True).shape[1:] == (32, 32, 3)
    assert "judged pairs of clips" in (out / "README.md").read_text()


def test_clips_are_in_the_media_view_with_their_bytes(clips):
    store, target = clips
    query = "SELECT count(*), min(octet_length(video.bytes)) FROM render_clips_media WHERE node = 'render_clips'"
    ((rows, least),) = Database(store, read_runs(store).readable).query(query)[1]
    assert rows == store.artifact(node(target, "render_clips")).record.rows and least > 100
