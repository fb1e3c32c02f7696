"""The HTTP server: OpenAI's completions protocol in front of an engine."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from melange.errors import EngineError, InputError, MissingExtraError
from melange.files.version import __version__
from melange.nanoflow.runtime.engine import NanoFlowEngine
from melange.nanoflow.runtime.engine_thread import EngineThread
from melange.nanoflow.runtime.intake import Intake, RefusedError
from melange.nanoflow.runtime.protocol import Answer, CompletionCall, choice, error_body, event_line, shown, usage_of
from melange.nanoflow.runtime.scheduler import GenerationRequest, TokenEvent
from melange.nanoflow.runtime.server_limits import ServerLimits
from melange.nanoflow.runtime.text import TextCodec, TextStream

try:
    from aiohttp import web
except ModuleNotFoundError:
    raise MissingExtraError.of("aiohttp", "nanoflow", "serving over HTTP") from None


def run_server(
    engine: NanoFlowEngine,
    *,
    name: str,
    codec: TextCodec,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: ServerLimits | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve ``engine`` as model ``name`` until SIGINT or SIGTERM; ``on_ready`` gets the URL (port 0 picks a free one).

    An address that cannot be listened on raises InputError.
    """

    async def until_signal() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with listening(engine, name=name, codec=codec, host=host, port=port, limits=limits) as url:
            on_ready(url)
            await stop.wait()

    asyncio.run(until_signal())


@asynccontextmanager
async def listening(
    engine: NanoFlowEngine,
    *,
    name: str,
    codec: TextCodec,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: ServerLimits | None = None,
) -> AsyncIterator[str]:
    """Serve within the block; gives the URL."""
    limits = limits or ServerLimits()
    thread = EngineThread(engine)
    runner = web.AppRunner(
        make_app(thread, name=name, codec=codec, limits=limits),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=1.0,
        # aiohttp counts this from a connection's begin too: whoever has not sent whole headers by then is cut off.
        keepalive_timeout=limits.read_timeout_s,
    )
    await runner.setup()
    thread.start()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise InputError(f"cannot listen on {host}:{port}: {error.strerror}", fix="choose another port") from None
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        thread.stop()


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The protocol's error object for everything that is refused, unknown paths and wrong methods too."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(f"{request.method} {request.path}: {error.reason}", error.status)
    except RefusedError as error:
        return _error(str(error), error.status)
    except InputError as error:
        return _error(str(error), 400)


def _error(message: str, status: int) -> web.Response:
    response = web.json_response(error_body(message, status), status=status)
    if status == 503:
        response.headers["Retry-After"] = "1"
    if status in (408, 413):
        response.force_close()  # the rest of the body may still come
    return response


def make_app(
    thread: EngineThread, *, name: str, codec: TextCodec, limits: ServerLimits | None = None
) -> web.Application:
    """The routes, for an engine thread that someone else starts and stops."""
    limits = limits or ServerLimits()
    intake = Intake(thread, codec, limits)
    service = _Service(thread=thread, name=name, codec=codec, intake=intake, write_timeout_s=limits.write_timeout_s)
    app = web.Application(middlewares=[service.sent_in_time, _errors_as_json])

    async def close(app: web.Application) -> None:
        intake.close()

    app.on_cleanup.append(close)
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
    intake: Intake
    write_timeout_s: float

    @property
    def sent_in_time(self) -> Any:
        """A middleware that sends whole answers itself, so that a client that does not take one is cut off."""

        @web.middleware
        async def middleware(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            response = await handler(request)
            if not response.prepared:
                with suppress(ConnectionError):
                    async with self._in_time(request):
                        await response.prepare(request)
                        await response.write_eof()
            return response

        return middleware

    @asynccontextmanager
    async def _in_time(self, request: web.Request) -> AsyncIterator[None]:
        """Cut the connection off, with ConnectionError, when what is written within is not taken in time."""
        try:
            async with asyncio.timeout(self.write_timeout_s):
                yield
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionAbortedError("the client takes no answer") from None

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
        self._refuse_when_broken()
        call = await self.intake.call(request)
        if call.model not in (None, self.name):
            raise RefusedError(404, f"the model {shown(call.model)} is not served here")
        with self.intake.places(len(call.prompts)):
            requests = await self.intake.requests(call)
            progress = [_Progress(request=generation, text=TextStream(self.codec)) for generation in requests]
            self._refuse_when_broken()
            answer = Answer(id=f"cmpl-{uuid.uuid4().hex}", created=int(time.time()), model=self.name)
            if call.stream:
                return await self._stream(request, call, answer, progress)
            return await self._whole(call, answer, progress)

    def _refuse_when_broken(self) -> None:
        if self.thread.failure is not None:
            raise RefusedError(503, str(self.thread.failure))

    async def _events(self, progress: list[_Progress]) -> AsyncGenerator[tuple[int, TokenEvent, str], None]:
        """(choice, token, text) as they come, until every choice has ended; the rest is cancelled at the end.

        Only some choices are with the engine at once; as one ends the next joins, behind whoever has come meanwhile.
        """
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[TokenEvent | EngineError] = asyncio.Queue()

        def deliver(item: TokenEvent | EngineError) -> None:
            with suppress(RuntimeError):  # the server's loop may be gone already
                loop.call_soon_threadsafe(arrived.put_nowait, item)

        places: dict[str, int] = {}
        coming = iter(enumerate(progress))

        def submit_up_to(most: int) -> None:
            while len(places) < most and (following := next(coming, None)) is not None:
                index, one = following
                places[one.request.id] = index
                self.thread.submit(one.request, deliver)

        try:
            submit_up_to(self.intake.prompts_at_once)
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
                    submit_up_to(self.intake.prompts_at_once)
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

        async def write(body: dict[str, Any] | str) -> None:
            async with self._in_time(request):
                await response.write(event_line(body))

        events = self._events(progress)
        try:
            async for index, event, piece in events:
                part = choice(index, piece, event.finish_reason, [event.token] if call.token_ids else None)
                await write(answer.body([part]))
            if call.include_usage:
                await write(answer.body([], _usage(progress)))
            await write("[DONE]")
        except EngineError as error:
            with suppress(ConnectionError):
                await write(error_body(str(error), 500))
        except ConnectionError:
            pass  # the client has gone; its requests are cancelled below
        finally:
            await events.aclose()
        return response


def _usage(progress: list[_Progress]) -> dict[str, Any]:
    return usage_of(sum(len(one.request.prompt) for one in progress), sum(len(one.tokens) for one in progress))
