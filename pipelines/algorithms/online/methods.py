"""Every online loss, as the type of an option."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.algorithms.online.grpo import GRPO
from pipelines.algorithms.online.spo import SPO

AnyMoveMethod = Annotated[GRPO | SPO, Field(discriminator="method")]
"""An online loss; a new one is a file, and a name here."""
