"""The identity of every node of every recipe: what would silently be computed anew, or taken for something else.

`keys.json` beside this file is the list. A key that changes is a change of that file in the same commit, with the reason in
its message; `python -m tests.test_keys` writes the file anew.
"""

import json
from importlib import import_module
from pathlib import Path

from infra.dag.stage import topological
from jobs.recipes import call_recipe, recipe_names

KEYS = Path(__file__).with_name("keys.json")
PROMPTS = str(Path(__file__).with_name("support") / "prompts.txt")
REQUIRED = {name: {"prompts": PROMPTS, "evaluation_jury": "image_judges"} for name in ("align_image", "align_video")}
ONLINE = ("tapo", "step_grpo", "flow_grpo", "spo", "lpo")
REQUIRED |= {name: {"prompts": PROMPTS} for name in ONLINE}
"""Flags without which a recipe cannot be built."""


def identities() -> dict[str, dict[str, str]]:
    """The key of every node of every recipe with its default flags."""
    found = {}
    for name in recipe_names():
        recipe = getattr(import_module(f"pipelines.recipes.{name}"), name)
        target = call_recipe(recipe, REQUIRED.get(name, {}))
        found[name] = {stage.node: stage.key for stage in topological(target)}
    return found


def test_no_identity_has_changed_unnoticed():
    known, now = json.loads(KEYS.read_text()), identities()
    changed = [
        f"{recipe}: {node}"
        for recipe in sorted(known.keys() | now.keys())
        for node in sorted(known.get(recipe, {}).keys() | now.get(recipe, {}).keys())
        if known.get(recipe, {}).get(node) != now.get(recipe, {}).get(node)
    ]
    assert not changed, f"these nodes have another identity: {changed}; if it is meant, python -m tests.test_keys"


if __name__ == "__main__":
    KEYS.write_text(json.dumps(identities(), indent=1, sort_keys=True) + "\n")
