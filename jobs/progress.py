"""Progress of a run: a bar with rate and ETA in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from infra.dag.foretold import Foretold
from infra.dag.plan import HIT, NodePlan
from infra.store.record import Record

LINE_EVERY_S = 10.0


def describe(plan: NodePlan) -> str:
    """One line: what a stage is about to do."""
    if plan.state == HIT:
        text = f"hit      {plan.rows} rows"
    elif plan.rows is None:
        text = f"{plan.state:<8} rows known when it runs"
    else:
        text = f"{plan.state:<8} {plan.to_do} rows to do" + (f", {plan.to_reuse} taken over" if plan.to_reuse else "")
    if plan.error_rows and plan.state == HIT:
        text += f", {plan.error_rows} quarantined (--retry-errors)"
    if plan.foretold is not None:
        text += f", {foretold(plan.foretold)}"
    elif plan.gpus and plan.state != HIT and plan.to_do != 0:
        text += ", GPU-hours unknown"
    if plan.demand:
        text += f"  {{{plan.demand}}}"
    if plan.state != HIT and plan.why:
        text += f"  [{'; '.join(plan.why[:3])}]"
    return text


def foretold(found: Foretold) -> str:
    """Time, GPU-hours and disk: "about 3m20s, 0.4 GPU-hours, 12 MB", and by what where not by earlier runs."""
    parts = [f"{'about' if found.complete else 'at least'} {duration(found.seconds)}"]
    if found.gpu_hours:
        parts.append(f"{found.gpu_hours:.1f} GPU-hours")
    if found.bytes is not None:
        parts.append(f"{found.bytes / 1e9:.1f} GB" if found.bytes >= 1e9 else f"{found.bytes / 1e6:.1f} MB")
    return ", ".join(parts) + (f" ({found.basis})" if found.basis else "")


def source_note(plan: NodePlan) -> str:
    """What to say where code has changed since a cached artifact was made; "" where it has not."""
    if plan.state != HIT or not plan.source_changed:
        return ""
    shown = ", ".join(plan.source_changed[:3]) + (" …" if len(plan.source_changed) > 3 else "")
    return f"{plan.node}: source changed since this artifact was made ({shown}); --strict-code computes it again"


def duration(seconds: float) -> str:
    """A duration as people write it: 12s, 3m20s or 2h05m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _nowhere(line: str) -> None:
    del line


class Console:
    """Implements `infra.dag.run.Progress` on a stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty()
        self.began: dict[str, tuple[float, int]] = {}
        self.last: dict[str, float] = {}
        self.log: Callable[[str], None] = _nowhere
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}
        """Bars of the stages that are being computed, by node."""

    def said(self, line: str) -> None:
        """A line of its own."""
        if self.bar is None:
            print(line, file=self.stream, flush=True)
        else:  # above the bars, which stay where they are
            self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self.log(line)

    def log_to(self, write: Callable[[str], None]) -> None:
        """Hands every line to the run's log, too."""
        self.log = write

    def planned(self, plan: NodePlan) -> None:
        """Says what the stage will do."""
        self.said(f"{plan.node:<12} {describe(plan)}")
        if note := source_note(plan):
            self.said(f"{'':<12} {note}")

    def advanced(self, node: str, done: int, total: int, note: str) -> None:
        """Rate and time left of this stage alone: a bar in a terminal, and a line every ten seconds, which goes to the log
        alone where there is a bar.
        """
        now = time.monotonic()
        start, first = self.began.setdefault(node, (now, done))
        if self.terminal:
            self._bar(node, done, total, note)
        if now - self.last.setdefault(node, now) < LINE_EVERY_S:
            return
        self.last[node] = now
        rate = (done - first) / (now - start) if now > start else 0.0
        left = duration((total - done) / rate) if rate > 0 else "?"
        line = f"{node:<12} {done}/{total}  {rate:.1f}/s  {left} left" + (f"  {note}" if note else "")
        (self.log if self.terminal else self.said)(line)

    def _bar(self, node: str, done: int, total: int, note: str) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self.bar is None:
            rate = TextColumn("{task.fields[rate]}")
            columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
            self.bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=RichConsole(file=self.stream))
            self.bar.start()
        if node not in self.tasks:
            self.tasks[node] = self.bar.add_task(node, total=total, note="", rate="")
        start, first = self.began[node]
        elapsed = time.monotonic() - start
        rate_text = f"{(done - first) / elapsed:.1f}/s" if elapsed > 0 else ""
        self.bar.update(self.tasks[node], completed=done, total=total, note=note, rate=rate_text)

    def _close_bar(self, node: str) -> None:
        """Takes a stage's bar away, and the display with the last of them."""
        if node not in self.tasks:
            return
        self.bar.remove_task(self.tasks.pop(node))
        if not self.tasks:
            self.bar.stop()
            self.bar = None

    def finished(self, node: str, record: Record) -> None:
        """Rows, errors and seconds of a stage that was computed."""
        self._close_bar(node)
        parts = [f"{record.rows} rows", f"{record.seconds:.1f} s"]
        if record.reused_rows:
            parts.insert(1, f"{record.computed_rows} computed, {record.reused_rows} taken over")
        if record.error_rows:
            parts.append(f"{record.error_rows} quarantined")
        self.said(f"{node:<12} done     {', '.join(parts)}")
