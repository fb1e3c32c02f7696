"""Loads and records: what they refuse and what follows from them."""

from __future__ import annotations

import math

import pytest

from melange.errors import InputError
from melange.profiler.load import Load, RequestRecord, Size

SIZE = Size(16, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of the two"),
        ({"rate_rps": 1.0, "concurrency": 1}, "exactly one of the two"),
        ({"rate_rps": 0.0}, "rate_rps is 0.0"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"concurrency": 1, "max_s": math.inf}, "max_s is inf"),
    ],
)
def test_impossible_loads_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Load(**{"size": SIZE, "max_s": 1.0, **given})  # type: ignore[arg-type]


def test_loads_and_sizes_describe_themselves() -> None:
    opened, closed = Load(size=SIZE, rate_rps=2.5, max_s=1), Load(size=SIZE, concurrency=4, max_s=1)
    assert (opened.describe(), closed.describe()) == ("2.5 req/s", "concurrency 4")
    assert (opened.loop, closed.loop) == ("open", "closed")
    assert Size(16, 8, 4).describe() == "16 (4 cached) -> 8 tokens"


def test_latencies_of_a_request_count_from_its_sending() -> None:
    done = RequestRecord(sent_s=1.0, scheduled_s=0.9, first_s=1.5, end_s=3.0, token_s=(1.5, 2.0, 3.0))
    assert (done.ok, done.ttft_s, done.e2e_s, done.gaps_s) == (True, 0.5, 2.0, (0.5, 1.0))
    failed = RequestRecord(sent_s=1.0, scheduled_s=1.0, error="HTTP 500")
    assert not failed.ok
    assert math.isnan(failed.ttft_s)
    assert math.isnan(failed.e2e_s)
