"""Commands in the README and in manifests are commands that exist, and manifests say what their readers expect."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from infra.dag.stage import topological
from jobs.cli import COMMANDS
from jobs.recipes import call_recipe, load_recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for package in ("infra", "actors", "pipelines", "jobs", "tests")
    for path in sorted((ROOT / package).rglob("*.md"))
}
MANIFESTS = {
    path.name: path.read_text()
    for path in [
        *sorted((ROOT / "infra/cluster/manifests").glob("*.yaml")),
        ROOT / "docker/compose.yaml",
        ROOT / "docker/Dockerfile",
    ]
}


class Parsed(BaseException):
    """Parsing went well; the command itself is not to be run. Not an Exception, so that nobody handles it."""


def commands(text):
    """`salon …` and `python -m jobs.… …` in a text, as words after `salon`."""
    text = re.sub(r"\\\n\s*", " ", text)  # a command on several lines
    text = re.sub(r'CMD \["salon", (.*)\]', lambda match: "salon " + match[1].replace('", "', " ").strip('"'), text)
    for match in re.finditer(
        r"(?m)(?:(?<![\w.{/-])salon|python -m jobs\.)(?: )?((?:run|plan|sql|submit|show|explain|gc|report)\b[^\n`]*)", text
    ):
        words = shlex.split(match[1].split("  #")[0].rstrip("),."), comments=True)
        if len(words) > 1 and not words[1].startswith("…") and words[1] not in ("NAME", "RECIPE"):
            yield words


FOUND = [(name, words) for name, text in {"README.md": README, **PAGES, **MANIFESTS}.items() for words in commands(text)]


def test_links_between_pages_lead_somewhere():
    for name, text in {"README.md": README, **PAGES}.items():
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name} links to {target}"


def test_the_commands_are_found():
    assert len(FOUND) >= 15
    assert {"README.md", "compose.yaml", "Dockerfile", "cluster.yaml", "rayjob.yaml"} <= {name for name, _ in FOUND}


@pytest.mark.parametrize(("name", "words"), FOUND, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_a_command_parses(name, words, monkeypatch, capsys):
    """The command's own parser accepts its words, and the recipe its flags."""
    assert words[0] in COMMANDS
    parse = argparse.ArgumentParser.parse_args

    def parsing(parser, *given, **named):
        parse(parser, *given, **named)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsing)
    try:
        importlib.import_module(f"jobs.{words[0]}").main(words[1:])
    except Parsed:
        return
    except SystemExit as end:
        assert end.code == 0 and "--help" in words, capsys.readouterr().err
        return
    pytest.fail(f"{name}: {shlex.join(words)} was not parsed")


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    every = "\n".join([README, *PAGES.values()])
    assert set(re.findall(r"(?m)(?:^|`)make ([a-z][a-z-]+)", every)) <= targets


def example_with(words):
    return next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if words in code)


def test_the_example_recipe_is_one_and_its_dag_is_the_one_it_says(tmp_path, monkeypatch):
    (tmp_path / "readme_recipe.py").write_text(example_with("def mine"))
    (tmp_path / "prompts.txt").write_text("a cat\na dog on a cat\n")
    (tmp_path / "my-lora").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    target = call_recipe(load_recipe("readme_recipe:mine"), {"steps": 4})
    nodes = [stage.node for stage in topological(target)]
    assert nodes == ["prompts", "render", "pair", "judge", "label", "arena"]
    assert target.labels.pairs.pictures.roster[1].steps == 4


def test_the_readme_is_short():
    assert README.count("\n") <= 220


def test_the_example_algorithm_works_as_printed():
    panel = importlib.import_module("pipelines.algorithms.voting.panel")
    code = example_with("class TwoThirds")
    names = dict(vars(panel))
    exec(compile(code, "README.md", "exec", flags=annotations_flag(), dont_inherit=True), names)
    a, b, tie = 0, 1, panel.TIE
    ballots = np.array([[a, a, b], [a, b, tie], [b, b, b], [a, panel.NOTHING, panel.NOTHING]], dtype=np.int8)
    assert names["TwoThirds"]().verdicts(ballots).choice.tolist() == [a, tie, b, a]


def annotations_flag():
    import __future__

    return __future__.annotations.compiler_flag


def test_compose_is_a_head_and_a_worker_with_a_dashboard_for_this_machine_only():
    compose = yaml.safe_load(MANIFESTS["compose.yaml"])
    head, worker = compose["services"]["head"], compose["services"]["worker"]
    assert "--head" in head["command"] and "--address=head:6379" in worker["command"]
    assert all(port.startswith("127.0.0.1:") for port in head["ports"])
    assert "ports" not in worker
    assert {"store:/store"} == set(head["volumes"]) == set(worker["volumes"])
    assert (ROOT / "docker" / head["build"]["context"] / head["build"]["dockerfile"]).is_file()
    assert f"AS {head['build']['target']}" in MANIFESTS["Dockerfile"]


def test_the_rayjob_mounts_the_store_it_is_told_to_write_to():
    job = yaml.safe_load(MANIFESTS["rayjob.yaml"])
    assert job["kind"] == "RayJob" and job["apiVersion"] == "ray.io/v1"
    root = shlex.split(job["spec"]["entrypoint"])[-1]
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        mounts = {mount["mountPath"] for c in group["template"]["spec"]["containers"] for mount in c["volumeMounts"]}
        assert root in mounts


def test_the_rayjob_wants_a_token_and_labels_its_groups():
    cluster = yaml.safe_load(MANIFESTS["rayjob.yaml"])["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and cluster["autoscalerOptions"]["version"] == "v2"
    assert [group["labels"]["salon.io/group"] for group in cluster["workerGroupSpecs"]] == ["cpu", "gpu"]


def test_the_cluster_launcher_takes_the_labels_of_its_machines():
    from ray.autoscaler._private.util import validate_config

    cluster = yaml.safe_load(MANIFESTS["cluster.yaml"])
    validate_config(cluster | {"cluster_synced_files": []})
    assert {kind["labels"]["salon.io/group"] for kind in cluster["available_node_types"].values()} == {"cpu", "gpu"}


def test_manifests_run_the_ray_that_is_pinned():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert yaml.safe_load(MANIFESTS["rayjob.yaml"])["spec"]["rayClusterSpec"]["rayVersion"] == pinned["ray"]


def test_the_cluster_launcher_starts_gpu_workers_behind_a_plain_head():
    cluster = yaml.safe_load(MANIFESTS["cluster.yaml"])
    types = cluster["available_node_types"]
    assert types[cluster["head_node_type"]]["resources"]["GPU"] == 0
    assert any(kind["resources"].get("GPU", 0) > 0 for kind in types.values())
    assert not any("0.0.0.0" in command for command in cluster["head_start_ray_commands"])


def test_the_images_copy_every_package():
    copied = set(re.findall(r"(?m)^COPY (\w+) \1$", MANIFESTS["Dockerfile"]))
    assert copied == {"infra", "actors", "pipelines", "jobs"}
