"""A stage anywhere in another's options is its parent, as it is part of its key."""

from typing import Any, ClassVar

from pydantic import Field

from infra.config import Config
from infra.dag.stage import Stage, TableStage, descendants, topological
from support.numbers import Number, Numbers


class Holder(Config):
    """A config that holds a stage, as weights that a stage made do."""

    stage: Stage


class Nested(TableStage):
    """Stages at every depth."""

    name: ClassVar = "nested"
    row: ClassVar = Number

    plain: Numbers
    several: tuple[Numbers, ...] = ()
    held: tuple[Holder, ...] = ()
    named: dict[str, Holder] = {}
    outside: tuple[Holder, ...] = Field((), exclude=True)

    def run(self, context: Any) -> Any:
        raise NotImplementedError


def numbers(count: int) -> Numbers:
    return Numbers(count=count, label=str(count))


def test_parents_are_found_at_every_depth_and_named_by_their_path():
    stage = Nested(
        plain=numbers(1),
        several=(numbers(2),),
        held=(Holder(stage=numbers(3)),),
        named={"x": Holder(stage=numbers(4))},
    )
    assert {path: parent.count for path, parent in stage.parents.items()} == {
        "plain": 1,
        "several[0]": 2,
        "held[0].stage": 3,
        "named[x].stage": 4,
    }
    assert [node.node for node in topological(stage)][-1] == "nested" and len(topological(stage)) == 5
    deep = stage.parents["held[0].stage"]
    assert stage.key in descendants(topological(stage), deep)


def test_every_parent_changes_the_key_and_what_is_outside_the_identity_is_no_parent():
    one, two = (Nested(plain=numbers(1), held=(Holder(stage=numbers(count)),)) for count in (3, 4))
    assert one.key != two.key
    aside = Nested(plain=numbers(1), outside=(Holder(stage=numbers(9)),))
    assert aside.key == Nested(plain=numbers(1)).key and set(aside.parents) == {"plain"}


def test_a_stage_within_a_parent_is_the_parents_own():
    inner = Nested(plain=numbers(1), held=(Holder(stage=numbers(2)),), label="inner")
    assert list(Nested(plain=numbers(3), held=(Holder(stage=inner),)).parents) == ["plain", "held[0].stage"]
