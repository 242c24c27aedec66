"""Wordings are files, and their texts are part of the identity."""

import pytest

from infra.config import ConfigError
from infra.identity import key_of
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.models.jurors.wording import FOLDER, names, questionnaire_named, read_questionnaire


def test_every_shipped_wording_asks_in_its_dimensions():
    dimensions = {name: questionnaire_named(name).dimensions for name in names()}
    assert dimensions["videoalign"] == dimensions["likert"] == ("MQ", "TA", "VQ")
    assert dimensions["pictures"] == ("aesthetics", "alignment", "composition", "human", "text")
    for name in names():
        questions = questionnaire_named(name).questions("a red box", first=b"1", second=b"2")
        text = " ".join(str(part) for question in questions for part in question.parts)
        assert (
            "a red box" in text and "{" not in text and all(question.answers or name == "ranking" for question in questions)
        )


def test_a_users_file_is_read_and_every_word_of_it_is_identity(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('kind = "pairwise"\nafter = "Which is {caption}?"\n')
    assert read_questionnaire(own) == Pairwise(after="Which is {caption}?")
    changed = (FOLDER / "videoalign.toml").read_text().replace("visually sharp", "visually crisp")
    own.write_text(changed)
    assert key_of(read_questionnaire(own)) != key_of(questionnaire_named("videoalign"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind = pair\n", "line 1"),
        ('kind = "poll"', "pairwise"),
        ('kind = "pairwise"\nafer = "x"', "afer"),
        ('kind = "pairwise"\nafter = "which?"', "caption"),
    ],
)
def test_a_file_that_cannot_be_asked_is_named_in_the_error(text, said, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(ConfigError, match=f"(?s)own.toml.*{said}"):
        read_questionnaire(own)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="videoalign"):
        questionnaire_named("videoaling")
