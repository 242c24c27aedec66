"""Modules that are imported at their first use, so that a typed option beside a tensor function costs no torch import.

`salon plan` builds every config of a recipe and must answer in a second; torch alone takes several. A file of
`pipelines.algorithms` therefore says

    if TYPE_CHECKING:
        import torch
    else:
        torch = lazy("torch")

and uses `torch.` as always. Nothing is put into `sys.modules` before the first attribute is asked for.
"""

from importlib import import_module
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    """Stands for a module; the first attribute imports it."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self.__name__), attribute)


def lazy(name: str) -> ModuleType:
    """A stand-in for module `name`, imported when an attribute of it is first read."""
    return _Lazy(name)
