"""Recipe `align_video`: the whole loop on real generators and jurors of clips; see `align_image`.

Clips are brought to the policy's frame rate by their time stamps, and a pair to the longest of `--frames` that both fill.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.recipes.parts.alignment import align, chosen_models
from pipelines.recipes.parts.brought import Brought, Tuning
from pipelines.recipes.parts.setup import Setup
from pipelines.stages.gate import ApplyGate


def align_video(
    *,
    prompts: Annotated[str, Field(description="file or folder of prompts: .txt, .csv, .tsv, .jsonl, .parquet")],
    roster: Annotated[str, Field(description="list of generators: a file or a shipped one")] = "vipo_video",
    jury: Annotated[str, Field(description="list of jurors: a file or a shipped one")] = "video_jury",
    frames: Annotated[tuple[int, ...], Field(description="lengths of clips in frames")] = (
        81,
        49,
        33,
        17,
    ),
    brought: Brought = Brought(),
    method: Tuning = Tuning(),
    setup: Setup = Setup(zero="1", micro_batch=1),
) -> ApplyGate:
    """prompts -> render_clips -> pair -> judge -> label -> arena; encode -> examples -> tune; evaluate, report, gate."""
    cast = chosen_models(roster, jury, medium="video", brought=brought, method=method)
    return align(cast, prompts, frames=frames, brought=brought, method=method, setup=setup)
