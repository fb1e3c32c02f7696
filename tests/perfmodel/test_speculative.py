"""Speculative decoding in the clock and in steady state: what it gains, and where it stops to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.perfmodel.estimate import max_rates_rps, steady_state
from melange.perfmodel.hardware import ModelledEngine, step_clock
from melange.serving.speculation import Speculation
from melange.simulator.arrivals import Arrivals
from melange.simulator.run import play_replica
from melange.slo import Slo

CATALOG = load_catalog()
DENSE = ModelledEngine(model=CATALOG.model("llama-3.1-70b"), gpu=CATALOG.gpu("H100"), tp=8, precision="bf16")
MIXTURE = ModelledEngine(model=CATALOG.model("deepseek-v3"), gpu=CATALOG.gpu("H200"), tp=8, precision="fp8")


def gain(modelled: ModelledEngine, speculation: Speculation, clients: float) -> float:
    """Throughput in a closed loop with it over that without."""
    plain, drafting = (
        steady_state(each, 200, 1000).clients(clients).rate_rps
        for each in (modelled, replace(modelled, speculation=speculation))
    )
    return float(drafting / plain)


def test_nothing_accepted_gains_nothing():
    assert gain(DENSE, Speculation(3, 0.0), 1) < 1
    assert gain(DENSE, Speculation(3, 0.0), 64) < 1


def test_alone_it_gains_what_a_step_yields_less_the_draft():
    free = gain(DENSE, Speculation(3, 0.7, "ngram"), 1)
    assert free == pytest.approx(Speculation(3, 0.7).yielded_tokens, rel=0.05)
    assert 1.5 < gain(DENSE, Speculation(3, 0.7), 1) < free


def test_it_gains_less_the_fuller_the_batch_is():
    gains = [gain(DENSE, Speculation(3, 0.7), clients) for clients in (1, 32, 128, 512)]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] < 1.3


def test_a_mixture_touches_more_experts():
    dense, mixture = (gain(each, Speculation(3, 0.7), 8) for each in (DENSE, MIXTURE))
    assert mixture < dense


def test_tpot_throughput_and_latency_say_the_same():
    point = steady_state(replace(DENSE, speculation=Speculation(3, 0.7)), 200, 1000).clients(8)
    assert float(point.rate_rps * point.e2e_s) == pytest.approx(8, rel=0.02)
    assert float(point.e2e_s - point.ttft_s) == pytest.approx(999 * float(point.tpot_decode_s))


def test_it_meets_limits_that_are_not_met_without():
    slo = Slo(tpot_s=0.006, tpot_definition="decode")
    plain = max_rates_rps(DENSE, slo, [200], [500])
    assert not plain.any()
    assert (max_rates_rps(replace(DENSE, speculation=Speculation(3, 0.8)), slo, [200], [500]) > 0).all()


def test_it_is_not_simulated():
    clock = step_clock(replace(DENSE, speculation=Speculation(1, 0.9)))
    one = np.ones(1, dtype=np.int64)
    arrivals = Arrivals(arrival_s=np.zeros(1), input_tokens=100 * one, output_tokens=10 * one, cached_tokens=0 * one)
    with pytest.raises(InputError, match="drafts tokens"):
        play_replica(clock, arrivals)
