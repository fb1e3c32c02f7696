"""FaultServer: a small OpenAI-compatible completions server that behaves, or misbehaves in one chosen way.

It paces its tokens, stamps each with the server's clock (``perf_counter``, shared by all processes of a machine), and
is what the load generator is tested and benchmarked against.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from melange.errors import EngineError, InputError
from melange.profiler.client import import_aiohttp

Fault = Literal[
    "none",
    "refuses token ids",
    "429",
    "500",
    "hangs",
    "garbage",
    "closes early",
    "too few tokens",
    "lies about tokens",
    "lies about prompts",
    "no usage",
    "error in stream",
    "no prefix cache",
    "caches what is distinct",
    "dies",
    "redirects elsewhere",
    "echoes headers",
    "floods",
    "endless models",
    "drips",
]


BLOCK_TOKENS = 16


@dataclass(kw_only=True)
class FaultServer:
    """Use as a context manager: a server in a thread, at ``url``.

    ``first_s`` and ``gap_s`` pace the first and the following tokens; with ``streams`` that many requests in a row are
    staggered evenly over one gap instead of walking in lockstep. ``share`` of the requests (the others are
    served well) suffer the ``fault``, from the ``after``-th on. With ``tells_cached`` its usage says how many tokens of
    a prompt it has seen before, in whole blocks, and nothing of a prompt that it has not seen (as some vLLM do).
    ``elsewhere``: the address of another server, where one that ``redirects elsewhere`` sends its clients.
    """

    fault: Fault = "none"
    first_s: float = 0.002
    gap_s: float = 0.001
    streams: int = 1
    share: float = 1.0
    after: int = 0
    max_model_len: int = 4096
    slots: int | None = None
    tells_cached: bool = False
    elsewhere: str = "http://127.0.0.1:9"
    requests: int = 0
    url: str = ""
    _seen: set[tuple[int, ...]] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None
    _ready: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if self.fault not in get_args(Fault):
            raise InputError(f"fault is {self.fault!r}", fix=f"use one of {', '.join(get_args(Fault))}")

    def __enter__(self) -> FaultServer:
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise EngineError("the fault server did not start")
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(10)

    def stop(self) -> None:
        """Stop listening and drop every connection."""
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._finished.set)

    async def serve(self, port: int = 0) -> None:
        """Listen on a port (0: a free one) until stopped."""
        web = import_aiohttp_web()
        self._loop, self._finished = asyncio.get_running_loop(), asyncio.Event()
        self._free = asyncio.Semaphore(self.slots or 1_000_000)
        app = web.Application()
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/version", self._version),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._complete),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await self._finished.wait()
        await runner.cleanup()

    async def _health(self, request: Any) -> Any:
        return import_aiohttp_web().Response()

    async def _version(self, request: Any) -> Any:
        return import_aiohttp_web().json_response({"version": "fault-1"})

    async def _models(self, request: Any) -> Any:
        if self.fault in ("endless models", "drips"):
            return await self._without_end(request)
        model = {"id": "fault", "object": "model", "max_model_len": self.max_model_len}
        return import_aiohttp_web().json_response({"object": "list", "data": [model]})

    async def _complete(self, request: Any) -> Any:
        web = import_aiohttp_web()
        body = await request.json()
        self.requests += 1
        fault = self.fault if self._suffers() else "none"
        if fault in ("429", "500"):
            return web.json_response({"error": {"message": "out of luck"}}, status=int(fault))
        if fault == "redirects elsewhere":
            return web.Response(status=307, headers={"Location": self.elsewhere + "/v1/completions"})
        if fault == "echoes headers":
            told = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            return web.Response(status=500, text="\x1b[2J" + told)
        if fault == "refuses token ids" and not isinstance(body["prompt"], str):
            return web.json_response({"error": {"message": "prompt must be text"}}, status=400)
        if fault == "dies":
            self._finished.set()
            return web.Response(status=503)
        if fault == "hangs":
            await self._finished.wait()
        async with self._free:
            return await self._stream(request, body, fault)

    def _suffers(self) -> bool:
        """Spread the suffering requests evenly."""
        number = self.requests - self.after
        return number > 0 and int(number * self.share) > int((number - 1) * self.share)

    async def _stream(self, request: Any, body: Mapping[str, Any], fault: str) -> Any:
        response = import_aiohttp_web().StreamResponse(headers={"Content-Type": "text/event-stream"})
        with contextlib.suppress(ConnectionError):  # the client may leave at any time
            await response.prepare(request)
            await self._speak(request, response, body, fault)
        return response

    async def _without_end(self, request: Any) -> Any:
        """As much as anyone takes, or a byte in five seconds."""
        response = import_aiohttp_web().StreamResponse()
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            while not self._finished.is_set():
                await response.write(b" " if self.fault == "drips" else b" " * 65536)
                if self.fault == "drips":
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._finished.wait(), 5.0)
        return response

    async def _speak(self, request: Any, response: Any, body: Mapping[str, Any], fault: str) -> None:
        count = int(body["max_tokens"])
        sent = count // 2 if fault in ("closes early", "too few tokens") else count
        due = time.perf_counter() + self.first_s + self.gap_s * (self.requests % self.streams) / self.streams
        for number in range(sent):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due += self.gap_s
            if fault == "garbage" and number == sent // 2:
                await response.write(b"\x00\xff nonsense\n\n")
                continue
            if fault == "error in stream" and number == sent // 2:
                await response.write(b'data: {"error": {"message": "engine died"}}\n\n')
                break
            await response.write(_token(time.perf_counter()) * (10_000 if fault == "floods" else 1))
        if fault == "closes early":
            request.transport.close()
            return
        if fault not in ("no usage", "error in stream"):
            usage = _usage(body, sent, fault) | self._cache_details(body["prompt"], fault)
            await response.write(_event({"choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")

    def _cache_details(self, prompt: Any, fault: str) -> dict[str, object]:
        if not self.tells_cached or isinstance(prompt, str):
            return {}
        starts = [tuple(prompt[:end]) for end in range(BLOCK_TOKENS, len(prompt), BLOCK_TOKENS)]
        told: int | None = BLOCK_TOKENS * sum(start in self._seen for start in starts) or None
        self._seen.update(starts)
        told = {"no prefix cache": 0, "caches what is distinct": len(prompt) - 1}.get(fault, told)
        return {"prompt_tokens_details": None if told is None else {"cached_tokens": told}}


def _token(stamp_s: float) -> bytes:
    return b'data: {"choices":[{"index":0,"text":"%.7f ","finish_reason":null}]}\n\n' % stamp_s


def _event(content: object) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


def _usage(body: Mapping[str, Any], sent: int, fault: str) -> dict[str, int]:
    prompt = len(body["prompt"].split()) if isinstance(body["prompt"], str) else len(body["prompt"])
    if fault == "lies about tokens":
        sent = sent * 3
    if fault == "lies about prompts":
        prompt = prompt // 2
    return {"prompt_tokens": prompt, "completion_tokens": sent, "total_tokens": prompt + sent}


def import_aiohttp_web() -> Any:
    """``aiohttp.web``, where the extra is installed."""
    import_aiohttp()
    from aiohttp import web

    return web
