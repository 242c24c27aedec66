"""Examples: who won by which judgement, what each picture is worth, and which pairs cannot be compared."""

import math
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from infra.config import ConfigError
from infra.store.files import Folder
from infra.store.tables import check_schema
from pipelines.algorithms.preference.scalarisation import Linear, Single
from pipelines.algorithms.rating.gap import posterior_gap
from pipelines.algorithms.rating.gaussian import GaussianRating
from pipelines.miniature.family import MiniatureFamily
from pipelines.schemas.training import Example
from pipelines.stages.arena import Arena
from pipelines.stages.encode import Encode, Encoders
from pipelines.stages.examples import Examples
from pipelines.stages.imported import ImportedClips, ImportedLabels, ImportedPictures, PairFiles
from pipelines.stages.sources import Scored
from pipelines.training.buckets import Buckets
from support.tiny import write_tiny


class Scorer(Scored):
    """Scores that a test writes down."""

    name = "scored"


@dataclass
class Tables:
    """A context: parents' rows by stage name, or by stage name and table; what the stage says beside its rows."""

    rows: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    reasons: dict = field(default_factory=dict)

    def table(self, parent, columns=None, *, name=None):
        found = self.rows[parent.name if name is None else f"{parent.name}/{name}"]
        table = found if isinstance(found, pa.Table) else pa.Table.from_pylist(found)
        return table if columns is None else table.select(columns)

    def metric(self, name, value):
        self.metrics[name] = value

    def quarantine(self, name, reason):
        self.reasons[name] = reason


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Folder(path=str(write_tiny("miniature", tmp_path_factory.mktemp("policy"))))


def label(number, choice, *, agreement=1.0, probability=None):
    pictures = {f"picture_{side}": f"{side}{number:015d}" for side in "ab"}
    fixed = {"prompt_id": "p", "text": "t", "generator_a": "x", "generator_b": "y"}
    return (
        {"id": f"pair{number}", "choice": choice, "agreement": agreement, "probability": probability, "score": 1.0}
        | fixed
        | pictures
    )


def encode_of(folder, *, clips=False, buckets=None):
    source = PairFiles()
    pictures = ImportedClips(source=source) if clips else ImportedPictures(source=source)
    encoders = Encoders(family=MiniatureFamily(weights=folder))
    return Encode(
        pairs=ImportedLabels(pictures=pictures), pictures=pictures, encoders=encoders, buckets=buckets or Buckets()
    )


def pictures_of(labels, *, sizes=None, clips=None):
    found = []
    for one in labels:
        for side in "ab":
            name = one[f"picture_{side}"]
            height, width = (sizes or {}).get(name, (24, 24))
            timing = {} if clips is None else dict(zip(("frames", "fps"), clips.get(name, (81, 16.0)), strict=True))
            found.append({"id": name, "height": height, "width": width} | timing)
    return pa.Table.from_pylist(found)


def run(encode, labels, *, margins=(), alignment=None, pictures=None, missing=(), scores=None, strengths=None, **options):
    """Rows by id, and the context."""
    context = Tables({"import_labels": labels, encode.pictures.name: pictures or pictures_of(labels)})
    cells = encode.cells(context)
    cells = cells.filter(pc.invert(pc.is_in(cells["source"], pa.array(list(missing), pa.string()))))
    context.rows["encode/sizes"] = cells.append_column("fps", pa.nulls(cells.num_rows, pa.float64()))
    schema = pa.schema([("pair_id", pa.string()), ("dimension", pa.string()), ("margin", pa.float64())])
    context.rows["import_labels/dimensions"] = pa.Table.from_pylist(list(margins), schema=schema)
    scored = None
    if scores is not None:
        context.rows["scored"] = [{"scorer": "one"} | score for score in scores]
        scored = Scorer()
    arena = None if strengths is None else Arena(labels=encode.pairs, **options)
    context.rows["arena"] = [{"generator": name, "mu": mu, "sigma": 0.8} for name, mu in (strengths or {}).items()]
    stage = Examples(labels=encode.pairs, encoded=encode, alignment=alignment, scores=scored, arena=arena)
    tables = list(stage.run(context))
    for table in tables:
        check_schema(table, Example, place="examples")
    return {row["id"]: row for table in tables for row in table.to_pylist()}, context


