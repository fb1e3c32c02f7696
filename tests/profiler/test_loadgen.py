"""Loads on a server that behaves and on one that does not; nothing depends on how fast either side is."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from collections.abc import Callable

import pytest

pytest.importorskip("aiohttp")

from melange.profiler.client import CompletionsClient, Endpoint
from melange.profiler.load import Load, LoadRun, Size
from melange.profiler.loadgen import run_load, undisturbed
from melange.testing.fault_server import FaultServer

SIZE = Size(20, 16)
LONG_S = 600.0  # a load that may take this long ends by its count, whatever the machine


def load(server: FaultServer, asked: Load, stop: Callable[[LoadRun], bool] = lambda run: False) -> LoadRun:
    async def go() -> LoadRun:
        endpoint = Endpoint(url=server.url, model="fault", headers={})
        async with CompletionsClient(endpoint, timeout_s=LONG_S) as client:
            return await run_load(client, asked, stop=stop)

    return asyncio.run(go())


def test_failures_are_counted_and_the_rest_is_measured() -> None:
    with FaultServer(fault="500", share=0.25) as server:
        run = load(server, Load(size=SIZE, concurrency=4, max_s=LONG_S, min_requests=40))
    failures = [r for r in run.records if not r.ok]
    assert 5 <= len(failures) <= 15
    assert all(r.error and r.error.startswith("HTTP 500") for r in failures)


def test_a_server_that_only_fails_is_left_alone_soon() -> None:
    with FaultServer(fault="500") as server:
        run = load(server, Load(size=SIZE, concurrency=8, max_s=LONG_S, min_requests=10_000))
        assert server.requests < 200
    assert run.elapsed_s < LONG_S


def test_open_loop_sends_at_the_seeded_times_whatever_the_server_does() -> None:
    draw = random.Random("arrivals 7")
    times = list(itertools.accumulate(draw.expovariate(20) for _ in range(20_000)))
    asked = Load(size=SIZE, rate_rps=20, max_s=20.0, min_requests=5, seed=7)
    for first_s in (0.5, 0.001):
        with FaultServer(first_s=first_s) as server:
            run = load(server, asked, lambda run: True)
        scheduled = sorted(record.scheduled_s for record in run.records)
        assert scheduled
        assert set(scheduled) <= set(times)
        assert all(record.sent_s >= record.scheduled_s for record in run.records)
        # what was due before was sent too: each is finished or still in flight
        assert len(run.records) + len(run.in_flight_sent_s) >= times.index(scheduled[-1]) + 1
        if first_s == 0.5:
            assert len(run.in_flight_sent_s) >= 3  # an answer takes 10 arrivals: nothing waits for it


def test_closed_loop_keeps_its_concurrency() -> None:
    with FaultServer(first_s=0.01) as server:
        run = load(server, Load(size=SIZE, concurrency=6, max_s=LONG_S, min_requests=60))
    assert len(run.records) >= 60
    assert len(run.in_flight_sent_s) <= 6
    assert run.health.busy_share > 0
    assert run.health.lag_p99_s >= 0


def test_a_look_may_stop_an_open_loop() -> None:
    looked: list[int] = []

    def enough(run: LoadRun) -> bool:
        looked.append(len(run.records))
        return True

    asked = Load(size=SIZE, rate_rps=50, max_s=30.0, min_requests=5)
    with FaultServer() as server:
        run = load(server, asked, enough)
    assert len(looked) == 1
    assert looked[0] >= 5
    assert run.elapsed_s < 30.0


def test_garbage_collection_is_as_before_after_a_load() -> None:
    before = gc.get_threshold()
    with undisturbed():
        assert gc.get_threshold() != before
    assert gc.get_threshold() == before
