"""Any pictures or clips are paired and judged, rendered or imported; which ones meet does not depend on their order."""

import pytest

from infra.config import ConfigError
from pipelines.miniature.generators import shipped
from pipelines.miniature.jurors import shipped as jury
from pipelines.miniature.prompts import Grammar
from pipelines.stages.arena import Arena
from pipelines.stages.imported import ImportedClips, ImportedPictures, PairFiles
from pipelines.stages.judge import Judge
from pipelines.stages.label import Label
from pipelines.stages.pair import PairSamples
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render

ROSTER = shipped()
RENDERED = Render(prompts=WritePrompts(source=Grammar()), roster=ROSTER)
PICTURES = [
    {
        "id": f"{generator}{sample}",
        "prompt_id": "0123456789ab",
        "text": "a circle",
        "generator": generator,
        "sample": sample,
    }
    for generator, samples in (("policy", 3), ("late", 1), ("early", 2))
    for sample in range(samples)
]


@pytest.mark.parametrize("kind", [ImportedPictures, ImportedClips, Render])
def test_rendered_and_imported_pictures_and_clips_are_paired_judged_and_rated(kind):
    pictures = RENDERED if kind is Render else kind(source=PairFiles())
    pairs = PairSamples(pictures=pictures)
    judged = Judge(pairs=pairs, pictures=pictures, jury=jury())
    arena = Arena(labels=Label(pairs=pairs, votes=judged))
    assert pairs.parents == {"pictures": pictures} and judged.looks_up()["picture_a"] is pictures
    assert arena.expected_rows(None) == (len(ROSTER) if kind is Render else None)


def test_a_prompts_pairs_are_the_chosen_ones_under_ids_of_their_prompt():
    stage = PairSamples(pictures=RENDERED, focus=("policy", "late"), per_prompt=2)
    pairs = stage._of_prompt(PICTURES)
    assert len(pairs) == 6 + 2 and pairs == stage._of_prompt(PICTURES[::-1])
    made = {row["id"]: row["generator"] for row in PICTURES}
    for pair in pairs:
        assert pair.id.startswith("0123456789ab") and pair.text == "a circle"
        assert (pair.generator_a, pair.generator_b) == (made[pair.picture_a], made[pair.picture_b])
    assert [pair.id for pair in pairs] == sorted(pair.id for pair in pairs)


def test_with_a_baseline_each_arm_meets_the_baselines_sample_of_its_own_number_and_nothing_else():
    arms = ("policy", "late", "early")
    shown = [
        {"id": f"{arm}{n}", "generator": arm, "sample": n, "prompt_id": "0" * 12, "text": "a circle"}
        for arm in arms
        for n in range(2)
    ]
    pairs = PairSamples(pictures=RENDERED, baseline="policy")._of_prompt(shown)
    found = {frozenset((pair.picture_a, pair.picture_b)) for pair in pairs}
    assert len(pairs) == 4 and found == {frozenset((f"policy{n}", f"{arm}{n}")) for arm in arms[1:] for n in range(2)}


def test_a_baseline_that_nobody_renders_or_that_other_options_contradict_is_refused():
    with pytest.raises(ConfigError, match="'nobody' is none of"):
        PairSamples(pictures=RENDERED, baseline="nobody")
    with pytest.raises(ConfigError, match="leave them out"):
        PairSamples(pictures=RENDERED, baseline="policy", per_prompt=2)
