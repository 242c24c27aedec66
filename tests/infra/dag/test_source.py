"""Which code a stage runs: its own, and that of the generators, jurors and sources in its options."""

from infra.dag.source import Sources
from pipelines.miniature import generators, jurors
from pipelines.miniature.prompts import Grammar
from pipelines.models.prompts import Texts
from pipelines.stages.judge import Judge
from pipelines.stages.pair import PairSamples
from pipelines.stages.prompts import WritePrompts
from pipelines.stages.render import Render

PROMPTS = WritePrompts(source=Grammar())
PICTURES = Render(prompts=PROMPTS, roster=generators.shipped()[:1])


def test_code_that_is_reached_through_an_interface_is_followed():
    sources = Sources(None)
    assert {"pipelines/miniature/generators.py", "pipelines/miniature/pipeline.py"} <= set(sources.of(PICTURES))
    judged = Judge(pairs=PairSamples(pictures=PICTURES), pictures=PICTURES, jury=jurors.shipped()[:1])
    assert {"pipelines/models/jurors/vlm.py", "actors/serving/transformers.py"} <= set(sources.of(judged))
    assert "pipelines/miniature/world/grammar.py" in sources.of(PROMPTS)
    assert "pipelines/miniature/world/grammar.py" not in sources.of(WritePrompts(source=Texts(path="prompts.txt")))


def test_neither_infra_nor_the_code_of_a_parents_options_is_followed():
    found = Sources(None).of(PairSamples(pictures=PICTURES))
    assert "pipelines/stages/pair.py" in found and "pipelines/miniature/generators.py" not in found
    assert not any(file.startswith("infra/") for file in Sources(None).of(PICTURES))
