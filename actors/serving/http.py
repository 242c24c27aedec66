"""Asking a server over HTTP: many requests in flight, retries of what is transient, a budget, a key that is never shown.

    class Chat:
        def __init__(self, endpoint: Endpoint) -> None:
            self.client = HttpClient(endpoint)          # ConfigError where the key's variable is not set

        async def answer(self, question: str) -> str:
            body = {"model": "m", "messages": [{"role": "user", "content": question}]}
            found = await self.client.post("/v1/chat/completions", body)
            return text_of(found)                       # raise RequestFailed for an answer of another form

        def answers(self, questions: Sequence[str]) -> list[str | RequestFailed]:
            return self.client.gather(self.answer, questions)

A request that fails is one `RequestFailed` in the place of its answer. What makes every request fail (a server that cannot
be reached, a key that it refuses) is a `ServerUnavailable`, which is raised and ends the stage.

Retries wait a time drawn evenly between 0 and an exponentially growing bound ("full jitter", Brooker, 2015,
"Exponential Backoff And Jitter", AWS Architecture Blog), or as long as the server's Retry-After says.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from actors.resident import CannotOpen
from actors.serving.endpoint import Endpoint
from infra.lazy import lazy

if TYPE_CHECKING:
    import httpx2
else:
    httpx2 = lazy("httpx2")

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
REFUSED = {401: "it refuses the key", 402: "it asks to be paid first"}
"""Statuses after which no request of this client will succeed."""
SHOWN = 300
"""Characters of a server's own message that an exception shows."""
HIDDEN = "[key]"

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class RequestFailed(RuntimeError):
    """One request has no usable answer; the others stand."""

    status: int | None = None
    """Status of the answer, where there was one that is not 2xx."""


class BudgetSpent(RequestFailed):
    """The client may send no further request."""


class ServerUnavailable(CannotOpen):
    """No request can succeed: the server cannot be reached or refuses the key. It ends the stage."""


@dataclass(frozen=True)
class Part:
    """One field of a form, or one file in it."""

    name: str
    value: str | bytes
    file: str = ""
    """Name of the file; "": a field."""
    kind: str = "application/octet-stream"
    """Media type of the file."""


