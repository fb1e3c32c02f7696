"""What one client may take from the others: nothing. Floods, huge prompts and slow clients, beside small requests."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("aiohttp")

import aiohttp
from aiohttp.test_utils import TestClient, TestServer

from melange.errors import InputError
from melange.nanoflow.runtime.scheduler import TokenEvent
from melange.nanoflow.runtime.server import listening, make_app
from melange.nanoflow.runtime.server_limits import ServerLimits
from melange.nanoflow.runtime.text import TextCodec

Engines = Callable[..., Any]
SMALL = {"prompt": [5, 9], "max_tokens": 2, "temperature": 0}
PATIENCE_S = 120.0  # what a wait that would otherwise never end may last


@asynccontextmanager
async def served(engine: Any, codec: TextCodec | None = None, **limits: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        asyncio.timeout(PATIENCE_S),
        listening(engine, name="tiny", codec=codec or TextCodec(), limits=ServerLimits(**limits)) as url,
        aiohttp.ClientSession(url) as session,
    ):
        yield session


async def asked(session: aiohttp.ClientSession, **body: Any) -> tuple[int, Any]:
    async with session.post("/v1/completions", json=SMALL | body) as response:
        return response.status, await response.json()


class HeldCodec(TextCodec):
    """Encodes a text of several pieces when it is let go, any other at once; says when it has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.let_go = threading.Event(), threading.Event()

    def encode(self, text: str) -> tuple[int, ...]:
        if text.startswith("held"):
            self.begun.set()
            assert self.let_go.wait(PATIENCE_S)
        return (5, 9)


@pytest.mark.parametrize(
    ("limits", "body", "status", "message"),
    [
        ({"max_body_bytes": 200}, {"prompt": [5] * 100}, 413, "larger than 200 bytes"),
        ({"max_prompts": 3}, {"prompt": [[5]] * 4}, 400, "4 prompts in one request, the most is 3"),
        ({"max_prompt_tokens": 3}, {"prompt": [[5], [5] * 4]}, 400, "a prompt of 4 tokens, the longest is 3"),
        ({"max_output_tokens": 3}, {"max_tokens": 4}, 400, "at most 3"),
        ({"max_waiting_prompts": 3}, {"prompt": [[5]] * 4}, 503, "try again later"),
        ({}, {"user": "x", "model": "m" * 10_000}, 404, "not served"),
        ({}, {"x" * 10_000: 1}, 400, "unknown parameter"),
        ({}, {"max_tokens": "9" * 10_000}, 400, "check its type"),
    ],
)
def test_what_is_beyond_a_limit_is_refused_with_a_short_error_object_and_the_next_request_is_served(
    make_engine: Engines, limits: dict[str, Any], body: dict[str, Any], status: int, message: str
) -> None:
    async def run() -> None:
        async with served(make_engine("llama"), **limits) as session:
            got, answer = await asked(session, **body)
            assert got == status
            assert answer["error"]["code"] == status
            assert message in answer["error"]["message"]
            assert len(answer["error"]["message"]) < 400
            assert (await asked(session))[0] == 200

    asyncio.run(run())


def test_a_body_without_a_stated_length_is_counted_as_it_comes(make_engine: Engines) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1000

    async def run() -> None:
        async with (
            served(make_engine("llama"), max_body_bytes=5000) as session,
            session.post("/v1/completions", data=endless()) as response,
        ):
            assert response.status == 413

    asyncio.run(run())


def test_slow_headers_are_cut_off_and_a_slow_body_gets_408(make_engine: Engines) -> None:
    async def run() -> None:
        async with served(make_engine("llama"), read_timeout_s=0.2) as session:
            url = session._base_url
            assert url is not None
            for head in (b"", b"POST /v1/completions HTTP/1.1\r\nHost:"):
                reader, writer = await asyncio.open_connection(url.host, url.port)
                writer.write(head)
                assert await reader.read() == b"", "closed without an answer"
                writer.close()
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{")
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == 408

    asyncio.run(run())


@pytest.mark.parametrize("held", [["held"] * 20, "held" * 100_000])
def test_others_are_served_while_a_text_is_being_tokenised(make_engine: Engines, held: Any) -> None:
    codec = HeldCodec()

    async def run() -> None:
        async with served(make_engine("llama"), codec) as session:
            big = asyncio.create_task(asked(session, prompt=held))
            assert await asyncio.to_thread(codec.begun.wait, PATIENCE_S)
            for _ in range(3):
                assert (await asked(session, prompt="small"))[0] == 200
                async with session.get("/health") as response:
                    assert response.status == 200
            assert not big.done()
            codec.let_go.set()
            assert (await big)[0] == 200

    try:
        asyncio.run(run())
    finally:
        codec.let_go.set()


def test_prompts_wait_up_to_a_number_and_their_places_come_free(make_engine: Engines) -> None:
    codec = HeldCodec()

    async def run() -> None:
        async with served(make_engine("llama"), codec, max_waiting_prompts=2) as session:
            first = asyncio.create_task(asked(session, prompt=["held", "held"]))
            assert await asyncio.to_thread(codec.begun.wait, PATIENCE_S)
            async with session.post("/v1/completions", json=SMALL) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
            codec.let_go.set()
            assert (await first)[0] == 200
            assert (await asked(session))[0] == 200

    try:
        asyncio.run(run())
    finally:
        codec.let_go.set()


def test_a_request_of_many_prompts_lets_others_in_between(make_engine: Engines) -> None:
    """The others come when the flood is under way and end before it, though it came first."""

    async def run() -> None:
        async with served(make_engine("llama")) as session:
            flood = {"prompt": [[7]] * 400, "max_tokens": 4, "ignore_eos": True, "stream": True}
            async with session.post("/v1/completions", json=flood) as response:
                await response.content.readline()
                ended_first = []
                rest = asyncio.create_task(response.content.read())
                for _ in range(3):
                    assert (await asked(session))[0] == 200
                    ended_first.append(not rest.done() and not response.content.at_eof())
                text = await rest
            assert text.decode().count('"finish_reason":"length"') == 400
            assert ended_first == [True, True, True]

    asyncio.run(run())


class TalkingThread:
    """An engine thread that answers every request with one token again and again, as fast as it is taken."""

    failure = None
    most_requests = 8

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def check(self, request: Any) -> None:
        pass

    def submit(self, request: Any, deliver: Callable[[Any], None]) -> None:
        for _ in range(1000):
            deliver(TokenEvent(request_id=request.id, token=1, finish_reason=None))

    def cancel(self, request_id: str) -> None:
        self.cancelled.set()


class LoudCodec(TextCodec):
    def decode(self, tokens: list[int]) -> str:
        return "x" * 100_000 * len(tokens)


def test_a_client_that_never_reads_its_stream_is_cut_off_and_its_requests_are_cancelled() -> None:
    thread = TalkingThread()

    async def run() -> None:
        app = make_app(thread, name="tiny", codec=LoudCodec(), limits=ServerLimits(write_timeout_s=0.2))  # type: ignore[arg-type]
        async with asyncio.timeout(PATIENCE_S), TestClient(TestServer(app)) as client:
            url = client.make_url("/")
            _reader, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
            body = json.dumps(SMALL | {"stream": True}).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            assert await asyncio.to_thread(thread.cancelled.wait, PATIENCE_S)
            assert (await client.get("/health")).status == 200
            writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_limits_are_numbers_above_zero(value: float) -> None:
    with pytest.raises(InputError, match="read_timeout_s is"):
        ServerLimits(read_timeout_s=value)
