"""A served juror with 16 requests in flight against a bare asyncio client that sends the same bodies to the same server."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import time
from typing import Any

import numpy as np

from actors.media import encode_png
from actors.serving.endpoint import Endpoint
from actors.serving.openai import PATH, ChatServer
from pipelines.algorithms.prompting.pairwise import Pairwise
from pipelines.models.jurors.juror import Case
from pipelines.models.jurors.served import ServedJuror
from tests.benchmarks.measure import Result
from tests.support.places import NOWHERE

CASES, IN_FLIGHT, EDGE, DELAY_S = 512, 16, 256, 0.2
"""Pairs that are judged, and their pictures' sides in pixels; seconds in which the server answers one question."""


def serve(port: Any) -> None:
    """A server of chats that answers every question after `DELAY_S`, however many it works on; in a process of its own."""
    from aiohttp import web

    listed = [{"token": word, "logprob": math.log(share)} for word, share in {"A": 0.6, "B": 0.3, "tie": 0.1}.items()]
    choice = {"message": {"content": "A"}, "logprobs": {"content": [{"token": "A", "top_logprobs": listed}]}}

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(DELAY_S)
        return web.json_response({"choices": [choice], "usage": {"total_tokens": 100}})

    async def forever() -> None:
        application = web.Application(client_max_size=2**26)
        application.router.add_post(PATH, answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(forever())


def cases() -> list[Case]:
    """Pairs of distinct pictures of noise, about 200 kB each."""
    drawn = np.random.default_rng(0)
    pictures = [encode_png(drawn.integers(0, 256, (EDGE, EDGE, 3), dtype=np.uint8)).bytes for _ in range(32)]
    return [Case(f"case {number}", pictures[number % 32], pictures[(number * 7 + 1) % 32]) for number in range(CASES)]


async def bare(url: str, bodies: list[dict[str, Any]]) -> None:
    """Sends ready bodies, `IN_FLIGHT` at a time, and reads the answers."""
    import httpx2

    limits = httpx2.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    async with httpx2.AsyncClient(limits=limits, timeout=60.0) as session:
        limit = asyncio.Semaphore(IN_FLIGHT)

        async def one(body: dict[str, Any]) -> None:
            async with limit:
                (await session.post(f"{url}{PATH}", json=body)).json()

        async with asyncio.TaskGroup() as group:
            for body in bodies:
                group.create_task(one(body))


def run() -> list[Result]:
    """Ratio of questions per second."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{ours.recv()}"
        chat = ChatServer(model="m", revision="1", endpoint=Endpoint(base_url=url, in_flight=IN_FLIGHT))
        opened = ServedJuror(name="served", server=chat, questionnaire=Pairwise()).open("cpu", NOWHERE)
        asked = cases()
        opened.judge(asked[:IN_FLIGHT])
        start, processor = time.perf_counter(), time.process_time()
        heard = opened.judge(asked)
        wall, work = time.perf_counter() - start, time.process_time() - processor
        assert not any(isinstance(one, Exception) for one in heard)
        bodies = [{"model": "m", "messages": message_of(one)} for one in asked]
        start, processor = time.perf_counter(), time.process_time()
        asyncio.run(bare(url, bodies))
        plain, plain_work = time.perf_counter() - start, time.process_time() - processor
    finally:
        server.kill()
        server.join()
    detail = {"bare": round(CASES / plain, 1), "juror": round(CASES / wall, 1), "in_flight": IN_FLIGHT}
    processors = {"bare_processor_s": round(plain_work, 1), "juror_processor_s": round(work, 1)}
    return [Result("served juror / bare asyncio client", plain / wall, ">= 0.9", detail | processors)]


def message_of(case: Case) -> list[dict[str, Any]]:
    """A body as large as the juror's."""
    import base64

    shown = [f"data:image/png;base64,{base64.b64encode(one).decode()}" for one in (case.first, case.second)]  # pyright: ignore[reportArgumentType]
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}} for url in shown]}]
