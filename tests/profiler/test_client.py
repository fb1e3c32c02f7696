"""The client against a server that behaves and one that does not: every fault is a counted failure, never a number."""

from __future__ import annotations

import asyncio
import re

import pytest

pytest.importorskip("aiohttp")

from melange.errors import EngineError
from melange.profiler.client import CompletionsClient, Dialect, Endpoint, PromptSource, _understand
from melange.profiler.load import Load, LoadRun, RequestRecord, Size
from melange.profiler.loadgen import run_load
from melange.profiler.serving import probe
from melange.testing.fault_server import FaultServer

SIZE = Size(20, 16)


def endpoint(server: FaultServer) -> Endpoint:
    return Endpoint(url=server.url, model="fault", headers={})


def one(server: FaultServer, timeout_s: float = 5.0) -> RequestRecord:
    async def ask() -> RequestRecord:
        async with CompletionsClient(endpoint(server), timeout_s=timeout_s) as client:
            return await client.complete(list(range(20)), SIZE, began_s=client.clock())

    return asyncio.run(ask())


def load(server: FaultServer, asked: Load) -> LoadRun:
    async def go() -> LoadRun:
        async with CompletionsClient(endpoint(server), timeout_s=2.0) as client:
            return await run_load(client, asked, stop=lambda run: False)

    return asyncio.run(go())


def test_a_good_request_is_timed_token_by_token() -> None:
    with FaultServer(first_s=0.02, gap_s=0.005) as server:
        record = one(server)
    assert record.ok
    assert (record.input_tokens, record.output_tokens, len(record.token_s)) == (20, 16, 16)
    assert record.ttft_s >= 0.02
    assert record.e2e_s >= 0.02 + 15 * 0.005
    assert len(record.gaps_s) == 15


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("429", "HTTP 429"),
        ("500", "HTTP 500"),
        ("hangs", "no end within"),
        ("garbage", "server-sent events"),
        ("closes early", "PayloadError|closed early"),
        ("too few tokens", "returned 8 tokens of 16"),
        ("lies about tokens", "returned 48 tokens of 16"),
        ("lies about prompts", "usage says 10 prompt tokens, 20 were sent"),
        ("no usage", "did not count tokens"),
        ("error in stream", "engine died"),
        ("dies", "HTTP 503|Disconnected"),
    ],
)
def test_each_fault_is_a_failure_that_says_why(fault: str, message: str) -> None:
    with FaultServer(fault=fault) as server:
        record = one(server, timeout_s=0.5)
    assert not record.ok
    assert record.error is not None

    assert re.search(message, record.error), record.error


def test_a_server_that_is_not_there() -> None:
    with FaultServer() as server:
        pass
    assert not one(server).ok


def test_failures_are_counted_and_the_rest_is_measured() -> None:
    with FaultServer(fault="500", share=0.25) as server:
        run = load(server, Load(size=SIZE, concurrency=4, max_s=5, min_requests=40))
    failures = [r for r in run.records if not r.ok]
    assert 5 <= len(failures) <= 15
    assert all(r.error and r.error.startswith("HTTP 500") for r in failures)


def test_a_server_that_only_fails_is_left_alone_soon() -> None:
    with FaultServer(fault="500") as server:
        run = load(server, Load(size=SIZE, concurrency=8, max_s=30, min_requests=1000))
        assert server.requests < 60
    assert run.elapsed_s < 5


def test_open_loop_sends_at_the_seeded_times_whatever_the_server_does() -> None:
    with FaultServer(first_s=0.2, gap_s=0.001) as server:
        asked = Load(size=SIZE, rate_rps=100, max_s=1.0, min_requests=10_000, seed=7)
        first, second = load(server, asked), load(server, asked)
    times = [sorted(r.scheduled_s for r in run.records)[:50] for run in (first, second)]
    assert times[0] == pytest.approx(times[1])
    assert 60 <= len(first.records) + len(first.in_flight_sent_s) <= 140


def test_closed_loop_keeps_its_concurrency() -> None:
    with FaultServer(first_s=0.01) as server:
        run = load(server, Load(size=SIZE, concurrency=6, max_s=10, min_requests=60))
    assert len(run.records) >= 60
    assert len(run.in_flight_sent_s) <= 6
    assert run.health.busy_share > 0
    assert run.health.lag_p99_s >= 0


def test_probe_falls_back_to_text_and_learns_its_length() -> None:
    with FaultServer(fault="refuses token ids") as server:
        serving = probe(endpoint(server))
    assert not serving.dialect.token_ids
    assert serving.dialect.words_per_token == pytest.approx(1.0)
    assert serving.version == "fault-1"
    assert serving.max_model_len == 4096


def test_probe_gives_the_servers_last_word() -> None:
    with FaultServer(fault="500") as server, pytest.raises(EngineError, match="HTTP 500"):
        probe(endpoint(server))


def test_prompts_are_distinct_reproducible_and_share_their_prefix() -> None:
    size = Size(100, 1, 40)
    first, again, other = (PromptSource(size, Dialect(), seed) for seed in (1, 1, 2))
    prompts = [first.next() for _ in range(5)]
    assert prompts == [again.next() for _ in range(5)]
    assert all(len(p) == 100 for p in prompts)
    assert len({tuple(p[:40]) for p in [*prompts, other.next()]}) == 1
    assert len({tuple(p[40:56]) for p in prompts}) == 5


def test_events_cut_anywhere_are_timed_by_the_read_that_completed_them() -> None:
    token = b'data: {"choices":[{"text":"a"}]}\r\n\r\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\r\n\r\ndata: [DONE]\r\n\r\n'
    whole = token + token + usage
    for cut in range(1, len(whole)):
        stream = _understand([(1.0, whole[:cut]), (2.0, whole[cut:])])
        expected = tuple(1.0 if cut >= (n + 1) * len(token) - 1 else 2.0 for n in range(2))
        assert stream.output_tokens == 2
        assert stream.token_s in (expected, tuple(1.0 if cut >= (n + 1) * len(token) else 2.0 for n in range(2)))
