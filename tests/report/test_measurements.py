"""Heatmaps and tables of measured rates."""

from __future__ import annotations

from pathlib import Path

from melange.capacity.interval import Interval
from melange.measurements.file import MeasurementFile
from melange.measurements.measurement import LatencyStats, Measurement
from melange.profiler.load import Size
from melange.profiler.search import Capacity
from melange.report.measurements import render_capacities, render_profile
from melange.slo import Slo

SLO = Slo(tpot_s=0.1)


def file_of(*rows: tuple[int, float, float]) -> MeasurementFile:
    """(input tokens, rate, mean TPOT) of open loops."""
    points = tuple(
        Measurement(
            model="m", gpu="L4", input_tokens=size, output_tokens=64, offered_rps=rate, achieved_rps=rate,
            tpot_decode_s=LatencyStats(mean=tpot), samples=100,
        )
        for size, rate, tpot in rows
    )  # fmt: skip
    return MeasurementFile(path=str(Path("a.jsonl")), headers=(), points=points)


def test_a_heatmap_shows_the_interval_where_it_is_wide() -> None:
    shown = render_profile(file_of((1, 83, 0.05), (1, 143, 0.2), (2, 40, 0.05), (2, 50, 0.2), (3, 7, 0.2)), SLO)
    rows = {line.split()[0]: line.split()[1] for line in shown.splitlines() if line.strip()[:1] in ("1", "2", "3")}
    assert rows == {"1": "83..143", "2": "40", "3": "?..7"}
    assert "83..143 req/s" in " ".join(shown.split("warning:")[1].split())


def test_csv_has_both_ends() -> None:
    lines = render_profile(file_of((1, 83, 0.05), (1, 143, 0.2), (2, 40, 0.05)), SLO, output="csv").splitlines()
    assert lines[0].endswith("next_failing_rps,max_rate_rps")
    assert lines[1].endswith(",143.0,83.0")
    assert lines[2].endswith(",,40.0")


def test_a_rate_that_only_closed_loops_show_says_so() -> None:
    closed = Capacity(size=Size(1, 2), interval=Interval(low_rps=5.0, basis="closed loops"), status="open")
    assert "budget spent, closed loops only" in render_capacities([closed], SLO)
