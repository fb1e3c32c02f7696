"""The client against a server that behaves and one that does not: every fault is a counted failure, never a number."""

from __future__ import annotations

import asyncio
import re

import pytest

pytest.importorskip("aiohttp")

from melange.profiler.client import CompletionsClient, Dialect, Endpoint, PromptSource, _understand
from melange.profiler.load import RequestRecord, Size
from melange.testing.fault_server import FaultServer

SIZE = Size(20, 16)


def endpoint(server: FaultServer) -> Endpoint:
    return Endpoint(url=server.url, model="fault", headers={})


def one(server: FaultServer, timeout_s: float = 60.0) -> RequestRecord:
    async def ask() -> RequestRecord:
        async with CompletionsClient(endpoint(server), timeout_s=timeout_s) as client:
            return await client.complete(list(range(20)), SIZE, began_s=client.clock())

    return asyncio.run(ask())


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
        record = one(server, timeout_s=0.5 if fault == "hangs" else 60.0)
    assert not record.ok
    assert record.error is not None

    assert re.search(message, record.error), record.error


def test_a_server_that_is_not_there() -> None:
    with FaultServer() as server:
        pass
    assert not one(server).ok


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
