"""EngineThread: steps an engine for as long as it has requests, and hands every token to whoever asked for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from melange.errors import EngineError
from melange.nanoflow.runtime.engine import NanoFlowEngine
from melange.nanoflow.runtime.scheduler import GenerationRequest, TokenEvent

Delivery = Callable[[TokenEvent | EngineError], None]
Submission = tuple[GenerationRequest, Delivery]


class EngineThread:
    """The one thread that touches an engine. ``submit`` and ``cancel`` may be called from any other.

    Deliveries are called in this thread and must return at once. When a step fails, every open request is told, and
    ``failure`` says why nothing more will be served.
    """

    def __init__(self, engine: NanoFlowEngine) -> None:
        self.failure: EngineError | None = None
        self._engine = engine
        self._inbox: queue.SimpleQueue[Submission | str | None] = queue.SimpleQueue()
        self._open: dict[str, Delivery] = {}
        self._thread = threading.Thread(target=self._run, name="nanoflow-engine", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step under way; open requests get nothing more."""
        self._inbox.put(None)
        self._thread.join()

    def check(self, request: GenerationRequest) -> None:
        """Raise InputError for a request that could never run."""
        self._engine.scheduler.check(request)

    @property
    def longest_request_tokens(self) -> int:
        """Most tokens that a request's prompt and output may have together."""
        return self._engine.scheduler.limits.longest_request_tokens

    @property
    def most_requests(self) -> int:
        """Most requests that run at once."""
        return self._engine.scheduler.limits.max_requests

    def submit(self, request: GenerationRequest, deliver: Delivery) -> None:
        """Queue a checked request."""
        self._inbox.put((request, deliver))

    def cancel(self, request_id: str) -> None:
        """Forget a request; one that has ended is ignored."""
        self._inbox.put(request_id)

    def _run(self) -> None:
        try:
            while self._take_in():
                for event in self._engine.step():
                    deliver = self._open[event.request_id]
                    if event.finish_reason:
                        del self._open[event.request_id]
                    deliver(event)
        except Exception as error:  # whatever broke, waiting clients must hear of it
            self.failure = EngineError(f"the engine stopped: {type(error).__name__}: {error}")
            self._refuse_all(self.failure)

    def _take_in(self) -> bool:
        """Act on what has come in, waiting for something if there is nothing to do; False to stop."""
        wait = self._engine.scheduler.idle
        while True:
            try:
                item = self._inbox.get(block=wait)
            except queue.Empty:
                return True
            if item is None:
                return False
            if isinstance(item, str):
                self._open.pop(item, None)
                self._engine.scheduler.cancel(item)
            else:
                request, deliver = item
                self._open[request.id] = deliver
                self._engine.submit(request)
            wait = self._engine.scheduler.idle

    def _refuse_all(self, failure: EngineError) -> None:
        for deliver in self._open.values():
            deliver(failure)
        self._open.clear()
        while (item := self._inbox.get()) is not None:
            if not isinstance(item, str):
                item[1](failure)
