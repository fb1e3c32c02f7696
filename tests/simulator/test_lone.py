"""The closed form of a request that has a replica to itself, against the scheduler."""

from __future__ import annotations

import pytest
from simulator.builders import arrivals, clock

from melange.simulator.lone import lone_latency_s
from melange.simulator.run import play_replica

WINDOWS = {
    "front_s": 0.02,
    "window_tokens": 64,
    "window_kv_share": 1.0,
    "window_read_share": 2.0,
    "window_pair_share": 3.0,
}


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("windows", [{}, WINDOWS])
@pytest.mark.parametrize("size", [(1, 1), (17, 1), (100, 50), (1700, 3), (5, 400)])
def test_a_lonely_request_takes_the_closed_form(size, chunked, windows):
    model = clock(chunked_prefill=chunked, **windows)
    inputs, outputs = size
    played = play_replica(model, arrivals([1.5], inputs, outputs)).requests
    ttft, done = model.front_s, 0
    while done < inputs:
        chunk = min(inputs - done, 512 if chunked else inputs)
        ttft += float(
            model.iteration_s(
                decodes=0, kv_tokens=done, prefill_tokens=chunk, prefill_pairs=model.prefill_pairs(chunk, done),
                prefills=1, new_requests=done == 0,
            )
        )  # fmt: skip
        done += chunk
    read = inputs + float(model.bounded_read_tokens(inputs + outputs / 2))
    e2e = ttft + sum(float(model.iteration_s(decodes=1, kv_tokens=read + g)) for g in range(outputs - 1))
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
