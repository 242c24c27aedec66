"""Scorers of pictures on noised pairs: right while the picture is to be seen, worse as noise covers it, failures masked."""

import math
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from actors.media import decode
from infra.config import ConfigError
from infra.store.artifacts import Store
from infra.store.files import Folder
from infra.store.tables import from_table, schema_of
from pipelines.algorithms.reward.accuracy import GRID
from pipelines.models.scorers.scorer import Scorer
from pipelines.schemas.training import NoisedScore, RewardAccuracy, RewardBand
from pipelines.stages.encode import Encode, Encoders
from pipelines.stages.examples import Examples
from pipelines.stages.imported import ImportedLabels, ImportedPictures, PairFiles
from pipelines.stages.noised_accuracy import NoisedAccuracy
from pipelines.stages.noised_scores import NoisedScores
from pipelines.training.buckets import Buckets
from pipelines.training.held_out import HeldOutPairs, held_out_pairs
from pipelines.training.noised_scores import NoisedScoreWorker
from support.inline import computed
from support.pair_files import pair, write_pairs
from support.tiny import family_at
from support.training import TEXTS, data_of, reader, write_world

SQUARES = Buckets(area=24 * 24, multiple=24)


class Darkness(Scorer):
    """Minus the mean level; no score for a prompt that is listed."""

    convention: ClassVar = "minus the mean level, -255 to 0"

    name: str = "darkness"
    silent: tuple[str, ...] = ()

    @property
    def dimensions(self) -> tuple[str, ...]:
        return ("first", "overall")

    def open(self, device: str, places: Any) -> Any:
        return OpenDarkness(self.silent)


