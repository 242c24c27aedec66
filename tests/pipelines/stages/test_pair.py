"""Which pictures of a prompt meet: every pair within the focus, a few beyond it, the order drawn by hash."""

from itertools import combinations

from pipelines.miniature.generators import shipped
from pipelines.miniature.prompts import Grammar
from pipelines.stages.pair import PairSamples
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render

PICTURES = [
    {"id": f"{generator}{sample}", "prompt_id": "0123456789ab", "text": "a circle", "generator": generator}
    for generator, samples in (("policy", 3), ("late", 1), ("early", 2))
    for sample in range(samples)
]


def pairs_of(**options):
    stage = PairSamples(pictures=Render(prompts=WritePrompts(source=Grammar()), roster=shipped()), **options)
    return stage._of_prompt(PICTURES)


def met(pairs):
    return {frozenset((pair.picture_a, pair.picture_b)) for pair in pairs}


def test_all_combinations_by_default():
    assert met(pairs_of()) == {frozenset(pair) for pair in combinations([p["id"] for p in PICTURES], 2)}


def test_the_focus_is_kept_whole_and_the_rest_limited():
    pairs = pairs_of(focus=("policy", "late"), per_prompt=2)
    near = {p["id"] for p in PICTURES if p["generator"] != "early"}
    inside = {pair for pair in met(pairs) if pair <= near}
    assert inside == {frozenset(pair) for pair in combinations(near, 2)}
    assert len(pairs) == len(inside) + 2


def test_two_samples_of_one_generator_meet_only_where_asked():
    pairs = pairs_of(within_generator=False)
    assert all(pair.generator_a != pair.generator_b for pair in pairs)


def test_which_is_a_depends_on_the_pictures_alone():
    stage = PairSamples(pictures=Render(prompts=WritePrompts(source=Grammar()), roster=shipped()))
    assert stage._of_prompt(PICTURES) == stage._of_prompt(PICTURES[::-1])
    first = [pair.picture_a < pair.picture_b for pair in pairs_of()]
    assert any(first) and not all(first)