def test_the_probability_of_a_label_is_carried_and_a_sum_of_dimensions_has_none(folder):
    labels = [label(0, "a", agreement=1.0, probability=0.6), label(1, "b")]
    rows, _ = run(encode_of(folder), labels)
    assert [rows[f"pair{n}"]["probability"] for n in (0, 1)] == [0.6, None]
    given = [{"pair_id": f"pair{n}", "dimension": "VQ", "margin": 1.0} for n in (0, 1)]
    rows, _ = run(encode_of(folder), labels, margins=given, alignment=Single(dimension="VQ"))
    assert rows["pair0"]["probability"] is None


def test_winners_are_winners_and_ties_say_so(folder):
    encode = encode_of(folder)
    labels = [label(0, "a"), label(1, "b"), label(2, "tie")]
    rows, context = run(encode, labels)
    latents = {row["id"]: row["source"] for row in context.rows["encode/sizes"].to_pylist()}
    assert latents[rows["pair0"]["winner"]] == "a" + "0" * 15
    assert latents[rows["pair1"]["winner"]] == "b" + "0" * 14 + "1"
    assert [rows[f"pair{n}"]["tie"] for n in range(3)] == [False, False, True]
    assert rows["pair1"]["generator_winner"] == "y"
    assert rows["pair0"]["prompt"] == encode.text_id("t")
    assert not context.reasons


def test_a_pair_without_a_latent_is_quarantined(folder):
    rows, context = run(encode_of(folder), [label(0, "a"), label(1, "a")], missing=["b" + "0" * 15])
    assert set(rows) == {"pair1"}
    assert "was not encoded" in context.reasons["pair0"]


# Liu et al. (2025), table 1: model, triplets it is in (thousands), height, width.
MODELS = (
    ("Gen2", 13, 768, 1408),
    ("SVD", 13, 576, 1024),
    ("Pika 1.0", 13, 720, 1280),
    ("Vega", 13, 576, 1024),
    ("PixVerse v1", 13, 768, 1408),
    ("HiDream", 0.3, 768, 1344),
    ("Dreamina", 68, 720, 1280),
    ("Luma", 57, 752, 1360),
    ("Gen3", 55, 768, 1280),
    ("Kling 1.0", 33, 384, 672),
    ("PixVerse v2", 58, 576, 1024),
    ("Kling 1.5", 28, 704, 1280),
)


@pytest.mark.parametrize(("area", "multiple"), [(640**2, 64), (480 * 832, 16)])
def test_no_pair_of_two_models_is_lost_for_its_shape(folder, area, multiple):
    random = np.random.default_rng(0)
    share = np.array([model[1] for model in MODELS]) / sum(model[1] for model in MODELS)
    labels, sizes, clips = [], {}, {}
    for number in range(400):
        two = random.choice(len(MODELS), size=2, replace=False, p=share)
        labels.append(label(number, "ab"[number % 2]))
        for side, model in zip("ab", two, strict=True):
            sizes[labels[-1][f"picture_{side}"]] = MODELS[model][2:]
            fps = (8.0, 16.0, 24.0, 30.0)[random.integers(4)]
            clips[labels[-1][f"picture_{side}"]] = (int(fps * random.integers(3, 7)), fps)  # 3 to 6 seconds
    buckets = Buckets(area=area, multiple=multiple, frames=(81, 49, 33, 17), rate=16.0)
    encode = encode_of(folder, clips=True, buckets=buckets)
    rows, context = run(encode, labels, pictures=pictures_of(labels, sizes=sizes, clips=clips))
    assert len(rows) == 400 and not context.reasons
    shapes = {row["id"]: (row["frames"], row["height"], row["width"]) for row in context.rows["encode/sizes"].to_pylist()}
    for row in rows.values():
        assert shapes[row["winner"]] == shapes[row["loser"]] == (row["frames"], row["height"], row["width"])


