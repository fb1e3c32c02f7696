"""The simulated engine against sums done by hand, and its capacity against its own runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.profiler.load import Load, LoadRun, Size
from melange.slo import Slo
from melange.testing.simulated_engine import SimulatedEngine, serve

SIZE = Size(100, 20)
ENGINE = SimulatedEngine()


def never(run: LoadRun) -> bool:
    return False


def times(sent: list[float], concurrency: int = 0, until_s: float = np.inf, slots: int = 8) -> list[list[float]]:
    columns = serve(np.array(sent), concurrency, until_s, 3, 0.1, 0.01, 0.001, slots)
    return [column.round(9).tolist() for column in columns]


def test_requests_by_hand() -> None:
    # A prefill of 0.1 s, then two steps of 0.01 s and 0.001 s a request.
    assert times([0.0]) == [[0.0], [0.1], [0.122]]
    assert times([0.0, 0.05]) == [[0.0, 0.05], [0.1, 0.2], [0.224, 0.224]]  # its decode waits for the other's prefill
    assert times([0.0, 0.05], slots=1) == [[0.0, 0.05], [0.1, 0.222], [0.122, 0.244]]
    assert times([0.0, 5.0]) == [[0.0, 5.0], [0.1, 5.1], [0.122, 5.122]]


def test_a_closed_loop_sends_the_next_where_one_ends() -> None:
    sent, first, end = times([0.0] * 3, concurrency=1)
    assert sent == [0.0, *end[:2]] == [0.0, 0.122, 0.244]
    assert first == [0.1, 0.222, 0.344]


def test_what_the_time_does_not_reach_never_ends() -> None:
    _, first, end = times([0.0, 0.0, 50.0], until_s=1.0)
    assert first == [0.1, 0.2, np.inf]
    assert end == [0.224, 0.224, np.inf]


def test_a_lone_request_and_saturation_are_those_of_closed_loops() -> None:
    lone = ENGINE.run(Load(size=SIZE, concurrency=1, max_s=600, min_requests=5), never)
    assert [record.e2e_s for record in lone.records] == pytest.approx([ENGINE.lone_e2e_s(SIZE)] * 5)
    assert lone.in_flight_sent_s == (lone.records[-1].end_s,)
    full = ENGINE.run(Load(size=SIZE, concurrency=600, max_s=600, min_requests=6000), never)
    assert len(full.records) / full.elapsed_s == pytest.approx(ENGINE.saturation_rps(SIZE), rel=0.1)


def test_an_open_loop_comes_at_its_rate_and_stops_when_told() -> None:
    load = Load(size=SIZE, rate_rps=4.0, max_s=400, min_requests=10, seed=3)
    whole = ENGINE.run(load, never)
    assert whole.elapsed_s == 400
    assert (len(whole.records) + len(whole.in_flight_sent_s)) / 400 == pytest.approx(4.0, rel=0.1)
    looks = []
    stopped = ENGINE.run(load, lambda run: looks.append(run) is None and len(looks) == 2)
    assert stopped is looks[1]
    assert stopped.elapsed_s == 50
    assert stopped.records == whole.records[: len(stopped.records)]
    assert all(record.end_s <= 50 for record in stopped.records)
    assert all(sent <= 50 for sent in stopped.in_flight_sent_s)


def test_noise_differs_from_seed_to_seed_and_is_none_by_default() -> None:
    def e2e(engine: SimulatedEngine, seed: int) -> float:
        load = Load(size=SIZE, concurrency=1, max_s=600, seed=seed)
        return engine.run(load, never).records[0].e2e_s

    noisy = SimulatedEngine(noise=0.1)
    assert e2e(noisy, 1) == e2e(noisy, 1) != e2e(noisy, 2)
    assert e2e(ENGINE, 1) == e2e(ENGINE, 2)


@pytest.mark.parametrize("slo", [Slo(tpot_s=0.02), Slo(ttft_s=0.05), Slo(e2e_s=0.5, attainment=0.9)])
def test_the_capacity_is_where_long_runs_stop_keeping_the_promise(slo: Slo) -> None:
    capacity = ENGINE.true_capacity_rps(SIZE, slo, requests=3000)
    assert 0 < capacity < ENGINE.saturation_rps(SIZE)
    arrivals = np.random.default_rng(2024).exponential(size=3000).cumsum()
    assert ENGINE._holds(SIZE, slo, arrivals / (0.98 * capacity), serve)
    assert not ENGINE._holds(SIZE, slo, arrivals / (1.02 * capacity), serve)
    slower = replace(ENGINE, step_s=1.1 * ENGINE.step_s).true_capacity_rps(SIZE, slo, requests=3000)
    assert slower < capacity


def test_a_promise_that_a_lone_request_breaks_has_no_capacity() -> None:
    too_short = Slo(e2e_s=0.9 * ENGINE.lone_e2e_s(SIZE))
    assert ENGINE.true_capacity_rps(SIZE, too_short, requests=500) == 0
