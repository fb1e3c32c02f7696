"""The closed form of a request that has a replica to itself, against the scheduler."""

from __future__ import annotations

import pytest
from simulator.builders import arrivals, clock

from melange.simulator.lone import lone_latency_s
from melange.simulator.run import play_replica


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (17, 1), (100, 50), (1700, 3), (5, 400)])
def test_a_lonely_request_takes_the_closed_form(size, chunked):
    model = clock(chunked_prefill=chunked)
    inputs, outputs = size
    played = play_replica(model, arrivals([1.5], inputs, outputs)).requests
    ttft, done = 0.0, 0
    while done < inputs:
        chunk = min(inputs - done, 512 if chunked else inputs)
        ttft += float(
            model.iteration_s(
                decodes=0, kv_tokens=done, prefill_tokens=chunk, prefill_pairs=chunk * done + chunk * (chunk + 1) / 2,
                prefills=1, new_requests=done == 0,
            )
        )  # fmt: skip
        done += chunk
    e2e = ttft + sum(float(model.iteration_s(decodes=1, kv_tokens=inputs + g)) for g in range(outputs - 1))
    assert played.first_s[0] - 1.5 == pytest.approx(ttft, rel=1e-9)
    assert played.end_s[0] - 1.5 == pytest.approx(e2e, rel=1e-9)
    closed = lone_latency_s(model, inputs, outputs)
    assert (float(closed[0]), float(closed[1])) == pytest.approx((ttft, e2e), rel=1e-9)


def test_a_cached_prefix_is_read_but_not_computed():
    model = clock()
    cold = play_replica(model, arrivals([0.0], 400, 10)).requests
    warm = play_replica(model, arrivals([0.0], 400, 10, 300)).requests
    assert warm.first_s[0] < cold.first_s[0]
    assert float(warm.first_s[0]) == pytest.approx(float(lone_latency_s(model, 400, 10, 300)[0]), rel=1e-9)
