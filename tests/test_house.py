"""The rules of the house that no linter knows."""

import ast
import builtins
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("infra", "actors", "pipelines", "jobs")
MAY_IMPORT_RAY = {
    "infra/cluster/connection.py",
    "infra/cluster/submission.py",
    "actors/training/launch.py",
    "actors/pool.py",
}
HEAVY = {"torch", "ray", "transformers", "diffusers", "peft", "deepspeed", "matplotlib", "pandas", "vllm", "scipy"}
NEEDED_BY_ALGORITHMS = {
    "torch",
    "numpy",
    "scipy.special",
    "jaxtyping",
    "pydantic",
    "infra.config",
    "infra.identity",
    "infra.lazy",
    "pipelines.algorithms",
    "actors.serving.engine",  # two dataclasses: what a question and an answer are
}
LONGEST = 360  # lines; about 300 is meant


def tracked(*endings):
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    return [name for name in listed if name.endswith(endings) and (ROOT / name).is_file()]


def source():
    return [name for name in tracked(".py") if name.startswith(tuple(f"{package}/" for package in PACKAGES))]


def parsed(name):
    return ast.parse((ROOT / name).read_text(), filename=name)


def imported(name):
    """Modules a file imports, wherever in the file; `from a import b` is `a`."""
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            yield node.module
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy":
            yield node.args[0].value


def called(node):
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def test_ray_is_imported_only_where_work_is_placed():
    importing = {name for name in source() if any(m.split(".")[0] == "ray" for m in imported(name))}
    assert importing <= MAY_IMPORT_RAY


def test_algorithms_import_mathematics_only():
    for name in source():
        if not name.startswith("pipelines/algorithms/"):
            continue
        for module in imported(name):
            top = module.split(".")[0]
            allowed = any(module == given or module.startswith(f"{given}.") for given in NEEDED_BY_ALGORITHMS)
            assert allowed or top in sys.stdlib_module_names, f"{name} imports {module}"


def test_planning_imports_nothing_heavy():
    recipes = [name[:-3].replace("/", ".") for name in source() if name.startswith("pipelines/recipes/")]
    modules = ["jobs.cli", "jobs.plan", *(name.removesuffix(".__init__") for name in recipes)]
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & {name.split(".")[0] for name in done.stdout.split()}


CONVERTER = "pipelines/models/scorers/convert.py"


def test_nothing_received_is_unpickled_and_no_remote_code_is_run():
    for name in source():
        assert not {m.split(".")[0] for m in imported(name)} & {
            "pickle",
            "cloudpickle",
            "dill",
            "joblib",
            "shelve",
            "marshal",
        }
        for node in ast.walk(parsed(name)):
            if name == CONVERTER and called(node) == "torch.load":
                # Published scorers that exist as pickles only: the restricted unpickler makes tensors and calls nothing.
                assert "weights_only=True" in ast.unparse(node)
                continue
            assert called(node) not in ("torch.load", "eval", "exec"), f"{name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
                false = isinstance(node.value, ast.Constant) and node.value.value is False
                assert false, f"{name}:{node.value.lineno}: {node.arg}"


def test_every_package_says_what_it_is_and_tests_are_no_package():
    for name in tracked("__init__.py"):
        if name.startswith("tests/"):
            assert name in ("tests/support/__init__.py", "tests/benchmarks/__init__.py")
        else:
            assert ast.get_docstring(parsed(name)), f"{name} has no docstring"
    folders = {Path(name).parent for name in source()}
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.parametrize("name", source())
def test_a_file_is_short_and_opens_with_what_it_is(name):
    text = (ROOT / name).read_text()
    assert text.count("\n") <= LONGEST, f"{name} has {text.count(chr(10))} lines; one idea a file"
    assert ast.get_docstring(ast.parse(text)), f"{name} does not say what it is"


def test_no_two_classes_share_a_name_and_none_shadows_a_builtin():
    places = {}
    for name in source():
        for node in ast.walk(parsed(name)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(name)
    assert not {name: found for name, found in places.items() if len(found) > 1 or hasattr(builtins, name)}


@pytest.mark.parametrize("name", source())
def test_no_function_is_longer_than_sixty_lines(name):
    functions = [node for node in ast.walk(parsed(name)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert not {function: lines for function, lines in long.items() if lines > 60}


def test_no_machine_and_no_package_index_is_named():
    folders = r"(?<![\w.])/(?:root|home/\w+|Users/\w+|work)/"
    # An index is known by its options and by the path every index has, so that this file names none either.
    indices = r"(?:index-url|find-links|trusted-host)[ =]+\S*[a-z]|https?://[^\s\"'<>]+/simple\b"
    places = re.compile(f"{folders}|{indices}")
    endings = (".py", ".md", ".toml", ".txt", ".yaml", ".json", ".sh", ".j2", ".css", "run", "Makefile", "Dockerfile")
    for name in tracked(*endings):
        if name == "tests/test_house.py":
            continue
        found = places.search((ROOT / name).read_text())
        assert not found, f"{name} names {found.group()!r}"


def test_shipped_weights_are_safetensors_of_30_megabytes_at_most():
    shipped = [name for name in tracked() if "/weights/" in name]
    assert {Path(name).suffix for name in shipped} <= {".safetensors", ".json", ".txt", ".md", ".jinja"}
    assert sum((ROOT / name).stat().st_size for name in shipped) <= 30e6


def test_every_name_imported_from_outside_is_a_dependency():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    given = " ".join(
        [
            *project["dependencies"],
            *(word for extra in ("mlflow", "nf4", "ocr", "vllm", "wandb") for word in optional[extra]),
        ]
    ).lower()
    renamed = {"PIL": "pillow", "markupsafe": "jinja2"}
    for name in source():
        for module in imported(name):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in PACKAGES or top == "__future__":
                continue
            assert renamed.get(top, top).lower() in given, f"{name} imports {top}, which pyproject.toml does not list"


def test_the_picture_of_the_dag_names_every_stage_of_the_recipe():
    from infra.dag.stage import topological
    from pipelines.recipes.miniature import miniature

    picture = (ROOT / ".github/readme/dag.svg").read_text()
    missing = [stage.node for stage in topological(miniature()) if f">{stage.node}</text>" not in picture]
    assert not missing, f"run make readme: {missing} are not in the picture"
