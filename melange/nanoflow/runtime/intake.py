"""Intake: reads, parses and tokenises requests within limits, away from the event loop where that takes time."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from melange.errors import InputError, MissingExtraError
from melange.nanoflow.runtime.engine_thread import EngineThread
from melange.nanoflow.runtime.protocol import CompletionCall, parse_call
from melange.nanoflow.runtime.scheduler import GenerationRequest
from melange.nanoflow.runtime.server_limits import ServerLimits
from melange.nanoflow.runtime.text import TextCodec

try:
    from aiohttp import web
except ModuleNotFoundError:
    raise MissingExtraError.of("aiohttp", "nanoflow", "serving over HTTP") from None

LARGE_BYTES = 2**16  # what is larger has a worker of its own, so that small requests never wait behind it
T = TypeVar("T")


class RefusedError(Exception):
    """A request that is answered with an error: its HTTP status and one line."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Intake:
    """What stands between a connection and the engine. Used by one event loop; ``close`` ends its workers."""

    def __init__(self, thread: EngineThread, codec: TextCodec, limits: ServerLimits) -> None:
        self._thread, self._codec, self._limits = thread, codec, limits
        self._held_bytes = 0
        self._open_prompts = 0
        self._small = ThreadPoolExecutor(2, thread_name_prefix="nanoflow-intake")
        self._large = ThreadPoolExecutor(1, thread_name_prefix="nanoflow-intake-large")

    def close(self) -> None:
        """Let the workers end; what they have under way is dropped."""
        for pool in (self._small, self._large):
            pool.shutdown(wait=False, cancel_futures=True)

    @property
    def prompts_at_once(self) -> int:
        """Most prompts of one request that are with the engine."""
        return self._limits.prompts_at_once or self._thread.most_requests

    async def call(self, request: web.Request) -> CompletionCall:
        """The body, read and parsed; RefusedError or InputError when it is too large, too slow or malformed."""
        try:
            async with asyncio.timeout(self._limits.read_timeout_s):
                body = await self._body(request)
        except TimeoutError:
            raise RefusedError(408, f"the body did not come within {self._limits.read_timeout_s:g} s") from None
        call = await self._away(len(body), partial(parse_call, body))
        if len(call.prompts) > self._limits.max_prompts:
            raise InputError(
                f"{len(call.prompts)} prompts in one request, the most is {self._limits.max_prompts}",
                fix="send them in several requests",
            )
        most = self._limits.max_output_tokens
        if most is not None and call.max_tokens > most:
            raise InputError("max_tokens is too large", fix=f"ask for at most {most}")
        return call

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Room for this many prompts until they have ended; RefusedError when others have taken it."""
        if self._open_prompts + count > self._limits.max_waiting_prompts:
            raise RefusedError(503, f"{self._open_prompts} prompts are waiting or under way; try again later")
        self._open_prompts += count
        try:
            yield
        finally:
            self._open_prompts -= count

    async def requests(self, call: CompletionCall) -> list[GenerationRequest]:
        """A checked request for each prompt. Prompts take turns with those of other clients, one at a time."""
        ready = []
        for prompt in call.prompts:
            bytes_ = len(prompt) if isinstance(prompt, str) else 8 * len(prompt)
            ready.append(await self._away(bytes_, partial(self._request, call, prompt)))
        return ready

    def _request(self, call: CompletionCall, prompt: str | tuple[int, ...]) -> GenerationRequest:
        ids = self._codec.encode(prompt) if isinstance(prompt, str) else prompt
        most = self._limits.max_prompt_tokens
        if most is not None and len(ids) > most:
            raise InputError(f"a prompt of {len(ids)} tokens, the longest is {most}", fix="shorten it")
        made = GenerationRequest(
            id=uuid.uuid4().hex,
            prompt=ids,
            max_tokens=call.max_tokens,
            temperature=call.temperature,
            ignore_end=call.ignore_end,
        )
        self._thread.check(made)
        return made

    async def _away(self, size_bytes: int, work: Callable[[], T]) -> T:
        pool = self._large if size_bytes > LARGE_BYTES else self._small
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    async def _body(self, request: web.Request) -> bytes:
        body = bytearray()
        try:
            async for piece in request.content.iter_any():
                body += piece
                self._held_bytes += len(piece)
                if len(body) > self._limits.max_body_bytes:
                    raise RefusedError(413, f"the body is larger than {self._limits.max_body_bytes} bytes")
                if self._held_bytes > self._limits.held_bytes:
                    raise RefusedError(503, "too many large requests are coming in; try again later")
            return bytes(body)
        finally:
            self._held_bytes -= len(body)
