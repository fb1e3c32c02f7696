"""run_load: put one load on a server, open or closed loop, and watch the generator itself while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator

import numpy as np

from melange.measurements.measurement import TOLERATED_FAILURES
from melange.profiler.client import CompletionsClient, PromptSource
from melange.profiler.load import ClientHealth, Load, LoadRun, RequestRecord
from melange.profiler.statistics import LOOKS

Stop = Callable[[LoadRun], bool]
Tick = Callable[[LoadRun], None]

LAG_PROBE_S = 0.005
TICK_S = 1.0
ERROR_PAUSE_S = 0.1  # a refused connection must not turn a closed loop into a busy loop
HOPELESS_FAILURES = 10
LOOK_PAUSE_S = 0.02
OVERTIME = 3.0  # how many times longer a load may take to see its first request finish


async def run_load(client: CompletionsClient, load: Load, *, stop: Stop, tick: Tick | None = None) -> LoadRun:
    """Run a load until ``stop`` says so at one of the looks, or its time is over; requests in flight are then dropped.

    The load never drains: arrivals go on to the last moment, so every finished request lived under the full load.
    ``tick`` is called about once a second with the run so far.
    """
    generator = _Generator(client, load)
    with undisturbed():
        return await generator.run(stop, tick)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep other work out of the measured time, as far as this process may.

    Python's full garbage collections stop the loop for milliseconds. An engine on the same processors starves it for
    whole generations, unless this thread is allowed to be scheduled in real time.
    """
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)
    try:
        with real_time():
            yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextlib.contextmanager
def real_time(priority: int = 2) -> Iterator[None]:
    """Round-robin real-time scheduling for this thread, where the system permits it; 1 is the least urgent."""
    setter = getattr(os, "sched_setscheduler", None)
    if setter is None:
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(OSError):
        setter(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            setter(0, policy, parameters)


class _Generator:
    """State of one running load."""

    def __init__(self, client: CompletionsClient, load: Load) -> None:
        self.client, self.load = client, load
        # Prompts that no run has sent before: a server with a prefix cache remembers those of the last one.
        self.prompts = PromptSource(load.size, client.dialect, f"{load.seed} {secrets.token_hex(8)}")
        self.records: list[RequestRecord] = []
        self.in_flight: dict[int, float] = {}
        self.tasks: set[asyncio.Future[object]] = set()
        self.lags: list[float] = []
        self.began_s = self.cpu_began_s = 0.0
        self.sent = self.failed = 0

    def elapsed_s(self) -> float:
        return self.client.clock() - self.began_s

    async def run(self, stop: Stop, tick: Tick | None) -> LoadRun:
        self.began_s, self.cpu_began_s = self.client.clock(), time.thread_time()
        self.start(self.watch_lag())
        if self.load.rate_rps is not None:
            self.start(self.arrive())
        else:
            for _ in range(self.load.concurrency or 0):
                self.start(self.keep_busy())
        try:
            await self.until_answered(stop, tick)
            return self.snapshot()
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    def start(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def until_answered(self, stop: Stop, tick: Tick | None) -> None:
        looks = [share * self.load.max_s for share, _ in LOOKS] if self.load.loop == "open" else []
        next_tick = TICK_S
        while not self.over() and not self.hopeless():
            now = self.elapsed_s()
            if looks and now >= looks[0]:
                looks.pop(0)
                if len(self.records) >= self.load.min_requests and stop(self.snapshot()):
                    return
            if tick is not None and now >= next_tick:
                next_tick = now + TICK_S
                tick(self.snapshot())
            await asyncio.sleep(min(LOOK_PAUSE_S, max(0.0, (looks[0] if looks else math.inf) - now)))

    def over(self) -> bool:
        """Whether the load's time is over: later than planned where not one request has finished."""
        elapsed = self.elapsed_s()
        if self.load.loop == "closed" and len(self.records) >= self.load.min_requests:
            return True
        return elapsed >= self.load.max_s and (bool(self.records) or elapsed >= OVERTIME * self.load.max_s)

    def hopeless(self) -> bool:
        """Failures so common that going on would only hammer a broken server: the load cannot become valid any more."""
        recent = sum(not record.ok for record in self.records[-2 * HOPELESS_FAILURES :])
        whole = (self.load.rate_rps or 0.0) * self.load.max_s
        return recent >= HOPELESS_FAILURES or self.failed > max(HOPELESS_FAILURES, TOLERATED_FAILURES * whole)

    async def arrive(self) -> None:
        rate = self.load.rate_rps or 0.0
        draw = random.Random(f"arrivals {self.load.seed}")
        at = draw.expovariate(rate)
        while True:
            wait = at - self.elapsed_s()
            if wait > 0:
                await asyncio.sleep(wait)
            self.start(self.one(at))
            at += draw.expovariate(rate)

    async def keep_busy(self) -> None:
        while True:
            record = await self.one(None)
            if not record.ok:
                await asyncio.sleep(ERROR_PAUSE_S)

    async def one(self, scheduled_s: float | None) -> RequestRecord:
        number = self.sent
        self.sent += 1
        self.in_flight[number] = self.elapsed_s()
        record = await self.client.complete(
            self.prompts.next(), self.load.size, began_s=self.began_s, scheduled_s=scheduled_s
        )
        del self.in_flight[number]
        self.records.append(record)
        self.failed += not record.ok
        return record

    async def watch_lag(self) -> None:
        while True:
            before = self.client.clock()
            await asyncio.sleep(LAG_PROBE_S)
            self.lags.append(self.client.clock() - before - LAG_PROBE_S)

    def snapshot(self) -> LoadRun:
        return LoadRun(
            load=self.load,
            records=tuple(self.records),
            in_flight_sent_s=tuple(self.in_flight.values()),
            elapsed_s=self.elapsed_s(),
            health=self.health(),
        )

    def health(self) -> ClientHealth:
        elapsed = max(self.elapsed_s(), 1e-9)
        busy = (time.thread_time() - self.cpu_began_s) / elapsed
        chunks = sum(len(record.token_s) for record in self.records) / elapsed
        late = [record.sent_s - record.scheduled_s for record in self.records]
        return ClientHealth(
            busy_share=busy,
            ceiling_chunks_per_s=chunks / busy if busy > 0 else 0.0,
            lag_p99_s=float(np.quantile(self.lags, 0.99)) if self.lags else 0.0,
            late_p99_s=float(np.quantile(late, 0.99)) if late else 0.0,
        )
