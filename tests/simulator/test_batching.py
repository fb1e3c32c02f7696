"""The compiled scheduler against a plain one, against closed forms and against queueing theory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator.builders import arrivals, clock, poisson, server
from simulator.reference import reference

from melange.simulator.lone import lone_latency_s
from melange.simulator.run import play_replica

WINDOWS = {"window_tokens": 128, "window_kv_share": 1.0, "window_read_share": 0.7, "window_pair_share": 0.9}


@pytest.mark.parametrize(
    ("changes", "rate", "sizes"),
    [
        ({}, 6.0, (300, 60)),
        (WINDOWS, 6.0, (300, 60)),
        ({**WINDOWS, "state_tokens": 40.0, "kv_capacity_tokens": 1600, "max_num_seqs": 8}, 8.0, (200, 120)),
        ({"kv_capacity_tokens": 1600, "max_num_seqs": 8}, 8.0, (200, 120)),
        ({"kv_capacity_tokens": 800, "max_num_seqs": 16, "max_batched_tokens": 64}, 12.0, (150, 80)),
        ({"max_num_seqs": 2}, 5.0, (400, 30)),
        ({"max_batched_tokens": 33, "max_num_seqs": 32}, 3.0, (200, 40)),
    ],
)
def test_it_serves_every_request_as_the_plain_scheduler_does(changes, rate, sizes):
    draw = np.random.default_rng(3)
    times = poisson(rate, 300, 4)
    inputs, outputs = draw.integers(1, 2 * sizes[0], 300), draw.integers(1, 2 * sizes[1], 300)
    played = play_replica(clock(**changes), arrivals(times, inputs, outputs)).requests
    expected = reference(clock(**changes), times, inputs, outputs)
    for name in ("start_s", "first_s", "end_s"):
        np.testing.assert_allclose(getattr(played, name), [getattr(i, name) for i in expected], rtol=1e-9)
    assert played.preemptions.tolist() == [item.preemptions for item in expected]


def test_the_cases_above_reach_preemption():
    draw = np.random.default_rng(3)
    inputs, outputs = draw.integers(1, 300, 300), draw.integers(1, 160, 300)
    tight = clock(kv_capacity_tokens=800, max_num_seqs=16, max_batched_tokens=64)
    assert play_replica(tight, arrivals(poisson(12.0, 300, 4), inputs, outputs)).requests.preemptions.sum() > 20


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 60)), min_size=1, max_size=25),
    blocks=st.integers(10, 30),
    sequences=st.integers(1, 8),
    budget=st.integers(8, 64),
    gap=st.floats(0.0, 0.05),
)
def test_it_agrees_with_the_plain_scheduler_whatever_the_limits(sizes, blocks, sequences, budget, gap):
    tight = clock(kv_capacity_tokens=16 * blocks, max_num_seqs=sequences, max_batched_tokens=budget)
    inputs, outputs = np.array(sizes).T
    times = 0.003 + np.arange(len(sizes)) * gap * 1.0001
    played = play_replica(tight, arrivals(times, inputs, outputs)).requests
    if (np.diff(times) == 0).any():
        assert not np.isnan(played.end_s).any()
        return
    expected = reference(tight, times, inputs, outputs)
    np.testing.assert_allclose(played.end_s, [item.end_s for item in expected], rtol=1e-9)
    assert played.preemptions.tolist() == [item.preemptions for item in expected]


def test_without_chunks_decodes_wait_for_whole_prompts():
    model = clock(chunked_prefill=False, max_batched_tokens=4096)
    played = play_replica(model, arrivals([0.0, 0.05], [10, 3000], [20, 2])).requests
    alone = lone_latency_s(model, 10, 20)[1]
    prompt = lone_latency_s(model, 3000, 1)[0]
    # The whole prompt, and the one step that the two then share.
    shared = model.iteration_s(decodes=2, kv_tokens=3000) - model.iteration_s(decodes=1, kv_tokens=0)
    assert played.end_s[0] == pytest.approx(float(alone + prompt + shared), rel=1e-9)


def test_with_one_server_and_exponential_service_it_waits_as_an_m_m_1_queue():
    service_s, load, count = 0.2, 0.7, 200_000
    draw = np.random.default_rng(5)
    outputs = np.maximum(np.ceil(draw.exponential(service_s / 1e-3, count)), 1).astype(int)
    times = draw.exponential(service_s / load, count).cumsum()
    played = play_replica(server(), arrivals(times, 1, outputs)).requests
    wait = float((played.start_s - played.arrival_s).mean())
    assert wait == pytest.approx(load / (1 - load) * service_s, rel=0.05)


def test_the_simulated_wait_is_that_of_pollaczek_and_khinchine_for_fixed_service():
    draw = np.random.default_rng(6)
    times = draw.exponential(0.1 / 0.8, 200_000).cumsum()
    played = play_replica(server(), arrivals(times, 1, 100)).requests
    wait = float((played.start_s - played.arrival_s).mean())
    assert wait == pytest.approx(0.8 * 0.1 / (2 * (1 - 0.8)), rel=0.05)


def test_littles_law_holds():
    draw = np.random.default_rng(7)
    played = play_replica(
        clock(), arrivals(poisson(7.0, 3000, 8), draw.integers(1, 500, 3000), draw.integers(1, 120, 3000))
    )
    requests, replica = played.requests, played.replicas[0]
    # Running requests over time, integrated by the kernel, against time spent in the batch summed over requests.
    assert requests.preemptions.sum() == 0
    assert float((requests.end_s - requests.start_s).sum()) == pytest.approx(float(replica.sequence_s), rel=1e-9)
    span = float(requests.end_s.max())
    in_system = np.sort(np.concatenate([requests.arrival_s, requests.end_s]))
    level = np.searchsorted(np.sort(requests.arrival_s), in_system, side="right") - np.searchsorted(
        np.sort(requests.end_s), in_system, side="right"
    )
    mean_number = float((level[:-1] * np.diff(in_system)).sum()) / span
    rate, latency = len(requests) / span, float((requests.end_s - requests.arrival_s).mean())
    assert mean_number == pytest.approx(rate * latency, rel=1e-9)


def test_every_block_comes_back():
    draw = np.random.default_rng(9)
    tight = clock(kv_capacity_tokens=2000, max_num_seqs=16)
    played = play_replica(
        tight, arrivals(poisson(10.0, 2000, 1), draw.integers(1, 300, 2000), draw.integers(1, 200, 2000))
    )
    replica = played.replicas[0]
    assert played.requests.preemptions.sum() > 0
    assert (replica.free_blocks, replica.n_running, replica.n_waiting, replica.kv_tokens) == (125, 0, 0, 0)
    assert (played.requests.generated == played.requests.output_tokens).all()


def test_a_request_that_can_never_fit_is_refused():
    played = play_replica(clock(kv_capacity_tokens=160), arrivals([0.0, 0.1], [200, 20], [10, 10])).requests
    assert np.isnan(played.end_s[0])
    assert played.end_s[1] > 0
