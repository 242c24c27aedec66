"""Examples: who won by which judgement, and which pairs cannot be compared."""

from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from actors.shard import ShardJob, ShardRunner
from infra.config import ConfigError
from infra.dag.stage import Resources
from pipelines.algorithms.preference.scalarisation import Linear, Single
from pipelines.algorithms.rating.gap import posterior_gap
from pipelines.algorithms.rating.gaussian import GaussianRating
from pipelines.schemas.training import Example
from pipelines.stages.arena import Arena
from pipelines.stages.encode import LATENT, Encode, Encoders
from pipelines.stages.examples import Examples
from pipelines.stages.imported import ImportedLabels, ImportedPictures, PairFiles
from support.tiny import family_at, write_tiny


@dataclass
class Tables:
    """Parents' rows by stage name, or by stage name and table."""

    rows: dict = field(default_factory=dict)

    def table(self, parent, columns=None, *, name=None):
        return pa.Table.from_pylist(self.rows[parent.name if name is None else f"{parent.name}/{name}"])


@pytest.fixture(scope="module")
def encode(tmp_path_factory):
    folder = write_tiny("miniature", tmp_path_factory.mktemp("policy"))
    pictures = ImportedPictures(source=PairFiles())
    return Encode(pictures=pictures, encoders=Encoders(family=family_at("miniature", folder)))


def label(number, choice, *, score=1.0, agreement=1.0, probability=None):
    pictures = {f"picture_{side}": f"{side}{number:015d}" for side in "ab"}
    fixed = {"prompt_id": "p", "text": "t", "generator_a": "x", "generator_b": "y"}
    return (
        {"id": f"pair{number}", "choice": choice, "agreement": agreement, "probability": probability, "score": score}
        | fixed
        | pictures
    )


def examples(encode, labels, *, margins=(), sizes=None, alignment=None, strengths=None, **options):
    settings = encode.settings(LATENT)
    shapes = []
    for one in labels:
        for side in "ab":
            name = encode.id_of(LATENT, one[f"picture_{side}"], settings=settings)
            height, width = (sizes or {}).get(one[f"picture_{side}"], (24, 24))
            if height:
                shapes.append({"id": name, "kind": LATENT, "source": "", "frames": 1, "height": height, "width": width})
    tables = {"import_labels": labels, "encode/sizes": shapes, "import_labels/dimensions": list(margins)}
    given = ImportedLabels(pictures=encode.pictures)
    arena = None if strengths is None else Arena(labels=given, **options)
    tables["arena"] = [{"generator": name, "mu": mu, "sigma": 0.8} for name, mu in (strengths or {}).items()]
    stage = Examples(labels=given, encoded=encode, alignment=alignment, arena=arena)
    cells = stage.cells(Tables(tables))
    runner = ShardRunner(ShardJob(None, Example, 10, stage.worker(None), Resources(), None))  # type: ignore[arg-type]
    rows, errors = runner.compute(cells, 0)
    return {row["id"]: row for row in rows.to_pylist()}, {error.id: error.message for error in errors}


def test_the_probability_of_a_label_is_carried_and_a_sum_of_dimensions_has_none(encode):
    labels = [label(0, "a", agreement=1.0, probability=0.6), label(1, "b")]
    rows, _ = examples(encode, labels)
    assert [rows[f"pair{n}"]["probability"] for n in (0, 1)] == [0.6, None]
    margins = [{"pair_id": f"pair{n}", "dimension": "VQ", "margin": 1.0} for n in (0, 1)]
    rows, _ = examples(encode, labels, margins=margins, alignment=Single(dimension="VQ"))
    assert rows["pair0"]["probability"] is None


def test_winners_are_winners_and_ties_say_so(encode):
    labels = [label(0, "a"), label(1, "b"), label(2, "tie", score=0.3)]
    rows, errors = examples(encode, labels)
    settings = encode.settings(LATENT)
    for name, picture in (("pair0", "a" + "0" * 15), ("pair1", "b" + "0" * 14 + "1")):
        assert rows[name]["winner"] == encode.id_of(LATENT, picture, settings=settings)
    assert [rows[f"pair{n}"]["tie"] for n in range(3)] == [False, False, True]
    assert rows["pair1"]["generator_winner"] == "y"
    assert not errors


def test_pairs_that_differ_in_size_or_lack_a_picture_are_quarantined(encode):
    sizes = {"a" + "0" * 15: (24, 48), "b" + "0" * 14 + "1": (0, 0)}
    rows, errors = examples(encode, [label(0, "a"), label(1, "a"), label(2, "b")], sizes=sizes)
    assert set(rows) == {"pair2"}
    assert errors["pair0"] == "its pictures differ in size: winner 1 x 24 x 48, loser 1 x 24 x 24 (frames x height x width)"
    assert "loser's latents are not there" in errors["pair1"]


