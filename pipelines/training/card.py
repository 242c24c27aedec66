"""The card of a tuned policy: where the weights come from, how they were made, how the training began and ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.dag.stage import Lineage
from infra.identity import key_of
from pipelines.models.adapter import Adapter
from pipelines.models.card import Ancestor, Use, model_card, summary
from pipelines.models.families.base import Family
from pipelines.models.weights import Hub
from pipelines.schemas.curves import Curve


def tuned_card(
    policy: Family,
    *,
    placed: Family,
    adapter: Adapter,
    method: str,
    length: str,
    clips: bool,
    lineage: Sequence[Lineage],
    settings: Mapping[str, Any],
    curve: Sequence[Curve],
) -> str:
    """Markdown. `policy`: as the user named it, `placed`: where its weights are; `length`: of the run, in words."""
    base = policy.weights.repo if isinstance(policy.weights, Hub) else placed.folder.name
    ancestors = [Ancestor(base, key_of(policy), "the generator")]
    ancestors += [Ancestor(one.node, one.key, f"{one.rows} rows") for one in lineage]
    use = Use(f"{policy.pipeline_module}.{policy.pipeline_class}", base, lora=adapter.kind == "lora", video=clips)
    title = f"{base} tuned by {method}, {length}"
    return model_card(title, use=use, lineage=ancestors, settings=settings, scores=summary(curve))
