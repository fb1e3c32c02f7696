"""From the records of a load to a load point."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.capacity.verdict import judge
from melange.profiler.load import ClientHealth, Load, LoadRun, RequestRecord, Size
from melange.profiler.loadpoint import (
    Subject,
    client_bottleneck,
    look_confidence,
    prefix_cache_fault,
    statistic_text,
    summarise,
    told_cached_tokens,
)
from melange.serving.config import ConfigKey
from melange.slo import Slo
from melange.testing.simulated_engine import SimulatedEngine

SUBJECT = Subject(key=ConfigKey("m", "g", 1, "bf16", "vllm"))
SIZE = Size(128, 64)


def test_overload_is_cut_short() -> None:
    load = Load(size=SIZE, rate_rps=60, max_s=100, min_requests=80)
    slo = Slo(tpot_s=1.0)
    run = SimulatedEngine(max_sequences=32).run(load, lambda run: judge(summarise(run, SUBJECT), slo) != "undecided")
    assert run.elapsed_s <= 50
    assert summarise(run, SUBJECT).saturated


def test_unfinished_requests_bias_nothing() -> None:
    long = [RequestRecord(sent_s=0.1 * n, scheduled_s=0.1 * n) for n in range(5)]
    done = [
        replace(r, first_s=r.sent_s + 0.1, end_s=r.sent_s + 1.0, output_tokens=10, input_tokens=5) for r in long[:3]
    ]
    late = RequestRecord(sent_s=9.0, scheduled_s=9.0, first_s=9.01, end_s=9.1, output_tokens=10)
    load = Load(size=Size(5, 10), rate_rps=1.0, max_s=10)
    run = LoadRun(load=load, records=(*done, late), in_flight_sent_s=(0.3, 0.4), elapsed_s=10)
    point = summarise(run, SUBJECT)
    assert point.samples == 3  # the quick late one came after the oldest that is still running
    assert point.e2e_s is not None
    assert point.e2e_s.mean == pytest.approx(1.0)


def test_failures_make_a_load_invalid_with_its_reason() -> None:
    engine = SimulatedEngine()
    load = Load(size=SIZE, rate_rps=2, max_s=300, min_requests=80)
    run = engine.run(load, lambda run: False)
    good = summarise(run, SUBJECT)
    slo = Slo(tpot_s=0.02)
    assert judge(good, slo) == "pass"
    failing = tuple(
        RequestRecord(sent_s=r.sent_s, scheduled_s=r.sent_s, error="HTTP 500: no") if n % 10 == 0 else r
        for n, r in enumerate(run.records)
    )
    bad = summarise(replace(run, records=failing), SUBJECT)
    assert bad.failures == len([r for r in failing if not r.ok])
    assert not bad.valid
    assert bad.invalid_reason is not None
    assert "requests failed (HTTP 500: no)" in bad.invalid_reason
    assert judge(bad, slo) == judge(bad, Slo(tpot_s=1e-6)) == "undecided"
    assert bad.extra["errors"] == {"HTTP 500: no": bad.failures}


def test_a_busy_client_makes_a_point_invalid() -> None:
    engine = SimulatedEngine()
    run = engine.run(Load(size=SIZE, rate_rps=2, max_s=100, min_requests=20), lambda run: False)
    health = ClientHealth(busy_share=0.95, ceiling_chunks_per_s=10_000)
    point = summarise(replace(run, health=health), SUBJECT)
    assert not point.valid
    assert point.invalid_reason is not None
    assert "10000 chunks/s" in point.invalid_reason
    assert judge(point, Slo(tpot_s=1.0)) == "undecided"
    assert client_bottleneck(ClientHealth(busy_share=0.2, lag_p99_s=0.05), ttft_s=0.05) is not None
    assert client_bottleneck(ClientHealth(busy_share=0.2, lag_p99_s=0.004), ttft_s=0.001) is None


def test_exact_and_closed_loop_throughput() -> None:
    engine = SimulatedEngine(max_sequences=8)
    run = engine.run(Load(size=SIZE, concurrency=32, max_s=1000, min_requests=400), lambda run: False)
    assert summarise(run, SUBJECT).achieved_rps == pytest.approx(engine.saturation_rps(SIZE), rel=0.03)
    lone = summarise(engine.run(Load(size=SIZE, concurrency=1, max_s=100, min_requests=5), lambda run: False), SUBJECT)
    assert lone.e2e_s is not None
    assert lone.e2e_s.mean == pytest.approx(engine.lone_e2e_s(SIZE))


def test_what_verdicts_need_is_recorded_with_the_point() -> None:
    load = Load(size=SIZE, rate_rps=2, max_s=300, min_requests=80)
    run = SimulatedEngine().run(load, lambda run: False)
    point = summarise(run, SUBJECT)
    assert (point.nominal_rps, point.confidence) == (2.0, round(look_confidence(run), 6))
    assert point.queue_growth_low_rps is not None
    assert point.queue_growth_rps is not None
    assert point.queue_growth_high_rps is not None
    assert point.queue_growth_low_rps <= point.queue_growth_rps <= point.queue_growth_high_rps
    closed = summarise(SimulatedEngine().run(Load(size=SIZE, concurrency=4, max_s=99), lambda run: False), SUBJECT)
    assert (closed.nominal_rps, closed.queue_growth_low_rps, closed.queue_growth_high_rps) == (None, None, None)


def test_early_looks_need_more_confidence_and_the_last_95_percent() -> None:
    run = SimulatedEngine().run(Load(size=SIZE, rate_rps=2, max_s=100), lambda run: False)
    early, late = (look_confidence(replace(run, elapsed_s=share * 100)) for share in (0.1, 1.0))
    assert 0.95 <= late < early < 1


def test_cached_prompts_that_contradict_the_load_are_a_fault() -> None:
    assert prefix_cache_fault(Size(64, 1, 32), None) is None
    assert prefix_cache_fault(Size(64, 1, 32), 30.0) is None
    assert "turn prefix caching on" in (prefix_cache_fault(Size(64, 1, 32), 3.0) or "")
    assert "restart it" in (prefix_cache_fault(Size(64, 1, 0), 60.0) or "")


def test_a_server_that_tells_of_some_prompts_means_none_of_the_others() -> None:
    told = [RequestRecord(sent_s=0, scheduled_s=0, cached_tokens=cached) for cached in (None, 30, 60)]
    assert told_cached_tokens(told) == 30.0
    assert told_cached_tokens(told[:1]) is None


def test_the_statistic_is_told_against_its_limit() -> None:
    load = Load(size=SIZE, concurrency=1, max_s=100, min_requests=5)
    point = summarise(SimulatedEngine().run(load, lambda run: False), SUBJECT)
    assert statistic_text(point, Slo(tpot_s=0.02)) == "TPOT 12.6/20 ms"
    assert statistic_text(point, Slo(ttft_s=1.0, attainment=0.9)).endswith("attained 100.0/90%")
    assert statistic_text(point, Slo()) == f"{point.achieved_rps:.3g} req/s"
