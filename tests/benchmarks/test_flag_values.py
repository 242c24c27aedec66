"""Every flag of every recipe has another value for the law of the cache, or a reason why it has none."""

import pytest

from infra.config import ConfigError
from jobs.recipes import call_recipe, flags_of, load_recipe, recipe_names
from tests.benchmarks.cache_law import placed
from tests.benchmarks.flag_values import BASES, OTHERS, Other, Without, other_value


def of_every_flag():
    return [(recipe, flag) for recipe in recipe_names() for flag in flags_of(load_recipe(recipe))]


def test_every_flag_of_every_recipe_has_another_value_and_no_flag_is_named_that_is_none():
    assert recipe_names() == sorted(BASES)
    for recipe, flag in of_every_flag():
        assert isinstance(other_value(recipe, flag), Other | Without)
    named = {flag for flags in OTHERS.values() for flag in flags}
    assert named == {flag for _, flag in of_every_flag()}


def test_a_flag_without_another_value_fails():
    with pytest.raises(ConfigError, match="recipe miniature: no other value of novel is stated"):
        other_value("miniature", "novel")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder of tiny generators and pairs."""
    return tmp_path_factory.mktemp("inputs")


@pytest.mark.parametrize("name", recipe_names())
def test_another_value_is_valid_and_another(name, inputs):
    recipe = load_recipe(name)
    known = flags_of(recipe)
    for flag in known:
        other = other_value(name, flag)
        if isinstance(other, Without):
            continue
        given = BASES[name] | other.beside
        assert other.value != given.get(flag, known[flag].default), flag
        call_recipe(recipe, placed(given | other.along | {flag: other.value}, inputs))