def test_a_pair_with_a_clip_that_is_too_short_is_quarantined_by_its_length(folder):
    labels = [label(0, "a"), label(1, "a")]
    clips = {"a" + "0" * 15: (24, 24.0)}  # one second: 16 frames at 16 a second
    encode = encode_of(folder, clips=True, buckets=Buckets(frames=(17, 33), rate=16.0))
    rows, context = run(encode, labels, pictures=pictures_of(labels, clips=clips))
    assert set(rows) == {"pair1"} and rows["pair1"]["frames"] == 33
    assert "fewer than the 17 frames at 16 frames per second" in context.reasons["pair0"]


def margins(number, **values):
    return [{"pair_id": f"pair{number}", "dimension": name, "margin": value} for name, value in values.items()]


def test_one_dimension_alone_decides_where_it_is_asked_to(folder):
    given = margins(0, VQ=1.0, TA=-1.0) + margins(1, VQ=0.0, TA=1.0)
    both = [label(0, "a"), label(1, "b")]
    rows, _ = run(encode_of(folder), both, margins=given, alignment=Single(dimension="TA"))
    assert [rows[f"pair{n}"]["generator_winner"] for n in range(2)] == ["y", "x"]
    rows, _ = run(encode_of(folder), both, margins=given, alignment=Single(dimension="VQ"))
    assert rows["pair0"]["generator_winner"] == "x" and rows["pair1"]["tie"]


def test_weights_of_dimensions_decide_together_and_agreement_is_their_share(folder):
    given = margins(0, VQ=1.0, MQ=1.0, TA=-1.0)
    for weight, winner, agreement in ((1, "x", 2 / 3), (3, "y", 3 / 5)):
        alignment = Linear(weights={"VQ": 1, "MQ": 1, "TA": weight})
        rows, _ = run(encode_of(folder), [label(0, "b")], margins=given, alignment=alignment)
        assert rows["pair0"]["generator_winner"] == winner and rows["pair0"]["agreement"] == pytest.approx(agreement)
    alignment = Linear(weights={"VQ": 1, "MQ": 1, "TA": 2})
    rows, _ = run(encode_of(folder), [label(0, "b")], margins=given, alignment=alignment)
    assert rows["pair0"]["tie"]


def test_agreement_is_about_the_winner_of_the_weighted_margins(folder):
    """Two small margins against a large one: the large one decides, and a third of the weight says so."""
    given = margins(0, VQ=0.1, MQ=0.1, TA=-3.0)
    alignment = Linear(weights={"VQ": 1, "MQ": 1, "TA": 1})
    others = [m for n in range(1, 9) for m in margins(n, **dict.fromkeys(("VQ", "MQ", "TA"), (-1.5) ** n))]
    labels = [label(n, "a") for n in range(9)]
    rows, _ = run(encode_of(folder), labels, margins=given + others, alignment=alignment)
    assert rows["pair0"]["generator_winner"] == "y" and rows["pair0"]["agreement"] == pytest.approx(1 / 3)


def test_words_of_people_balance_whatever_their_dimensions_ties(folder):
    """VQ=a against MQ=b is a tie, though MQ ties more often in the set."""
    given = margins(0, VQ=1.0, MQ=-1.0) + [m for n in range(1, 6) for m in margins(n, VQ=1.0, MQ=0.0)]
    alignment = Linear(weights={"VQ": 1, "MQ": 1})
    rows, _ = run(encode_of(folder), [label(n, "a") for n in range(6)], margins=given, alignment=alignment)
    assert rows["pair0"]["tie"] and not rows["pair1"]["tie"]


def test_pairs_without_the_wanted_dimension_are_skipped_and_counted(folder):
    rows, context = run(
        encode_of(folder), [label(n, "a") for n in range(3)], margins=margins(0, TA=1.0), alignment=Single(dimension="TA")
    )
    assert set(rows) == {"pair0"} and not context.reasons
    assert context.metrics["without_dimension"] == 2
    with pytest.raises(ConfigError, match="no pair has every dimension of XX; check --dimensions"):
        run(encode_of(folder), [label(0, "a")], margins=margins(0, TA=1.0), alignment=Single(dimension="XX"))


