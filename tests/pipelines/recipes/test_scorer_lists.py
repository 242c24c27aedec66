"""Lists of scorers, and juries that hold them."""

from pipelines.models.jurors.by_score import ScoreJuror
from pipelines.models.scorers.aesthetic import Aesthetic
from pipelines.models.scorers.ocr import Ocr
from pipelines.models.scorers.pickscore import PickScore
from pipelines.models.weights import Hub
from pipelines.recipes.parts.kinds import SCORERS, jurors, scorers

LIST = """
- kind: pickscore
  weights: yuvalkirstain/PickScore_v1
- kind: aesthetic
  weights: openai/clip-vit-large-patch14
  head: heads/aesthetic
- kind: ocr
"""
JURY = """
- kind: by_score
  name: reader
  tie_within: 0.1
  scorer: {kind: ocr, detect: false}
"""


def test_a_list_of_scorers_names_weights_heads_and_options(tmp_path):
    (tmp_path / "list.yaml").write_text(LIST)
    (tmp_path / "heads" / "aesthetic").mkdir(parents=True)
    pick, aesthetic, ocr = scorers(str(tmp_path / "list.yaml"))
    assert pick == PickScore(weights=Hub(repo="yuvalkirstain/PickScore_v1", holds="model"))
    assert isinstance(aesthetic, Aesthetic) and aesthetic.head.local == tmp_path / "heads" / "aesthetic"
    assert ocr == Ocr()


def test_a_jury_may_hold_a_scorer(tmp_path):
    (tmp_path / "jury.yaml").write_text(JURY)
    assert jurors(str(tmp_path / "jury.yaml")) == (ScoreJuror(name="reader", scorer=Ocr(detect=False), tie_within=0.1),)


def test_every_kind_of_scorer_has_the_name_of_its_class_in_a_list():
    assert all(kind.model_fields["name"].default in (name, "hpsv2.1") for name, kind in SCORERS.items())
