"""The interval of a size: contradictions, repeats, closed loops, and that search and profile mean the same by it."""

from __future__ import annotations

import math

import pytest

from melange.capacity.interval import interval_of
from melange.capacity.profile import profile_from
from melange.capacity.verdict import judge
from melange.measurements.measurement import LatencyStats, Measurement
from melange.profiler.load import Size
from melange.profiler.loadpoint import Subject, summarise
from melange.profiler.search import Capacity, SearchSettings, capacity_so_far, next_step
from melange.serving.config import ConfigKey
from melange.slo import Slo
from melange.testing.simulated_engine import SimulatedEngine

SLO = Slo(tpot_s=0.1)
SUBJECT = Subject(key=ConfigKey("m", "L4", 1, "bf16", "vllm"))
SIZE = Size(128, 64)


def at(rate: float, tpot: float, **more: object) -> Measurement:
    stats = LatencyStats(mean=tpot)
    closed = "concurrency" in more
    values: dict[str, object] = {"loop": "closed"} if closed else {"offered_rps": rate}
    return Measurement(
        model="m", gpu="L4", input_tokens=128, output_tokens=64, achieved_rps=rate,
        tpot_decode_s=stats, ttft_s=stats, e2e_s=stats, **{"samples": 100, **values, **more},  # type: ignore[arg-type]
    )  # fmt: skip


def ends(*points: Measurement, slo: Slo = SLO) -> tuple[float, float | None, str]:
    found = interval_of(points, slo)
    return found.low_rps, found.high_rps, found.basis


def test_between_the_highest_that_holds_and_the_lowest_that_fails() -> None:
    assert ends(at(1, 0.05), at(2, 0.08), at(3, 0.2), at(5, 0.9)) == (2, 3, "open loops")
    assert ends(at(1, 0.05)) == (1, None, "open loops")
    assert ends(at(3, 0.2)) == (0, 3, "open loops")
    assert ends() == (0, None, "nothing")


def test_contradicting_verdicts_are_all_spanned() -> None:
    assert ends(at(1, 0.05), at(2, 0.2), at(3, 0.05), at(4, 0.2)) == (1, 4, "open loops")


def test_a_longer_load_supersedes_a_shorter_one_at_its_rate() -> None:
    short, long = at(2, 0.05, duration_s=10.0), at(2, 0.2, duration_s=40.0)
    assert ends(at(1, 0.05), short, long) == ends(at(1, 0.05), long, short) == (1, 2, "open loops")


def test_a_run_without_a_finished_request_bounds_nothing() -> None:
    """A server that hangs looks just so."""
    assert ends(at(1, 0.05), at(9, 0.05, valid=False, saturated=True)) == (1, None, "open loops")


def test_a_load_of_which_too_many_failed_neither_bounds_nor_supersedes() -> None:
    ill = at(1, 0.5, failures=100, samples=230, duration_s=1e6)
    assert not ill.valid
    assert ill.invalid_reason == "100 of 330 requests failed"
    assert ends(ill) == (0, None, "nothing")
    assert ends(at(1, 0.05), ill) == ends(ill, at(1, 0.05)) == (1, None, "open loops")
    assert ends(at(1, 0.5, concurrency=1, failures=3, samples=3)) == (0, None, "nothing")  # not 0..0


def test_closed_loops_stand_in_where_no_open_one_was_run() -> None:
    rungs = [at(1, 0.05, concurrency=1), at(5, 0.06, concurrency=8), at(4, 0.2, concurrency=32)]
    assert ends(*rungs) == (5, None, "closed loops")
    assert interval_of(rungs, SLO).width == math.inf
    assert ends(*rungs, at(3, 0.05)) == (3, None, "open loops")


def test_zero_only_where_a_lone_request_fails_and_nothing_holds() -> None:
    lone = at(0.2, 0.5, concurrency=1)
    assert ends(lone, at(1, 0.5)) == (0, 0, "lone request")
    assert ends(lone, at(1, 0.05)) == (1, None, "open loops")
    assert ends(lone, at(0.3, 0.05, concurrency=1)) == (0.3, None, "closed loops")


@pytest.fixture(scope="module")
def searched() -> list[Measurement]:
    """All points of a coarse search: short loads, of which several decide nothing."""
    engine = SimulatedEngine(noise=0.05)
    settings = SearchSettings(slo=Slo(tpot_s=0.02), resolution=1.05, requests=200, point_s=60)
    points: list[Measurement] = []
    while not isinstance(step := next_step(SIZE, points, settings), Capacity):
        run = engine.run(step, lambda run: judge(summarise(run, SUBJECT), settings.slo) != "undecided")
        points.append(summarise(run, SUBJECT))
    assert {judge(p, settings.slo) for p in points if p.loop == "open"} == {"pass", "fail", "undecided"}
    return points


SLOS = [Slo(), Slo(ttft_s=0.05), Slo(ttft_s=0.001), Slo(e2e_s=1.2), Slo(tpot_s=0.02, ttft_s=0.1, attainment=0.9)]
SLOS += [Slo(tpot_s=0.001 * n) for n in range(12, 40, 3)]


@pytest.mark.parametrize("slo", SLOS, ids=lambda slo: slo.describe())
def test_search_and_profile_say_the_same_of_any_slo(searched: list[Measurement], slo: Slo) -> None:
    for kept in (searched, searched[:3], searched[:-2]):
        found = capacity_so_far(SIZE, kept, SearchSettings(slo=slo))
        (table,) = profile_from(kept, slo).configs.values()
        rate, failing = float(table.max_rate_rps[0, 0]), float(table.next_failing_rps[0, 0])
        assert failing == found.high_rps or (math.isnan(failing) and found.high_rps is None)
        assert rate == found.low_rps or (math.isnan(rate) and found.low_rps == 0 and found.status != "unreachable")


def test_an_undecided_load_confirms_nothing(searched: list[Measurement]) -> None:
    slo = Slo(tpot_s=0.02)
    opened = [p for p in searched if p.loop == "open"]
    undecided = [p for p in opened if judge(p, slo) == "undecided"]
    assert interval_of(undecided, slo).point is None
    (table,) = profile_from(undecided, slo).configs.values()
    assert math.isnan(table.max_rate_rps[0, 0])
