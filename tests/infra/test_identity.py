"""Keys are equal exactly where the meaning is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from infra.config import Config, ConfigError
from infra.dag.stage import Resources
from infra.identity import canonical, group_of, key_of, row_id, seed_of
from infra.store.files import Folder
from support.numbers import Numbers, Squares, numbers


class Options(Config):
    beta: float = Field(1.0, gt=0)
    names: tuple[str, ...] = ()


def test_workers_are_no_part_of_the_key():
    one, many = (Numbers(count=5, resources=Resources(workers=n)) for n in (1, 9))
    assert one.key == many.key


@pytest.mark.parametrize("change", [{"count": 11}, {"scale": 2}, {"shard_rows": 5}])
def test_every_option_is_part_of_the_key(change):
    assert numbers(**change).key != numbers().key


def test_a_parent_counts_by_its_key():
    squares = Squares(numbers=Numbers(count=5))
    assert squares.description["numbers"] == {"stage": "numbers", "key": Numbers(count=5).key}


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=6))
def test_the_order_of_a_mapping_does_not_matter(mapping):
    assert key_of(mapping) == key_of(dict(reversed(list(mapping.items()))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Path("/a"), lambda: 0, object(), {1: 2}])
def test_what_has_no_stable_form_raises(value):
    with pytest.raises(TypeError):
        canonical(value)


def test_a_misspelt_option_names_the_class_and_the_right_one():
    with pytest.raises(ConfigError, match=r"Options: unknown option 'bta'; did you mean 'beta'"):
        Options(bta=2.0)


def test_a_value_out_of_bounds_names_the_option():
    with pytest.raises(ConfigError, match="beta = -1.0 is refused"):
        Options(beta=-1.0)


def test_a_folder_is_its_content_not_its_place(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    one, two = (Folder(path=str(tmp_path / name)) for name in ("one", "two"))
    assert key_of(one) == key_of(two)
    (tmp_path / "two" / "model.safetensors").write_bytes(b"Weights")
    assert key_of(one) != key_of(two)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "adapter.ckpt", "state.pkl"])
def test_weights_that_are_not_safetensors_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match="not safetensors"):
        key_of(Folder(path=str(tmp_path)))


def test_rows_of_one_maker_and_prompt_are_neighbours():
    group = group_of("policy", "0123456789ab")
    assert row_id(group, "x", 1).startswith(group) and row_id(group, "x", 1) != row_id(group, "x", 2)


def test_a_seed_fits_torch_and_depends_on_every_part():
    assert 0 <= seed_of("a", 1) < 2**63 and len({seed_of("a", 1), seed_of("a", 2), seed_of("b", 1)}) == 3
