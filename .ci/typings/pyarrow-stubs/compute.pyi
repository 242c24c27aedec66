"""Functions of pyarrow.compute are made at import time; pyright cannot see them."""

from typing import Any

def __getattr__(name: str) -> Any: ...
