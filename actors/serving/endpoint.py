"""Where a server is and how it is asked: its address, the variable of its key, limits, waits and a budget."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from infra.config import Config, ConfigError


class Endpoint(Config):
    """Where a server is and how it is asked. Declare it `Field(exclude=True)`: it changes no answer, so it is no identity.

    Endpoint(base_url="https://api.example.com", key_variable="EXAMPLE_KEY", in_flight=16)
    """

    base_url: str
    """The address before `/v1/…`, for instance http://127.0.0.1:8000; a path before `/v1` may be part of it."""
    key_variable: str | None = None
    """Name of the environment variable that holds the key, sent as a bearer token; set it where the workers run. The key
    itself is never an option. None: no key is sent."""
    in_flight: int = Field(8, ge=1, le=1024)
    """Requests that wait for an answer at the same time, per worker."""
    tries: int = Field(5, ge=1, le=100)
    """How often one request is sent at most."""
    timeout_s: float = Field(120.0, gt=0)
    """Seconds within which one try must be answered in full; keep tries * timeout_s below the `stall_s` of the stage's
    resources."""
    unreachable_s: float = Field(60.0, ge=0)
    """Seconds without any connection after which the server counts as unreachable: long enough for a restart."""
    first_wait_s: float = Field(0.5, gt=0)
    """Seconds that the wait before the second try may take at most; the bound doubles with every further try."""
    longest_wait_s: float = Field(60.0, gt=0)
    """Seconds that any wait may take at most; a Retry-After above it fails the request."""
    requests: int | None = Field(None, ge=1)
    """Budget: how many requests for work (POST), repeats included, one worker may send; None: no limit."""
    answer_mb: float = Field(256.0, gt=0)
    """Megabytes of one answer at most."""

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        """The messages do not show the value, which may hold a password."""
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
        except ValueError:
            usable, parts = False, urlsplit("")
        if not usable:
            raise ValueError("base_url must be an address such as http://127.0.0.1:8000")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("base_url must hold no user, password or query; name the key's variable in key_variable")
        return value.rstrip("/").removesuffix("/v1")

    @field_validator("key_variable")
    @classmethod
    def _name_of_a_variable(cls, value: str | None) -> str | None:
        if value is not None and not (value.isidentifier() and value.isascii() and value.upper() == value):
            raise ValueError(
                "key_variable must be the name of an environment variable in capitals, such as OPENAI_API_KEY; the key "
                "itself belongs into that variable"
            )
        return value

    def key(self) -> str | None:
        """The key; raises ConfigError where the variable is not set or cannot be sent."""
        if self.key_variable is None:
            return None
        found = os.environ.get(self.key_variable, "").strip()
        if not found:
            raise ConfigError(f"the environment variable {self.key_variable} is not set; put the server's key into it")
        if not (found.isascii() and found.isprintable()):
            raise ConfigError(f"the environment variable {self.key_variable} holds characters that no key has")
        return found
