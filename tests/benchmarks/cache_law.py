"""The law of the cache for every flag of every recipe: a run after another leaves the bytes that it leaves alone.

Two runs of the first flags in fresh stores must agree; then every flag changes by itself, after the first run and in a
store that has nothing of the first run but what the two share by key. It takes hours: it runs only by its name, and
`--recipes A,B` and `--flags a,b` limit it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from infra.cluster.connection import connected
from infra.dag.stage import Stage
from infra.store.artifacts import Store
from jobs.recipes import call_recipe, flags_of, load_recipe, option, recipe_names
from pipelines.miniature.jurors import WEIGHTS
from tests.benchmarks.flag_values import BASES, Flags, Without, other_value
from tests.benchmarks.measure import Result
from tests.support.cache_law import content, copied, differing, only, run_alone
from tests.support.pair_files import pair, write_pairs
from tests.support.tiny import write_tiny


def run(recipes: Sequence[str] = (), flags: Sequence[str] = ()) -> Iterator[Result]:
    """One result for each flag: the number of files that differ."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as place, connected(workers=4):
        for name in recipes or recipe_names():
            folder = Path(place) / name
            yield from _Law(name, folder, Path(place)).results(flags)
            shutil.rmtree(folder, ignore_errors=True)


class _Law:
    """The law over one recipe; every different set of first flags is run once."""

    def __init__(self, name: str, folder: Path, inputs: Path) -> None:
        self.name, self.folder, self.inputs = name, folder, inputs
        self.recipe = load_recipe(name)
        self.firsts: dict[str, tuple[Store, Stage]] = {}

    def results(self, flags: Sequence[str]) -> Iterator[Result]:
        """The first flags against themselves, then flag by flag."""
        yield self._result("twice", self._twice)
        for flag in flags_of(self.recipe):
            if not flags or flag in flags:
                yield self._result(option(flag), partial(self._flag, flag))

    def _result(self, what: str, compared: Any) -> Result:
        """A failure is a result, too: the other flags are still tried."""
        title = f"cache: files of {self.name} that differ, {what}"
        try:
            wrong, note = compared()
        except Exception as error:
            return Result(title, 1, "<= 0", {"failed": f"{type(error).__name__}: {error}"[:300]})
        return Result(title, len(wrong), "<= 0", {"first": wrong[0]} if wrong else {"note": note})

    def _twice(self) -> tuple[list[str], str]:
        store, target = self._first({})
        again = Store(self.folder / "again")
        run_alone(again, target)
        found = content(store, target)
        return differing(found, content(again, target)), f"{len(found)} files in two fresh stores"

    def _flag(self, flag: str) -> tuple[list[str], str]:
        other = other_value(self.name, flag)
        if isinstance(other, Without):
            return [], f"not run: {other.reason}"
        target = self._built(other.beside | other.along | {flag: other.value})
        if target.key == self._built(other.beside).key:
            return [], "no part of the key"
        before, _ = self._first(other.beside)
        place = self.folder / flag
        after, alone = copied(before, place / "after"), only(before, target, place / "alone")
        run_alone(after, target)
        run_alone(alone, target)
        there, here = content(after, target), content(alone, target)
        shutil.rmtree(place)
        return differing(there, here), f"{len(here)} files"

    def _first(self, beside: Flags) -> tuple[Store, Stage]:
        """The store after the first run."""
        target = self._built(beside)
        if target.key not in self.firsts:
            store = Store(self.folder / f"first-{len(self.firsts)}")
            run_alone(store, target)
            self.firsts[target.key] = store, target
        return self.firsts[target.key]

    def _built(self, changed: Flags) -> Stage:
        return call_recipe(self.recipe, placed(BASES[self.name] | changed, self.inputs))


def placed(flags: Flags, inputs: Path) -> Flags:
    """The flags with paths in place of names of inputs, which are written where they are not there yet."""
    found = {}
    for name, value in flags.items():
        if isinstance(value, str) and value.startswith("@"):
            folder, _, file = value[1:].partition("/")
            if not (inputs / folder).is_dir():
                write_input(inputs / folder)
            value = str(inputs / folder / file)
        found[name] = value
    return found


def write_input(folder: Path) -> None:
    """A tiny generator or a few pairs, as the folder's name says: NAME, NAME-other, or NAME-renamed of the same kind."""
    kind, _, form = folder.name.partition("-")
    if kind == "lists":
        _write_lists(folder)
        return
    if kind not in ("pictures", "clips"):
        write_tiny(kind, folder, seed=int(form == "other"))
        return
    rows = []
    for n in range(8 if form == "other" else 6):
        makers = {"generator_a": "xyz"[n % 3], "generator_b": "xyz"[(n + 1 + n // 3) % 3]}
        margins = {"margin_VQ": 1.0 - n % 3, "margin_TA": n % 2 - 0.5} if kind == "clips" else {}
        rows.append(pair(n, clip=9 if kind == "clips" else 0, **makers, **margins))
    if form == "renamed":
        rows = [{"words" if name == "prompt" else name: value for name, value in row.items()} for row in rows]
    write_pairs(folder, rows)


def _write_lists(folder: Path) -> None:
    """Prompts, jurors, and generators of pictures and of clips, two of each."""
    folder.mkdir()
    texts = [f"a thing number {n}" for n in range(14)]
    (folder / "prompts.txt").write_text("\n".join(texts[:12]))
    (folder / "more.txt").write_text("\n".join(texts))
    table = [f"{text},{text} in words,{'ab'[n % 2]}" for n, text in enumerate(texts[:12])]
    (folder / "table.csv").write_text("\n".join(["prompt,words,kind", *table]))
    jurors = {
        name: f"- name: {name}\n  weights: {WEIGHTS / model}\n  questionnaire: {{kind: {model.partition('-')[2]}}}\n"
        for name, model in (("jury", "idefics3-pairwise"), ("pointwise", "idefics3-pointwise"))
    }
    fine = f"- name: fine\n  weights: {WEIGHTS / 'idefics3-fine'}\n  questionnaire: {{kind: pairwise}}\n"
    lists = jurors | {"judges": fine, "both": jurors["jury"] + jurors["pointwise"]}
    for medium, kind in (("pictures", "sd15"), ("clips", "wan")):
        frames = "  frames: 5\n" if medium == "clips" else ""
        for seed, name in enumerate(("first", "second")):
            write_tiny(kind, folder / f"{kind}-{name}", seed=seed)
        for form, steps in ((medium, 2), (f"{medium}-slow", 3)):
            lists[form] = "".join(
                f"- name: {name}\n  weights: {folder / f'{kind}-{name}'}\n  steps: {steps}\n  dtype: float32\n"
                f"  height: 32\n  width: 32\n{frames}"
                for name in ("first", "second")
            )
    for name, text in lists.items():
        (folder / f"{name}.yaml").write_text(text)
