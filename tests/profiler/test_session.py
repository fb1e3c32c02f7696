"""A whole run: durable, resumable and bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

from profiler.bench import KEY, SETTINGS, SIZES, SUBJECT, Bench

from melange.errors import EngineError
from melange.measurements.file import read_measurements
from melange.profiler.budget import Budget
from melange.profiler.journal import Journal
from melange.profiler.load import ClientHealth, Load, LoadRun, RequestRecord
from melange.profiler.loadgen import Stop, Tick
from melange.profiler.session import Progress, profile
from melange.slo import Slo


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    whole = Bench()
    expected = whole.profile(tmp_path / "whole.jsonl")
    assert all(found.low_rps > 0 and found.width < 1.6 for found in expected)
    for cut in (1, 4, 7):
        path = tmp_path / f"cut{cut}.jsonl"
        first = Bench(fail_after=cut)
        with pytest.raises(KeyboardInterrupt):
            first.profile(path)
        with path.open("ab") as file:
            file.write(b'{"record": "point", "model": "m", "inp')  # what a kill -9 leaves
        second = Bench()
        assert second.profile(path) == expected
        warm_ups = 1
        assert first.loads + second.loads == whole.loads + warm_ups
        assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert Bench().profile(tmp_path / "whole.jsonl") == expected


def test_a_finished_run_measures_nothing(tmp_path: Path) -> None:
    Bench().profile(tmp_path / "a.jsonl")
    again = Bench()
    again.profile(tmp_path / "a.jsonl")
    assert again.loads == 0


def test_another_slo_on_the_same_file_measures_only_what_it_still_needs(tmp_path: Path) -> None:
    """Its Poisson loads have an allowance of their own, however many the first SLO took."""
    path, other = tmp_path / "a.jsonl", replace(SETTINGS, slo=Slo(tpot_s=0.03), requests=1000)
    Bench().profile(path, settings=replace(SETTINGS, resolution=1.02))  # censored after all the loads it may take
    opened = [p for p in read_measurements(path).points if p.loop == "open" and p.output_tokens == 64]
    assert len(opened) >= SETTINGS.open_points
    more, alone = Bench(), Bench()
    found = more.profile(path, settings=other)
    alone.profile(tmp_path / "b.jsonl", settings=other)
    assert 0 < more.loads < alone.loads
    assert all(c.status == "bracketed" for c in found), [c.describe() for c in found]
    again = Bench()
    assert again.profile(path, settings=other) == found
    assert again.loads == 0


def test_a_budget_bounds_the_time_and_leaves_intervals(tmp_path: Path) -> None:
    bench = Bench()
    full = Bench()
    full.profile(tmp_path / "full.jsonl")
    limit = full.now * 0.4
    found = bench.profile(tmp_path / "a.jsonl", Budget(limit_s=limit, clock=lambda: bench.now))
    assert bench.now <= limit * 1.1
    assert any(c.status == "open" for c in found)
    assert len({p.input_tokens * 1000 + p.output_tokens for p in read_measurements(tmp_path / "a.jsonl").points}) == 3


def test_sizes_beyond_the_context_are_zero_and_never_sent(tmp_path: Path) -> None:
    bench = Bench()
    found = bench.profile(tmp_path / "a.jsonl", max_model_len=100)
    assert [c.status for c in found] == ["bracketed", "bracketed", "does not fit"]
    assert found[2].high_rps == 0
    points = read_measurements(tmp_path / "a.jsonl").points
    assert [p.loop for p in points if p.input_tokens == 256] == ["capacity"]


def test_neighbours_shorten_the_ladder(tmp_path: Path) -> None:
    Bench().profile(tmp_path / "a.jsonl")
    points = read_measurements(tmp_path / "a.jsonl").points
    rungs = {size: sum(p.loop == "closed" and p.input_tokens == size.input_tokens for p in points) for size in SIZES}
    first = sum(p.loop == "closed" for p in points if (p.input_tokens, p.output_tokens) == (32, 16))
    second = sum(p.loop == "closed" for p in points if (p.input_tokens, p.output_tokens) == (32, 64))
    assert second <= first, rungs


def test_progress_tells_every_load_and_every_finished_size(tmp_path: Path) -> None:
    seen: list[Progress] = []
    found = Bench().profile(tmp_path / "a.jsonl", report=seen.append)
    points = read_measurements(tmp_path / "a.jsonl").points
    assert [p.point for p in seen if p.point is not None] == list(points)
    assert tuple(p.capacity for p in seen if p.capacity is not None) == found
    assert {p.cell for p in seen} == {1, 2, 3}
    assert all(p.asked == SETTINGS.question for p in points)


def failing(load: Load, stop: Stop, tick: Tick) -> LoadRun:
    failed = RequestRecord(sent_s=0.0, scheduled_s=0.0, error="HTTP 500: no")
    return LoadRun(load=load, records=(failed,) * 3, in_flight_sent_s=(), elapsed_s=1.0)


@pytest.mark.parametrize("max_model_len", [None, 4096])
def test_a_server_that_only_fails_ends_the_run_after_few_tries_and_is_no_evidence(
    tmp_path: Path, max_model_len: int | None
) -> None:
    checks: list[str] = []
    pauses: list[float] = []
    with (
        Journal(tmp_path / "a.jsonl", KEY) as journal,
        pytest.raises(EngineError, match=r"3 sizes in a row not measured.*3 of 3 requests failed \(HTTP 500: no\)"),
    ):
        profile(
            SIZES, SETTINGS, journal=journal, measure=failing, subject=SUBJECT, budget=Budget(),
            check=lambda: checks.append("asked"), pause=pauses.append, max_model_len=max_model_len,
        )  # fmt: skip
    points = read_measurements(tmp_path / "a.jsonl").points
    assert len(points) == len(checks) == 6  # two tries a size
    assert len(pauses) == 3
    assert not any(point.valid for point in points)


def test_a_recovered_server_is_measured_by_the_next_run_as_if_nothing_had_been(tmp_path: Path) -> None:
    healthy = Bench().profile(tmp_path / "healthy.jsonl")
    path = tmp_path / "a.jsonl"
    with Journal(path, KEY) as journal, pytest.raises(EngineError):
        profile(
            SIZES, SETTINGS, journal=journal, measure=failing, subject=SUBJECT, budget=Budget(), check=lambda: None,
            pause=lambda seconds: None,
        )  # fmt: skip
    assert Bench().profile(path) == healthy


def test_a_client_that_can_do_no_more_leaves_a_lower_bound(tmp_path: Path) -> None:
    """What it could put on the server is known to hold: that size is censored, and the run does not count it as ill."""
    bench = Bench()

    def measure(load: Load, stop: Stop, tick: Tick) -> LoadRun:
        run = bench.measure(load, stop, tick)
        return (
            run
            if load.concurrency == 1
            else replace(run, health=ClientHealth(busy_share=1.0, ceiling_chunks_per_s=1.0))
        )

    with Journal(tmp_path / "a.jsonl", KEY) as journal:
        found = profile(
            SIZES, SETTINGS, journal=journal, measure=measure, subject=SUBJECT, budget=Budget(), check=lambda: None,
            pause=lambda seconds: None,
        )  # fmt: skip
    assert all(capacity.status == "censored" and capacity.low_rps > 0 for capacity in found), found
