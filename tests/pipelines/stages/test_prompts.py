"""Prompts from files: kinds of file, splits, duplicates, and identities that follow content and not places."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.config import ConfigError
from infra.identity import key_of
from pipelines.miniature.prompts import Grammar
from pipelines.models.prompts import Texts
from pipelines.stages.prompts import WritePrompts

TEXTS = [f"a picture of {number} circles, “round”" for number in range(200)]


class Metrics(dict):
    """What a stage says of its run."""

    def metric(self, name, value):
        self[name] = value


def written(source, **options):
    metrics = Metrics()
    return list(WritePrompts(source=source, **options).run(metrics)), metrics


def write(folder, kind):
    path = folder / f"prompts{kind}"
    if kind == ".txt":
        path.write_text("\n\n".join(TEXTS), encoding="utf-8")
    elif kind == ".jsonl":
        path.write_text("\n".join(json.dumps({"prompt": text}) for text in TEXTS))
    elif kind == ".csv":
        path.write_text("prompt\n" + "\n".join(f'"{text}"' for text in TEXTS), encoding="utf-8")
    elif kind == ".tsv":
        path.write_text("prompt\tkind\n" + "\n".join(f"{text}\tround" for text in TEXTS), encoding="utf-8-sig")
    else:
        pq.write_table(pa.table({"prompt": TEXTS}), path)
    return Texts(path=str(path))


@pytest.mark.parametrize("kind", [".txt", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    rows, metrics = written(write(tmp_path, kind))
    assert [row.text for row in rows] == TEXTS and metrics == {"duplicates": 0}
    lines, _ = written(write(tmp_path, ".txt"))
    assert [(row.id, row.split) for row in rows] == [(row.id, row.split) for row in lines]
    assert all(row.source.startswith(f"prompts{kind}") and row.parent is None for row in rows)
    assert lines[1].source == "prompts.txt:3"


def test_a_rewritten_prompt_keeps_the_id_and_the_split_of_its_original(tmp_path):
    rows = [{"prompt": f"{text}, {style}", "original": text} for text in TEXTS for style in ("in oil", "in ink")]
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found, _ = written(Texts(path=str(tmp_path / "p.jsonl"), parent_column="original", evaluation_share=0.5))
    originals, _ = written(Texts(path=str(write(tmp_path, ".txt").path), evaluation_share=0.5))
    wanted = [(row.id, row.split) for row in originals for _ in range(2)]
    assert [(row.parent, row.split) for row in found] == wanted and len({row.split for row in found}) == 2


def test_the_hash_of_a_text_decides_its_split_and_about_the_share_is_held_out(tmp_path):
    source = write(tmp_path, ".txt")

    def held(share):
        rows, _ = written(source.model_copy(update={"evaluation_share": share}))
        return {row.text for row in rows if row.split == "evaluation"}

    assert 0.15 < len(held(0.25)) / len(TEXTS) < 0.35 and held(0.25) < held(0.5)


def test_an_identity_is_the_content_and_how_it_is_read_and_never_the_place(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    here, there = write(tmp_path, ".txt"), write(tmp_path / "elsewhere", ".txt")
    assert key_of(here) == key_of(there) != key_of(here.model_copy(update={"evaluation_share": 0.5}))
    (tmp_path / "elsewhere" / "prompts.txt").write_text("another prompt")
    assert key_of(here) != key_of(there)


def test_a_text_that_stands_twice_is_refused_or_merged_and_counted(tmp_path):
    (tmp_path / "p.txt").write_text("a circle\na square\na circle\n")
    source = Texts(path=str(tmp_path / "p.txt"))
    with pytest.raises(ConfigError, match=r"p.txt:3: 'a circle' stands at p.txt:1 already"):
        written(source)
    rows, metrics = written(source, duplicates="merge")
    assert [row.text for row in rows] == ["a circle", "a square"] and metrics == {"duplicates": 1}


def test_given_splits_and_tasks_are_kept_and_no_text_may_be_in_both_splits(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,split,kind\na circle,train,single\na square,evaluation,two\n")
    source = Texts(path=str(tmp_path), split="column", task_column="kind")
    assert [(row.split, row.task) for row in written(source)[0]] == [("train", "single"), ("evaluation", "two")]
    (tmp_path / "q.csv").write_text("prompt,split,kind\na circle,evaluation,single\n")
    with pytest.raises(ConfigError, match="is also in split train"):
        written(source, duplicates="merge")


PUBLISHED = [
    ("evaluation_metadata.jsonl", '{"tag": "counting", "include": [], "prompt": "a photo of two clocks"}', "prompt", "tag"),
    ("PartiPrompts.tsv", 'Prompt\tCategory\tNote\na "sign"\tArtifacts\t"', "prompt", "category"),
    ("drawbench.csv", 'Prompts,Category\n"A sign, that says ""NeurIPS""",Text\n', "Prompts", "Category"),
]


@pytest.mark.parametrize(("name", "content", "column", "task"), PUBLISHED, ids=["geneval", "parti", "drawbench"])
def test_published_sets_of_prompts_are_read_as_they_are(tmp_path, name, content, column, task):
    (tmp_path / name).write_text(content)
    ((row,), _) = written(Texts(path=str(tmp_path / name), column=column, task_column=task))
    wanted = {"geneval": ("a photo of two clocks", "counting"), "parti": ('a "sign"', "Artifacts")}
    wanted["drawbench"] = ('A sign, that says "NeurIPS"', "Text")
    assert (row.text, row.task) in wanted.values() and row.source == f"{name}:{1 if name.endswith('jsonl') else 2}"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{', "p.jsonl:2: this does not read as JSON"),
        ("p.jsonl", "3", "p.jsonl:1: this is no JSON object"),
        ("p.jsonl", r'{"prompt": "a \ud800"}', "p.jsonl:1: the prompt holds"),
        ("p.txt", "a circle\n\na \x00 square", "p.txt:3: the prompt holds"),
        ("p.txt", b"a circle\na caf\xe9\n", "p.txt:2: this is not UTF-8"),
        ("p.csv", b"prompt\na circle\na caf\xe9\n", "p.csv:3: this is not UTF-8"),
        ("p.csv", 'prompt,kind\n"one\nof two lines",a\na circle, red,b\n', "p.csv:4: 3 values for 2 columns"),
        ("p.csv", 'prompt\n"a circle\n', "p.csv:2: this does not read as csv"),
        ("p.csv", "prompt\na circle\n  \n", "p.csv:3: the prompt is '  '"),
        ("p.csv", "prompt,prompt\na,b\n", "p.csv:1: two columns are called 'prompt'"),
        ("p.jsonl", '{"prompt": 3}', "p.jsonl:1: the prompt is 3"),
        ("p.csv", "caption\na circle\n", "no column 'prompt'; it has caption"),
        ("p.parquet", "PAR1", "does not read as parquet"),
        ("p.md", "a circle", "no file of prompts there"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_refused_by_its_place(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=reason):
        written(Texts(path=str(tmp_path)))


def test_the_grammar_is_a_source_like_any_other():
    rows, _ = written(Grammar(train=6, evaluation=12))
    assert [row.split for row in rows] == ["train"] * 6 + ["evaluation"] * 12
    assert len({row.task for row in rows}) == 6 and all(row.expectation for row in rows)