def margins(number, **values):
    return [{"pair_id": f"pair{number}", "dimension": name, "margin": value} for name, value in values.items()]


def test_one_dimension_alone_decides_where_it_is_asked_to(encode):
    given = margins(0, VQ=1.0, TA=-1.0) + margins(1, VQ=0.0, TA=1.0)
    rows, _ = examples(encode, [label(0, "a"), label(1, "b")], margins=given, alignment=Single(dimension="TA"))
    assert [rows[f"pair{n}"]["generator_winner"] for n in range(2)] == ["y", "x"]
    rows, _ = examples(encode, [label(0, "a"), label(1, "b")], margins=given, alignment=Single(dimension="VQ"))
    assert rows["pair0"]["generator_winner"] == "x" and rows["pair1"]["tie"]


def test_weights_of_dimensions_decide_together_and_agreement_is_their_share(encode):
    given = margins(0, VQ=1.0, MQ=1.0, TA=-1.0)
    rows, _ = examples(encode, [label(0, "b")], margins=given, alignment=Linear(weights={"VQ": 1, "MQ": 1, "TA": 1}))
    assert rows["pair0"]["generator_winner"] == "x" and rows["pair0"]["agreement"] == pytest.approx(2 / 3)
    rows, _ = examples(encode, [label(0, "b")], margins=given, alignment=Linear(weights={"VQ": 1, "MQ": 1, "TA": 3}))
    assert rows["pair0"]["generator_winner"] == "y"
    rows, _ = examples(encode, [label(0, "b")], margins=given, alignment=Linear(weights={"VQ": 1, "MQ": 1, "TA": 2}))
    assert rows["pair0"]["tie"]


def test_a_pair_without_the_wanted_dimension_is_quarantined_by_name(encode):
    rows, errors = examples(
        encode, [label(0, "a"), label(1, "a")], margins=margins(0, TA=1.0), alignment=Single(dimension="TA")
    )
    assert set(rows) == {"pair0"} and "no margin in dimension 'TA'" in errors["pair1"]


def test_dimensions_on_different_scales_weigh_the_same(encode):
    given = margins(0, VQ=100.0, TA=-0.2) + margins(1, VQ=-100.0, TA=-0.2)
    rows, _ = examples(encode, [label(0, "a"), label(1, "a")], margins=given, alignment=Linear(weights={"VQ": 1, "TA": 1}))
    assert rows["pair0"]["tie"] and rows["pair1"]["generator_winner"] == "y"


def test_the_gap_follows_the_winner_that_the_alignment_names_and_not_the_overall_label(encode):
    given = margins(0, TA=-1.0) + margins(1, TA=1.0)
    labels, strengths = [label(0, "a"), label(1, "tie")], {"x": 27.0, "y": 25.0}
    surprising, expected = (
        posterior_gap(won, sigma_winner=0.8, mu_loser=lost, sigma_loser=0.8) for won, lost in ((25.0, 27.0), (27.0, 25.0))
    )
    rows, _ = examples(encode, labels, margins=given, alignment=Single(dimension="TA"), strengths=strengths)
    assert (rows["pair0"]["generator_winner"], rows["pair0"]["gap"]) == ("y", pytest.approx(surprising))
    assert (rows["pair1"]["generator_winner"], rows["pair1"]["gap"]) == ("x", pytest.approx(expected))
    rows, _ = examples(encode, labels, strengths=strengths)
    assert rows["pair0"]["gap"] == pytest.approx(expected) and rows["pair1"]["gap"] is None


def test_a_gap_is_missing_without_an_arena_and_where_a_generator_is_not_rated(encode):
    assert examples(encode, [label(0, "a")])[0]["pair0"]["gap"] is None
    assert examples(encode, [label(0, "a")], strengths={"x": 27.0})[0]["pair0"]["gap"] is None


def test_a_gap_may_have_the_spread_of_single_pictures(encode):
    strengths = {"x": 27.0, "y": 25.0}
    rows, _ = examples(encode, [label(0, "b")], strengths=strengths, spread="picture")
    gap = posterior_gap(25.0, sigma_winner=0.8, mu_loser=27.0, sigma_loser=0.8, beta=25 / 6)
    assert rows["pair0"]["gap"] == pytest.approx(gap)


def test_an_arena_that_forgets_nothing_needs_the_spread_of_pictures(encode):
    labels = ImportedLabels(pictures=encode.pictures)
    with pytest.raises(ConfigError, match="set spread to picture"):
        Arena(labels=labels, rating=GaussianRating(tau=0))
    assert Arena(labels=labels, rating=GaussianRating(tau=0), spread="picture").spread == "picture"
