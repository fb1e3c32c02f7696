"""The guess of a capacity against engines whose capacity is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.capacity.guess import ABOVE_CLOSED, corrected_guess
from melange.measurements.measurement import Measurement
from melange.profiler.load import Load, Size
from melange.profiler.loadpoint import Subject, summarise
from melange.serving.config import ConfigKey
from melange.slo import Slo
from melange.testing.simulated_engine import SimulatedEngine

SIZE = Size(128, 64)
SUBJECT = Subject(key=ConfigKey("m", "g", 1, "bf16", "vllm"))


def closed(engine: SimulatedEngine, *rungs: int) -> list[Measurement]:
    loads = (Load(size=SIZE, concurrency=n, max_s=600, min_requests=10 * n) for n in rungs)
    return [summarise(engine.run(load, lambda run: False), SUBJECT) for load in loads]


@pytest.mark.parametrize("slo", [Slo(tpot_s=0.02), Slo(e2e_s=1.2), Slo(tpot_s=0.025, ttft_s=0.2, attainment=0.9)])
def test_closed_loops_promise_about_the_poisson_capacity(slo: Slo) -> None:
    engine = SimulatedEngine()
    truth = engine.true_capacity_rps(SIZE, slo, requests=4000)
    assert corrected_guess(closed(engine, 1, 4, 16, 64), slo) == pytest.approx(truth, rel=0.25)


def test_a_poisson_load_that_shows_more_latency_lowers_the_guess() -> None:
    engine, slo = SimulatedEngine(), Slo(tpot_s=0.02)
    ladder = closed(engine, 1, 4, 16, 64)
    plain = corrected_guess(ladder, slo)
    load = Load(size=SIZE, rate_rps=5.0, max_s=300, min_requests=80)
    seen = summarise(SimulatedEngine(step_s=0.015).run(load, lambda run: False), SUBJECT)
    lowered = corrected_guess([*ladder, seen], slo)
    assert plain is not None
    assert lowered is not None
    assert lowered < 0.95 * plain


def test_no_guess_exceeds_the_closed_loops_throughput_by_much() -> None:
    ladder = closed(SimulatedEngine(max_sequences=4), 1, 4, 16)
    guess = corrected_guess(ladder, Slo())
    assert guess is not None
    assert guess <= ABOVE_CLOSED * max(p.achieved_rps for p in ladder)


def test_without_valid_closed_loops_there_is_no_guess() -> None:
    ladder = closed(SimulatedEngine(), 1, 4)
    assert corrected_guess([], Slo(tpot_s=0.02)) is None
    assert corrected_guess([replace(p, valid=False) for p in ladder], Slo(tpot_s=0.02)) is None
