"""Models kept in memory, the least recently used let go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Named(Protocol):
    """A config with a name."""

    @property
    def name(self) -> str:
        """Unique among those that are kept together."""
        ...


Settings = TypeVar("Settings", bound=Named)
Opened = TypeVar("Opened")


class CannotOpen(RuntimeError):
    """A model that does not load: no fault of any row, so the stage ends instead of trying row after row."""


class Resident(Generic[Settings, Opened]):
    """Opens models when they are first asked for and keeps the last `resident` of them."""

    def __init__(self, configs: Iterable[Settings], *, load: Callable[[Settings], Opened], resident: int) -> None:
        self._configs = {config.name: config for config in configs}
        self._load = load
        self._resident = resident
        self._opened: OrderedDict[str, Opened] = OrderedDict()

    def get(self, name: str) -> Opened:
        """The opened model called `name`; raises KeyError for a name that was not given, CannotOpen where loading fails."""
        if name not in self._opened:
            while len(self._opened) >= self._resident:
                self._opened.popitem(last=False)
            config = self._configs[name]
            try:
                self._opened[name] = self._load(config)
            except Exception as error:
                raise CannotOpen(f"{name} could not be loaded: {type(error).__name__}: {error}") from error
        self._opened.move_to_end(name)
        return self._opened[name]
