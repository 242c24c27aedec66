"""Stage `prompts`: the prompts of a source, each text once, with the split that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from infra.config import ConfigError
from infra.dag.stage import Context, Inputs, TableStage
from infra.identity import group_id
from pipelines.models.prompts import PromptSource, PromptText
from pipelines.schemas.prompts import Prompt


def row_of(prompt: PromptText) -> Prompt:
    """The prompt under the id of its text."""
    return Prompt(
        id=group_id(prompt.text),
        text=prompt.text,
        task=prompt.task,
        split=prompt.split,
        expectation=prompt.expectation,
        source=prompt.place,
        parent=prompt.parent,
    )


class WritePrompts(TableStage):
    """A source in; one row per prompt out, in the source's order."""

    name: ClassVar = "prompts"
    version: ClassVar = 2
    row: ClassVar = Prompt
    cheap: ClassVar = True

    source: PromptSource
    "Where the prompts come from: captions of the miniature world, or files of texts."
    duplicates: Literal["refuse", "merge"] = "refuse"
    "Whether a text that stands twice is an error, or counts once (the record counts the others as `duplicates`)."

    def run(self, context: Context) -> Iterator[Prompt]:
        """Raises ConfigError for a text that stands twice, unless they are merged, and for one in both splits always."""
        seen: dict[str, tuple[str, str]] = {}
        merged = 0
        for prompt in self.source.prompts():
            if prompt.text not in seen:
                seen[prompt.text] = prompt.split, prompt.place
                yield row_of(prompt)
                continue
            split, place = seen[prompt.text]
            if split != prompt.split:
                raise ConfigError(f"{prompt.place}: {prompt.text!r} is also in split {split} ({place}); keep one of them")
            if self.duplicates == "refuse":
                raise ConfigError(
                    f"{prompt.place}: {prompt.text!r} stands at {place} already; take one out, or set duplicates to merge"
                )
            merged += 1
        context.metric("duplicates", merged)

    def expected_rows(self, inputs: Inputs) -> int | None:
        """As many as the source has, where it knows."""
        del inputs
        return self.source.count()
