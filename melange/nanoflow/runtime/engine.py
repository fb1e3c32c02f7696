"""NanoFlowEngine: the loop of schedule, launch, and take in the tokens of the iteration before."""

from __future__ import annotations

from collections.abc import Iterable

from melange.nanoflow.runtime.executor import Executor, InFlight
from melange.nanoflow.runtime.scheduler import GenerationRequest, Scheduler, TokenEvent


class NanoFlowEngine:
    """Serves requests with one executor. Not thread-safe: one thread submits, cancels and steps."""

    def __init__(self, scheduler: Scheduler, executor: Executor) -> None:
        self.scheduler = scheduler
        self.executor = executor
        self._in_flight: InFlight | None = None

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request; one that could never run raises InputError."""
        self.scheduler.submit(request)

    def step(self) -> list[TokenEvent]:
        """Form and launch the next iteration, then return the tokens of the one before."""
        batch = self.scheduler.form()
        launched = self.executor.launch(batch) if batch is not None else None
        events = self.scheduler.complete(self._in_flight.tokens()) if self._in_flight is not None else []
        self._in_flight = launched
        return events

    def generate(self, requests: Iterable[GenerationRequest]) -> dict[str, list[int]]:
        """Run requests to their end; their tokens by request id."""
        outputs: dict[str, list[int]] = {}
        for request in requests:
            outputs[request.id] = []
            self.submit(request)
        while not self.scheduler.idle:
            for event in self.step():
                outputs[event.request_id].append(event.token)
        return outputs

    def close(self) -> None:
        """Stop the executor and the processes that follow it."""
        self.executor.close()
