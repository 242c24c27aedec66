"""What the report gathers: counts of games and labels, settings without parents."""

from __future__ import annotations

from infra.dag.stage import Lineage
from infra.store.tables import to_table
from pipelines.reporting import gather
from pipelines.reporting.data import Duel, LabelCounts
from pipelines.schemas.votes import Match, Preference
from support.numbers import Numbers, Squares, Sum


def test_a_duel_counts_games_whichever_generator_stood_first() -> None:
    games = [("x", "y", "a"), ("y", "x", "a"), ("y", "x", "b"), ("x", "y", "tie"), ("x", "z", "b")]
    rows = [Match(k, str(k), *game) for k, game in enumerate(games)]
    assert gather.duels(to_table(rows, Match)) == [Duel("x", "y", 2, 1, 1), Duel("x", "z", 0, 1, 0)]
    assert gather.duels(to_table([], Match)) == []


def test_labels_are_counted() -> None:
    rows = [
        Preference(str(k), "p", "t", "1", "2", "x", "y", choice, agreement, 0.0, 1, 0, 0, k)
        for k, (choice, agreement) in enumerate([("a", 1.0), ("tie", 0.5), ("b", 0.75)])
    ]
    assert gather.labels(to_table(rows, Preference)) == LabelCounts(3, 1, 1, 0.75, 3)
    assert gather.labels(to_table([], Preference)) == LabelCounts()


def test_a_node_shows_its_state_and_its_options_without_parents() -> None:
    squares = Squares(numbers=Numbers(count=3))
    target = Sum(squares=squares, scale=2)
    known = Lineage("squares", "squares", squares.key, "hit", 1.5, 3, 0, 0, ("numbers",), {})
    numbers, middle, last = gather.nodes(target, [known])
    assert (numbers.state, middle.state, last.state) == ("not in this run", "hit", "this page")
    assert last.parents == ("squares",)
    assert last.settings == {"scale": "2", "version": "1"}
