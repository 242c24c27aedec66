"""Which stages of a run are computed at the same time: those in one piece beside one another, a row-wise one alone.

A stage in one piece mostly waits for its own workers, and while a reward model trains, another may be tuned. A row-wise
stage fills every worker there is, so it has the run to itself. Everything that a run does in its own process, it does one
thing at a time: a thread works only while it has the turn, and gives it up while it waits for the cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from infra.dag.stage import Resources, RowStage, Stage


class Interrupted(RuntimeError):
    """A stage that was given up because the run was."""


class Schedule:
    """The stages of a run that are being computed, each in a thread of its own."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        """Held by the one thread that works at the moment."""
        self._given_up = threading.Event()
        self._running: dict[Future[None], Stage] = {}

    def run(
        self,
        stages: Sequence[Stage],
        *,
        settle: Callable[[Stage], Callable[[], None] | None],
        room: Callable[[Resources, Sequence[Resources]], bool],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Settles the stages, parents first and otherwise in their order where they can.

        settle: finds out what is to be done; None where nothing is. What it returns does it: of a row-wise stage here, of
        another in a thread. room: whether one with such resources can be computed beside others. At the first exception
        nothing more is begun, those that run are waited for, and it is raised; `failed` is told of any further one.
        """
        waiting = list(stages)
        with ThreadPoolExecutor(max(len(stages), 1), thread_name_prefix="stage") as threads:
            try:
                while waiting or self._running:
                    ready = self._next(waiting, room)
                    if ready is None:
                        self._await_one()
                        continue
                    waiting.remove(ready)
                    if (work := settle(ready)) is None:
                        continue
                    if isinstance(ready, RowStage):
                        with self.turn:
                            work()
                    else:
                        self._running[threads.submit(self._take_turn, work)] = ready
            except BaseException as error:
                self._end(failed, at_once=not isinstance(error, Exception))
                raise

    @property
    def running(self) -> list[str]:
        """Nodes of the stages that are being computed in threads."""
        return [stage.node for stage in self._running.values()]

    @contextmanager
    def others_turn(self) -> Iterator[None]:
        """Gives up the turn for the length of the block, which waits for something outside this process."""
        self.turn.release()
        try:
            yield
        finally:
            self.turn.acquire()

    def require_going_on(self) -> None:
        """Raises Interrupted where the run has been given up."""
        if self._given_up.is_set():
            raise Interrupted("the run was interrupted")

    def _take_turn(self, work: Callable[[], None]) -> None:
        with self.turn:
            work()

    def _next(self, waiting: Sequence[Stage], room: Callable[[Resources, Sequence[Resources]], bool]) -> Stage | None:
        """The first stage that can be begun now; None where one that runs must end before."""
        unsettled = {stage.key for stage in (*waiting, *self._running.values())}
        beside = [stage.resources for stage in self._running.values()]
        for stage in waiting:
            if any(parent.key in unsettled for parent in stage.parents.values()):
                continue
            if not beside or (not isinstance(stage, RowStage) and room(stage.resources, beside)):
                return stage
        return None

    def _await_one(self) -> None:
        """Waits until one that runs has ended; raises what it raised."""
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            del self._running[future]
            future.result()

    def _end(self, failed: Callable[[BaseException], None], *, at_once: bool) -> None:
        """Waits for those that run; an interrupt, before or meanwhile, gives them up."""
        if at_once:
            self._given_up.set()
        try:
            wait(self._running)
        except KeyboardInterrupt:
            self._given_up.set()
            wait(self._running)
        for future in self._running:
            error = future.exception()
            if error is not None and not isinstance(error, Interrupted):
                failed(error)
        self._running.clear()