class HttpClient:
    """A server's client for one thread. Its coroutines run inside `gather`, and share its limits and its connections."""

    def __init__(self, endpoint: Endpoint, *, random: Random | None = None) -> None:
        self.endpoint = endpoint
        self.sent = 0
        """Requests for work so far, repeats included."""
        self._key = endpoint.key()
        self._random = random or Random()
        self._runner = asyncio.Runner()
        self._session: httpx2.AsyncClient | None = None
        self._started = time.monotonic()
        self._reached = 0.0  # the last time that anything answered, by the monotonic clock; 0: never
        self._hold = 0.0  # before this time nothing is sent, since the server said so

    def gather(self, ask: Callable[[Item], Awaitable[Answer]], items: Sequence[Item]) -> list[Answer | RequestFailed]:
        """One answer for each item, in order, or the RequestFailed that `ask` raised; at most `in_flight` at a time.

        Any other exception ends all requests and is raised: ServerUnavailable, or a fault of `ask`.
        """
        return self._runner.run(self._gather(ask, items))

    async def _gather(
        self, ask: Callable[[Item], Awaitable[Answer]], items: Sequence[Item]
    ) -> list[Answer | RequestFailed]:
        limit = asyncio.Semaphore(self.endpoint.in_flight)
        self._started = time.monotonic()

        async def one(item: Item) -> Answer | RequestFailed:
            async with limit:
                try:
                    return await ask(item)
                except RequestFailed as error:
                    return error

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(item)) for item in items]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that a POST of JSON is answered with; it counts against the budget."""
        return self._parsed(path, await self._ask("POST", path, {"json": body}))

    async def post_form(self, path: str, parts: Sequence[Part]) -> Any:
        """The JSON that a POST of multipart/form-data is answered with; it counts against the budget."""
        files = [(part.name, (part.file, part.value, part.kind) if part.file else (None, part.value)) for part in parts]
        return self._parsed(path, await self._ask("POST", path, {"files": files}))

    async def get_json(self, path: str) -> Any:
        """The JSON at a path."""
        return self._parsed(path, await self._ask("GET", path, {}))

    async def get(self, path: str) -> bytes:
        """The bytes at a path."""
        return await self._ask("GET", path, {})

    def failed(self, path: str, reason: str, *, status: int | None = None) -> RequestFailed:
        """The exception for an answer that cannot be used, without the key."""
        error = RequestFailed(self._hidden(f"{self.endpoint.base_url}{path}: {reason}"))
        error.status = status
        return error

    def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            self._runner.run(self._session.aclose())
        self._runner.close()

    async def _ask(self, method: str, path: str, content: Mapping[str, Any]) -> bytes:
        """The bytes of an answer with status 2xx, after as many tries as are allowed."""
        tries, missed, reason = 0, 0, ""
        while tries < self.endpoint.tries:
            if (wait := self._hold - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            pause = None
            try:
                status, headers, data = await self._once(method, path, content)
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
                self._refuse_unreachable(str(error) or type(error).__name__)
                missed, pause = missed + 1, self._pause(missed)
            except (TimeoutError, httpx2.TimeoutException):
                tries, reason = tries + 1, f"no answer within {self.endpoint.timeout_s:g} s"
            except httpx2.TransportError as error:
                tries, reason = tries + 1, f"the connection broke ({type(error).__name__})"
            else:
                if 200 <= status < 300:
                    return data
                tries, reason = tries + 1, self._refused(path, status, data)
                pause = self._asked_to_wait(path, headers)
            if tries < self.endpoint.tries:
                await asyncio.sleep(self._pause(tries - 1) if pause is None else pause)
        if not self._reached:
            raise ServerUnavailable(f"{self.endpoint.base_url} accepts connections but answers nothing: {reason}")
        raise self.failed(path, f"{reason}, {tries} times")

    async def _once(self, method: str, path: str, content: Mapping[str, Any]) -> tuple[int, Any, bytes]:
        """Status, headers and body of one try."""
        if method == "POST":
            if self.sent == self.endpoint.requests:
                raise BudgetSpent(
                    f"the budget of {self.sent} requests is spent; run again, or raise the endpoint's requests"
                )
            self.sent += 1
        data = bytearray()
        async with asyncio.timeout(self.endpoint.timeout_s):
            async with self._opened().stream(method, f"{self.endpoint.base_url}{path}", **content) as response:
                self._reached = time.monotonic()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > self.endpoint.answer_mb * 1e6:
                        raise self.failed(path, f"the answer has more than {self.endpoint.answer_mb:g} MB (answer_mb)")
        return response.status_code, response.headers, bytes(data)

    def _opened(self) -> httpx2.AsyncClient:
        """The session; redirects are not followed, for they would carry the key elsewhere."""
        if self._session is None:
            limit = self.endpoint.in_flight
            self._session = httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=httpx2.Timeout(self.endpoint.timeout_s, connect=min(10.0, self.endpoint.timeout_s), pool=None),
                limits=httpx2.Limits(max_connections=limit, max_keepalive_connections=limit),
            )
        return self._session

    def _refused(self, path: str, status: int, data: bytes) -> str:
        """Why a status is not 2xx, where another try may help; raises where none does."""
        if status in REFUSED:
            # Its message is not shown: servers repeat parts of the key in it.
            named = self.endpoint.key_variable or "none; name its variable in key_variable"
            raise ServerUnavailable(
                f"{self.endpoint.base_url} answers {status}: {REFUSED[status]} (variable of the key: {named})"
            )
        reason = f"status {status}: {self._message(data)}"
        if status not in TRANSIENT:
            raise self.failed(path, reason, status=status)
        return reason

    def _asked_to_wait(self, path: str, headers: Mapping[str, str]) -> float | None:
        """Seconds by the Retry-After of an answer; all requests of the client wait for it."""
        wait = _seconds(headers.get("retry-after", ""))
        if wait is None:
            return None
        if wait > self.endpoint.longest_wait_s:
            raise self.failed(path, f"asks to wait {wait:.0f} s, above longest_wait_s")
        self._hold = max(self._hold, time.monotonic() + wait)
        return wait + self._random.uniform(0, self.endpoint.first_wait_s)

    def _pause(self, failures: int) -> float:
        """Full jitter: evenly between 0 and the bound after so many failures before the last one."""
        bound = min(self.endpoint.longest_wait_s, self.endpoint.first_wait_s * 2.0 ** min(failures, 60))
        return self._random.uniform(0, bound)

    def _refuse_unreachable(self, reason: str) -> None:
        """Raises ServerUnavailable where nothing has been reached for too long, in any request."""
        since = time.monotonic() - max(self._reached, self._started)
        if since >= self.endpoint.unreachable_s:
            raise ServerUnavailable(
                self._hidden(
                    f"{self.endpoint.base_url} cannot be reached for {since:.0f} s: {reason}; start the server, or give "
                    "its address as base_url"
                )
            ) from None

    def _parsed(self, path: str, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError:
            raise self.failed(path, f"the answer is no JSON: {self._message(data)}") from None

    def _message(self, data: bytes) -> str:
        """What a server says of an error: `error.message` of its JSON, or the beginning of its text, on one line."""
        text = data.decode(errors="replace")
        try:
            found = json.loads(text)
        except ValueError:
            found = text
        for name in ("error", "message", "detail"):
            if isinstance(found, dict) and name in found:
                found = found[name]
        line = self._hidden(" ".join((found if isinstance(found, str) else json.dumps(found)).split()))
        return line if len(line) <= SHOWN else f"{line[:SHOWN]} …"

    def _hidden(self, text: str) -> str:
        return text.replace(self._key, HIDDEN) if self._key else text


def _seconds(retry_after: str) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3); None for neither."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
