"""Recipe `align_image`: the whole loop on real generators and jurors of pictures.

Every generator of the roster renders the prompts, the jury compares the pictures in both orders, an arena rates the
generators, the policy is tuned on the preferences, and held-out prompts say whether that helped. Roster, jury and scorers
are lists in YAML (`recipes/rosters/` has examples, which can be given by name). The training is by default VideoAlign's
LoRA (table 10: rank 64, learning rate 5e-6, batch 64, one epoch, beta 500), since it is the one published for a LoRA.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.recipes.parts.alignment import align, chosen_models
from pipelines.recipes.parts.brought import Brought, Tuning
from pipelines.recipes.parts.setup import Setup
from pipelines.stages.gate import ApplyGate


def align_image(
    *,
    prompts: Annotated[str, Field(description="file or folder of prompts: .txt, .csv, .tsv, .jsonl, .parquet")],
    roster: Annotated[str, Field(description="list of generators: a file or a shipped one")] = "vipo_image",
    jury: Annotated[str, Field(description="list of jurors: a file or a shipped one")] = "image_jury",
    brought: Brought = Brought(),
    method: Tuning = Tuning(),
    setup: Setup = Setup(),
) -> ApplyGate:
    """prompts -> render -> pair -> judge -> label -> arena; encode -> examples -> tune; evaluate, report, gate."""
    cast = chosen_models(roster, jury, medium="image", brought=brought, method=method)
    return align(cast, prompts, frames=(1,), brought=brought, method=method, setup=setup)