def test_dimensions_on_different_scales_weigh_the_same(folder):
    given = margins(0, VQ=100.0, TA=-0.2) + margins(1, VQ=-100.0, TA=-0.2)
    alignment = Linear(weights={"VQ": 1, "TA": 1})
    rows, _ = run(encode_of(folder), [label(0, "a"), label(1, "a")], margins=given, alignment=alignment)
    assert rows["pair0"]["tie"] and rows["pair1"]["generator_winner"] == "y"


def scored(values, *, dimension="overall"):
    return [{"sample": name, "dimension": dimension, "value": value} for name, value in values.items()]


def test_every_picture_has_its_own_standardised_reward(folder):
    """Four scores of mean 0 and deviation 1 are the rewards: a good pair's loser is above a bad pair's winner."""
    raw = {"a" + "0" * 15: 7.0, "b" + "0" * 15: 5.0, "a" + "0" * 14 + "1": -5.0, "b" + "0" * 14 + "1": -7.0}
    rows, _ = run(encode_of(folder), [label(0, "a"), label(1, "a")], scores=scored(raw))
    deviation = math.sqrt((49 + 25) / 2)
    found = [rows[name][f"reward_{side}"] for name in ("pair0", "pair1") for side in ("winner", "loser")]
    assert found == pytest.approx([value / deviation for value in (7, 5, -5, -7)])


def test_without_scores_there_are_no_rewards_and_the_panel_has_the_word(folder):
    """The mean log-odds may contradict the panel's choice: the choice stands."""
    rows, _ = run(encode_of(folder), [label(0, "a") | {"score": -3.0}])
    assert rows["pair0"]["generator_winner"] == "x" and rows["pair0"]["reward_winner"] is None


def test_dimensions_that_are_scored_are_compared_by_their_scores(folder):
    raw = {"a" + "0" * 15: 1.0, "b" + "0" * 15: 4.0}
    rows, _ = run(encode_of(folder), [label(0, "a")], scores=scored(raw, dimension="VQ"), alignment=Single(dimension="VQ"))
    assert rows["pair0"]["generator_winner"] == "y" and rows["pair0"]["agreement"] == 1.0


def test_the_gap_follows_the_winner_that_the_alignment_names_and_not_the_overall_label(folder):
    given = margins(0, TA=-1.0) + margins(1, TA=1.0)
    labels, strengths = [label(0, "a"), label(1, "tie")], {"x": 27.0, "y": 25.0}
    surprising, expected = (
        posterior_gap(won, sigma_winner=0.8, mu_loser=lost, sigma_loser=0.8) for won, lost in ((25.0, 27.0), (27.0, 25.0))
    )
    rows, _ = run(encode_of(folder), labels, margins=given, alignment=Single(dimension="TA"), strengths=strengths)
    assert (rows["pair0"]["generator_winner"], rows["pair0"]["gap"]) == ("y", pytest.approx(surprising))
    assert (rows["pair1"]["generator_winner"], rows["pair1"]["gap"]) == ("x", pytest.approx(expected))
    rows, _ = run(encode_of(folder), labels, strengths=strengths)
    assert rows["pair0"]["gap"] == pytest.approx(expected) and rows["pair1"]["gap"] is None


def test_a_gap_is_missing_without_an_arena_and_where_a_generator_is_not_rated(folder):
    assert run(encode_of(folder), [label(0, "a")])[0]["pair0"]["gap"] is None
    assert run(encode_of(folder), [label(0, "a")], strengths={"x": 27.0})[0]["pair0"]["gap"] is None


def test_a_gap_may_have_the_spread_of_single_pictures(folder):
    strengths = {"x": 27.0, "y": 25.0}
    rows, _ = run(encode_of(folder), [label(0, "b")], strengths=strengths, spread="picture")
    gap = posterior_gap(25.0, sigma_winner=0.8, mu_loser=27.0, sigma_loser=0.8, beta=25 / 6)
    assert rows["pair0"]["gap"] == pytest.approx(gap)


def test_an_arena_that_forgets_nothing_needs_the_spread_of_pictures(folder):
    labels = encode_of(folder).pairs
    with pytest.raises(ConfigError, match="set spread to picture"):
        Arena(labels=labels, rating=GaussianRating(tau=0))
    assert Arena(labels=labels, rating=GaussianRating(tau=0), spread="picture").spread == "picture"