class OpenDarkness:
    def __init__(self, silent):
        self.silent = silent

    def score(self, samples):
        levels = [decode(sample.media, clip=False).mean() for sample in samples]
        known = [
            math.nan if sample.prompt in self.silent else -level for sample, level in zip(samples, levels, strict=True)
        ]
        return np.stack([np.zeros(len(samples)), known], axis=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Random pairs whose winners are darker."""
    root = tmp_path_factory.mktemp("world")
    write_world(root, pairs=12, darker=True)
    return root


def cells_of(world, *, times=GRID):
    """What the stage makes of all of these examples."""
    examples = data_of(world).open().table
    many = examples.take(pa.array(np.repeat(np.arange(len(examples)), len(times))))
    texts = [TEXTS[int(name.removeprefix("pair")) % 2] for name in many["id"].to_pylist()]
    many = many.append_column("example", many["id"]).append_column("text", pa.array(texts))
    many = many.append_column("prompt_id", pa.array(texts)).append_column("t", pa.array(np.tile(times, len(examples))))
    return many.set_column(0, "id", pa.array([f"cell{number:04d}" for number in range(len(many))]))


def scored(world, cells, *, shown="x_t", silent=(), at_once=16):
    policy = family_at("miniature", world / "policy")
    options = {"shown": shown, "dimension": "overall", "at_once": at_once}
    worker = NoisedScoreWorker(Darkness(silent=silent), policy, reader(world), empty="1text0", **options)
    worker.open("cpu", None)  # pyright: ignore[reportArgumentType]
    found = worker.run(cells)
    assert found.schema.equals(schema_of(NoisedScore))
    return found


def test_clean_pictures_are_scored_as_such_and_noise_makes_the_scorer_less_sure(world):
    cells = cells_of(world)
    table = scored(world, cells)
    assert table["id"].to_pylist() == cells["id"].to_pylist()
    rows = list(from_table(table, NoisedScore))
    assert {(row.scorer, row.dimension, row.shown) for row in rows} == {("darkness", "overall", "x_t")}
    pairs, unscored = HeldOutPairs.of_rows(rows)
    assert unscored == 0 and pairs.difference.shape == (len(GRID), 12)
    lead = pairs.difference.mean(1)
    assert pairs.at_times()[0].accuracy == 1.0
    assert lead[0] > lead[3] > lead[-1]
    low, high, every = pairs.in_bands(dimension="overall")
    assert low.accuracy >= every.accuracy >= high.accuracy


def test_a_pairs_scores_do_not_depend_on_what_is_decoded_with_it(world):
    cells = cells_of(world, times=(0.0, 0.301))
    together = scored(world, cells, shown="x_0").to_pylist()
    alone = [scored(world, cells.slice(place, 1), shown="x_0", at_once=1).to_pylist()[0] for place in (0, 7, 23)]
    for row, place in zip(alone, (0, 7, 23), strict=True):
        assert row["winner"] == pytest.approx(together[place]["winner"], abs=0.01)  # levels are rounded
        assert row["loser"] == pytest.approx(together[place]["loser"], abs=0.01)


def test_both_ways_to_show_noised_latents_agree_at_time_0_only(world):
    cells = cells_of(world, times=(0.0, 0.501))
    decoded, predicted = (scored(world, cells, shown=shown)["winner"].to_numpy() for shown in ("x_t", "x_0"))
    assert decoded[::2] == pytest.approx(predicted[::2], abs=0.01)
    assert np.abs(decoded[1::2] - predicted[1::2]).min() > 0.1


def test_pairs_without_a_score_are_left_out_and_counted(world):
    rows = list(from_table(scored(world, cells_of(world), silent=TEXTS[:1]), NoisedScore))
    assert {row.prompt_id for row in rows if row.winner is None} == {TEXTS[0]}
    pairs, unscored = HeldOutPairs.of_rows(rows)
    assert unscored == 6 and set(pairs.prompts) == {TEXTS[1]}


def stage(world, *, source=None, **options):
    family = family_at("miniature", world / "policy")
    pictures = ImportedPictures(source=source or PairFiles())
    labels = ImportedLabels(pictures=pictures)
    encode = Encode(pairs=labels, pictures=pictures, encoders=Encoders(family=family), buckets=SQUARES)
    return NoisedScores(examples=Examples(labels=labels, encoded=encode), policy=family, scorer=Darkness(), **options)


class Tables:
    """A context that has the examples."""

    def __init__(self, rows):
        self.rows = rows

    def table(self, parent, columns=None, *, name=None):
        return self.rows.select(columns)


def test_the_cells_are_the_held_out_pairs_of_the_reward_model_at_every_time(world):
    prompts = [f"prompt{number}" for number in range(30)]
    one = data_of(world).open().table.slice(0, 1)
    examples = pa.concat_tables([one] * 30).set_column(0, "id", pa.array([f"pair{n}" for n in range(30)]))
    examples = examples.append_column("prompt_id", pa.array(prompts)).append_column("text", pa.array(prompts))
    cells = stage(world, held_out=0.3).cells(Tables(examples))  # pyright: ignore[reportArgumentType]
    aside = np.array(prompts)[held_out_pairs(prompts, share=0.3)].tolist()
    assert 0 < len(aside) < 30
    assert cells["prompt_id"].to_pylist() == [prompt for prompt in aside for _ in GRID]
    assert cells["t"].to_pylist() == list(GRID) * len(aside)
    assert len(set(cells["id"].to_pylist())) == len(cells)


def test_a_dimension_that_the_scorer_has_not_is_refused(world):
    with pytest.raises(ConfigError, match="choose of first, overall"):
        stage(world, dimension="motion")


def test_the_stages_run_from_files_of_pairs_to_accuracies(world, tmp_path):
    pairs = write_pairs(
        tmp_path / "pairs", [pair(n, size=(24, 24), choice="a") | {"prompt": TEXTS[n % 2]} for n in range(6)]
    )
    source = PairFiles(folder=Folder(path=str(pairs)))
    scores = stage(world, source=source, held_out=0.999, shown="x_t")
    accuracy, store = NoisedAccuracy(scores=scores), Store(tmp_path / "store")
    computed(accuracy, store)
    assert store.artifact(scores).table(["pair", "t"]).num_rows == 6 * len(GRID)
    rows = list(store.artifact(accuracy).rows(RewardAccuracy))
    assert sorted(row.t for row in rows) == list(GRID) and {row.pairs for row in rows} == {6}
    assert {row.band for row in store.artifact(accuracy).rows(RewardBand, name="bands")} == {"low", "high", "all"}
