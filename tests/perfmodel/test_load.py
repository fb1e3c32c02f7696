"""Load, and prompts alone against the simulator and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from perfmodel.clocks import clock

from melange.errors import InputError
from melange.perfmodel.load import Load, Prompts
from melange.simulator.arrivals import Arrivals
from melange.simulator.run import play_replica


def played(c, input_tokens, *, rate_rps=None, requests=600):
    gaps = np.random.default_rng(0).exponential(1 / rate_rps, requests) if rate_rps else np.zeros(requests)
    return play_replica(
        c,
        Arrivals(
            arrival_s=np.cumsum(gaps),
            input_tokens=np.full(requests, input_tokens),
            output_tokens=np.ones(requests, dtype=np.int64),
            cached_tokens=np.zeros(requests, dtype=np.int64),
        ),
    ).requests


@pytest.mark.parametrize("input_tokens", [50, 200, 1000, 3000, 20_000])
def test_the_highest_rate_of_prompts_is_the_simulated_one(input_tokens):
    found = played(clock(), input_tokens)
    rate = float(Prompts(clock(), input_tokens).saturation_rps)
    assert rate == pytest.approx(len(found.end_s) / found.end_s.max(), rel=0.06)


@pytest.mark.parametrize("input_tokens", [1000, 3000])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_ttft_under_arrivals_is_the_simulated_one(input_tokens, share):
    prompts = Prompts(clock(), input_tokens)
    rate = share * float(prompts.saturation_rps)
    found = played(clock(), input_tokens, rate_rps=rate, requests=4000)
    point = prompts.open_at_rate(rate)
    assert float(point.rate_rps) == pytest.approx(rate)
    assert float(point.ttft_s) == pytest.approx(float(np.mean(found.first_s - found.arrival_s)), rel=0.2)


def test_a_lone_prompt_by_hand():
    c = clock(weights_s=1e-9, attention_s_per_pair=1e-15, front_s=0.5)
    point = Prompts(c, 1000).clients(1)
    assert float(point.prefill_s) == pytest.approx(2e-3 + 2e-5 + 1e-3 + 1000 * 4e-5 + 0.5, rel=1e-3)
    assert float(point.wait_s) == 0.0
    two_chunks = Prompts(c, 4096).clients(1)
    assert float(two_chunks.prefill_s) == pytest.approx(2 * (2e-3 + 2e-5) + 1e-3 + 4096 * 4e-5 + 0.5, rel=1e-3)


def test_clients_beyond_an_iteration_wait_by_littles_law():
    prompts = Prompts(clock(), 1000)
    point = prompts.clients(100)
    assert float(point.rate_rps) == pytest.approx(float(prompts.saturation_rps))
    assert float(point.rate_rps * point.ttft_s) == pytest.approx(100)


def test_a_rate_above_saturation_waits_without_end():
    prompts = Prompts(clock(), 1000)
    point = Load(rate_rps=1e6).of(prompts)
    assert np.isinf(point.wait_s)
    assert float(point.rate_rps) == float(prompts.saturation_rps) == float(Load().of(prompts).rate_rps)


def test_a_prompt_that_does_not_fit_has_rate_zero():
    assert float(Prompts(clock(), 300_000).saturation_rps) == 0.0
    assert float(Prompts(clock(), 3000, max_request_tokens=3000).saturation_rps) == 0.0


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"concurrency": 0.5}, "concurrency is 0.5"),
        ({"concurrency": float("nan")}, "concurrency is nan"),
        ({"rate_rps": -1.0}, "rate_rps is -1.0"),
        ({"rate_rps": float("inf")}, "rate_rps is inf"),
        ({"rate_rps": 1.0, "concurrency": 1}, "both a concurrency and a rate"),
    ],
)
def test_bad_loads_are_refused(given, problem):
    with pytest.raises(InputError, match=problem):
        Load(**given)


def test_what_passes_outside_the_engine_slows_a_lone_client_and_not_a_full_engine():
    plain, fronted = Prompts(clock(), 1000), Prompts(clock(front_s=0.5), 1000)
    lone = fronted.clients(1)
    assert float(lone.rate_rps * lone.ttft_s) == pytest.approx(1.0)
    assert float(lone.ttft_s - plain.clients(1).ttft_s) == pytest.approx(0.5)
    assert float(fronted.clients(100).rate_rps) == pytest.approx(float(plain.saturation_rps))
