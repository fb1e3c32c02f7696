"""The search on a simulated engine whose capacity is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.capacity.verdict import judge
from melange.measurements.measurement import Measurement
from melange.profiler.load import Load, Size
from melange.profiler.loadpoint import Subject, summarise
from melange.profiler.search import Capacity, SearchSettings, capacity_so_far, next_step
from melange.serving.config import ConfigKey
from melange.slo import Slo
from melange.testing.simulated_engine import SimulatedEngine

SUBJECT = Subject(key=ConfigKey("m", "g", 1, "bf16", "vllm"))
SIZE = Size(128, 64)


def search(
    engine: SimulatedEngine, settings: SearchSettings, points: list[Measurement] | None = None, size: Size = SIZE
) -> tuple[Capacity, list[Measurement]]:
    points = [] if points is None else points
    while True:
        step = next_step(size, points, settings)
        if isinstance(step, Capacity):
            return step, points
        run = engine.run(step, lambda run: judge(summarise(run, SUBJECT), settings.slo) != "undecided")
        points.append(summarise(run, SUBJECT))


@pytest.mark.parametrize(
    "slo",
    [
        Slo(tpot_s=0.02),
        Slo(tpot_s=0.03, tpot_definition="e2e_per_token"),
        Slo(ttft_s=0.03),
        Slo(tpot_s=0.025, ttft_s=0.2, attainment=0.9),
        Slo(tpot_s=0.025, ttft_s=0.05, tpot_quantile=0.9, ttft_quantile=0.95),
    ],
    ids=lambda slo: slo.describe(),
)
def test_bracket_holds_the_truth(slo: Slo) -> None:
    engine = SimulatedEngine()
    truth = engine.true_capacity_rps(SIZE, slo, requests=4000)
    found, points = search(engine, SearchSettings(slo=slo, resolution=1.4, requests=1000, point_s=600))
    assert found.status == "bracketed", found.describe()
    assert found.low_rps <= 1.05 * truth
    assert found.high_rps is not None
    assert found.high_rps >= 0.95 * truth
    assert found.width <= 1.4
    assert any(p.loop == "closed" for p in points)


def test_saturation_without_an_slo_and_where_tpot_does_not_see_it() -> None:
    engine = SimulatedEngine(max_sequences=4)
    truth = engine.saturation_rps(SIZE)
    for slo in (Slo(), Slo(tpot_s=0.1)):
        found, _ = search(engine, SearchSettings(slo=slo, resolution=1.4, requests=1000, point_s=1000))
        assert found.low_rps <= 1.03 * truth
        assert found.high_rps is not None
        assert 0.97 * truth <= found.high_rps <= 1.6 * truth


def test_an_slo_that_no_load_meets_is_zero_not_an_error() -> None:
    found, points = search(SimulatedEngine(), SearchSettings(slo=Slo(tpot_s=0.001), point_s=60))
    assert (found.status, found.low_rps, found.high_rps) == ("unreachable", 0.0, 0.0)
    assert {p.concurrency for p in points} == {1.0}


def test_one_slow_lone_run_alone_does_not_condemn_a_size() -> None:
    settings = SearchSettings(slo=Slo(tpot_s=0.02), point_s=60)
    load = next_step(SIZE, [], settings)
    assert isinstance(load, Load)
    slow = SimulatedEngine(step_s=0.2).run(load, lambda run: False)
    again = next_step(SIZE, [summarise(slow, SUBJECT)], settings)
    assert isinstance(again, Load)
    assert again.concurrency == 1
    assert again.seed != load.seed


def test_points_of_one_slo_serve_the_next() -> None:
    engine = SimulatedEngine()
    settings = SearchSettings(slo=Slo(tpot_s=0.02), resolution=1.4, requests=1000, point_s=600)
    _, points = search(engine, settings)
    before = len(points)
    _, again = search(engine, settings, points)
    assert len(again) == before
    other = replace(settings, slo=Slo(tpot_s=0.0201))
    _, more = search(engine, other, list(points))
    _, alone = search(engine, other)
    assert len(more) - before < len(alone)


def test_a_search_cut_anywhere_ends_where_the_whole_one_does() -> None:
    engine = SimulatedEngine()
    settings = SearchSettings(slo=Slo(tpot_s=0.02), resolution=1.4, requests=400, point_s=600)
    whole, points = search(engine, settings)
    for cut in range(len(points)):
        restored = [Measurement.from_dict(point.to_dict()) for point in points[:cut]]
        assert search(engine, settings, restored)[0] == whole


def test_the_ladder_starts_where_a_hint_says() -> None:
    engine = SimulatedEngine()
    settings = SearchSettings(slo=Slo(tpot_s=0.02), point_s=60)
    load = next_step(SIZE, [], settings)
    assert isinstance(load, Load)
    lone = [summarise(engine.run(load, lambda run: False), SUBJECT)]
    plain, hinted = next_step(SIZE, lone, settings), next_step(SIZE, lone, settings, hint_rps=8.0)
    assert isinstance(plain, Load)
    assert isinstance(hinted, Load)
    assert (plain.concurrency, hinted.concurrency) == (4, 6)  # 8 req/s x 0.8 s


def test_capacity_interval_of_nothing_is_open() -> None:
    found = capacity_so_far(SIZE, [], SearchSettings(slo=Slo(tpot_s=1.0)))
    assert (found.low_rps, found.high_rps, found.status) == (0.0, None, "open")


def test_contradicting_verdicts_widen_the_bracket() -> None:
    engine, slo = SimulatedEngine(), Slo(tpot_s=0.02)
    settings = SearchSettings(slo=slo, resolution=1.05, requests=1000, point_s=600)
    _, points = search(engine, replace(settings, resolution=1.4))
    opened = [p for p in points if p.loop == "open"]
    good = next(p for p in opened if judge(p, slo) == "pass")
    bad = next(p for p in opened if judge(p, slo) == "fail")

    def asked(point: Measurement, rate: float) -> Measurement:
        return replace(point, nominal_rps=rate)

    contradicting = [asked(good, 5.0), asked(good, 12.0), asked(bad, 10.0), asked(bad, 15.0)]
    found = capacity_so_far(SIZE, contradicting, settings)
    assert (found.low_rps, found.high_rps) == (5.0, 15.0)
    assert capacity_so_far(SIZE, contradicting[:3], settings).high_rps is None


def test_a_short_load_against_the_guess_is_repeated_for_longer() -> None:
    engine, slo = SimulatedEngine(max_sequences=8, step_s=0.008, step_per_sequence_s=0.0001), Slo(ttft_s=0.0243)
    size = Size(128, 1000)
    repeats = 0
    for seed in range(4):
        settings = SearchSettings(slo=slo, resolution=1.4, requests=1000, point_s=9000, seed=seed)
        _, points = search(engine, settings, size=size)
        times_s: dict[float, list[float]] = {}
        for point in points:
            if point.nominal_rps is not None:
                times_s.setdefault(point.nominal_rps, []).append(point.duration_s or 0.0)
        again = [times for times in times_s.values() if len(times) > 1]
        repeats += len(again)
        assert all(len(times) == 2 and times[1] > times[0] for times in again)
    assert repeats > 0


def test_a_discrete_attainment_is_found_from_a_guess_far_off() -> None:
    engine = SimulatedEngine(step_s=0.002, step_per_sequence_s=0.001, max_sequences=128)
    slo, size = Slo(tpot_s=0.0039, ttft_s=1.0, attainment=0.9), Size(32, 16)
    truth = engine.true_capacity_rps(size, slo, requests=10_000)
    settings = SearchSettings(slo=slo, resolution=1.4, requests=1000, open_points=12, point_s=600)
    found, _ = search(engine, settings, size=size)
    assert found.low_rps <= 1.05 * truth
    assert found.high_rps is not None
    assert found.high_rps >= 0.95 * truth
    assert found.low_rps > 0.5 * truth


def test_points_of_another_question_take_nothing_from_its_allowance() -> None:
    engine, slo = SimulatedEngine(), Slo(tpot_s=0.02)
    settings = SearchSettings(slo=slo, resolution=1.02, requests=100, open_points=3, point_s=60)
    found, points = search(engine, settings)
    assert found.status == "censored"
    other = replace(settings, slo=Slo(tpot_s=0.021))
    marked = [replace(point, asked=settings.question) for point in points]
    assert isinstance(next_step(SIZE, marked, settings), Capacity)
    assert isinstance(next_step(SIZE, marked, other), Load)
    assert isinstance(next_step(SIZE, points, other), Capacity)  # points that do not say were run for any
