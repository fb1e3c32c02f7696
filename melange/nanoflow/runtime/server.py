"""The HTTP server: OpenAI's completions protocol in front of an engine."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from melange.errors import EngineError, InputError, MissingExtraError
from melange.files.version import __version__
from melange.nanoflow.runtime.engine import NanoFlowEngine
from melange.nanoflow.runtime.engine_thread import EngineThread
from melange.nanoflow.runtime.protocol import (
    Answer,
    CompletionCall,
    choice,
    error_body,
    event_line,
    parse_call,
    prompt_ids,
    usage_of,
)
from melange.nanoflow.runtime.scheduler import GenerationRequest, TokenEvent
from melange.nanoflow.runtime.text import TextCodec, TextStream

try:
    from aiohttp import web
except ModuleNotFoundError:
    raise MissingExtraError.of("aiohttp", "nanoflow", "serving over HTTP") from None

MAX_BODY_BYTES = 64 * 2**20


def run_server(
    engine: NanoFlowEngine,
    *,
    name: str,
    codec: TextCodec,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve ``engine`` as model ``name`` until SIGINT or SIGTERM; ``on_ready`` gets the URL (port 0 picks a free one).

    An address that cannot be listened on raises InputError.
    """
    asyncio.run(_serve_until_signal(engine, name=name, codec=codec, host=host, port=port, on_ready=on_ready))


async def _serve_until_signal(
    engine: NanoFlowEngine, *, name: str, codec: TextCodec, host: str, port: int, on_ready: Callable[[str], None]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    thread = EngineThread(engine)
    runner = web.AppRunner(
        make_app(thread, name=name, codec=codec), access_log=None, handler_cancellation=True, shutdown_timeout=1.0
    )
    await runner.setup()
    thread.start()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port}: {error.strerror}", fix="choose another port") from None
        on_ready(f"http://{host}:{runner.addresses[0][1]}")
        await stop.wait()
    finally:
        await runner.cleanup()
        thread.stop()


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The protocol's error object for unknown paths, wrong methods and bodies beyond the limit too."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        message = f"{request.method} {request.path}: {error.reason}"
        return web.json_response(error_body(message, error.status), status=error.status)


def make_app(thread: EngineThread, *, name: str, codec: TextCodec) -> web.Application:
    """The routes, for an engine thread that someone else starts and stops."""
    service = _Service(thread=thread, name=name, codec=codec)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors_as_json])
    app.router.add_get("/health", service.health)
    app.router.add_get("/version", service.version)
    app.router.add_get("/v1/models", service.models)
    app.router.add_post("/v1/completions", service.completions)
    return app


@dataclass(slots=True, kw_only=True)
class _Progress:
    """One choice under way."""

    request: GenerationRequest
    text: TextStream
    pieces: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Service:
    thread: EngineThread
    name: str
    codec: TextCodec

    async def health(self, request: web.Request) -> web.Response:
        if self.thread.failure is not None:
            return web.json_response(error_body(str(self.thread.failure), 503), status=503)
        return web.Response()

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": __version__, "engine": "nanoflow"})

    async def models(self, request: web.Request) -> web.Response:
        longest = self.thread.longest_request_tokens
        card = {"id": self.name, "object": "model", "created": 0, "owned_by": "melange", "max_model_len": longest}
        return web.json_response({"object": "list", "data": [card]})

    async def completions(self, request: web.Request) -> web.StreamResponse:
        if self.thread.failure is not None:
            return web.json_response(error_body(str(self.thread.failure), 503), status=503)
        try:
            call = parse_call(await request.read())
            if call.model not in (None, self.name):
                return web.json_response(error_body(f"the model {call.model!r} is not served here", 404), status=404)
            progress = self._begin(call)
        except InputError as error:
            return web.json_response(error_body(str(error), 400), status=400)
        answer = Answer(id=f"cmpl-{uuid.uuid4().hex}", created=int(time.time()), model=self.name)
        if call.stream:
            return await self._stream(request, call, answer, progress)
        return await self._whole(call, answer, progress)

    def _begin(self, call: CompletionCall) -> list[_Progress]:
        requests = [
            GenerationRequest(
                id=uuid.uuid4().hex,
                prompt=prompt,
                max_tokens=call.max_tokens,
                temperature=call.temperature,
                ignore_end=call.ignore_end,
            )
            for prompt in prompt_ids(call, self.codec.encode)
        ]
        for generation in requests:
            self.thread.check(generation)
        return [_Progress(request=generation, text=TextStream(self.codec)) for generation in requests]

    async def _events(self, progress: list[_Progress]) -> AsyncGenerator[tuple[int, TokenEvent, str], None]:
        """(choice, token, text) as they come, until every choice has ended; the rest is cancelled at the end."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[TokenEvent | EngineError] = asyncio.Queue()

        def deliver(item: TokenEvent | EngineError) -> None:
            with suppress(RuntimeError):  # the server's loop may be gone already
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        places = {one.request.id: index for index, one in enumerate(progress)}
        try:
            for one in progress:
                self.thread.submit(one.request, deliver)
            while places:
                event = await arrived.get()
                if isinstance(event, EngineError):
                    raise event
                index = places[event.request_id]
                one = progress[index]
                piece = one.text.push(event.token, last=event.finish_reason is not None)
                one.tokens.append(event.token)
                one.pieces.append(piece)
                one.finish_reason = event.finish_reason
                if event.finish_reason:
                    del places[event.request_id]
                yield index, event, piece
        finally:
            for request_id in places:
                self.thread.cancel(request_id)

    async def _whole(self, call: CompletionCall, answer: Answer, progress: list[_Progress]) -> web.Response:
        try:
            async for _ in self._events(progress):
                pass
        except EngineError as error:
            return web.json_response(error_body(str(error), 500), status=500)
        choices = [
            choice(index, "".join(one.pieces), one.finish_reason, one.tokens if call.token_ids else None)
            for index, one in enumerate(progress)
        ]
        return web.json_response(answer.body(choices, _usage(progress)))

    async def _stream(
        self, request: web.Request, call: CompletionCall, answer: Answer, progress: list[_Progress]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        events = self._events(progress)
        try:
            async for index, event, piece in events:
                part = choice(index, piece, event.finish_reason, [event.token] if call.token_ids else None)
                await response.write(event_line(answer.body([part])))
            if call.include_usage:
                await response.write(event_line(answer.body([], _usage(progress))))
            await response.write(event_line("[DONE]"))
        except EngineError as error:
            await response.write(event_line(error_body(str(error), 500)))
        except ConnectionError:
            pass  # the client has gone; its requests are cancelled below
        finally:
            await events.aclose()
        return response


def _usage(progress: list[_Progress]) -> dict[str, Any]:
    return usage_of(sum(len(one.request.prompt) for one in progress), sum(len(one.tokens) for one in progress))
