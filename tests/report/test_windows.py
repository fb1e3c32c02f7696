"""A workload's windows as a table with bars, JSON, CSV and a figure."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from melange.errors import InputError, MissingExtraError
from melange.report.windows import BAR_CELLS, bar, drift_figure, render_drift
from melange.workload.drift import Drift

DRIFT = Drift(
    start_s=np.array([0.0, 100.0, 90061.0]),
    length_s=np.array([100.0, 100.0, 200.0]),
    rate_rps=np.array([1.0, 3.0, 0.0]),
    mean_input_tokens=np.array([200.0, 400.0, np.nan]),
    mean_output_tokens=np.array([20.0, 40.0, np.nan]),
    load=np.array([0.5, 3.5, 0.0]),
    load_per_request=np.array([0.8, 1.2, np.nan]),
    variation=np.array([0.1, 0.3, np.nan]),
    variation_by_chance=np.array([0.05, 0.01, np.nan]),
)
NONE = Drift(**{name: np.zeros(0) for name in Drift.__slots__})


def test_bars():
    assert bar(1.0) == bar(7.0) == "█" * BAR_CELLS
    assert bar(0.0) == bar(-1.0) == " " * BAR_CELLS
    assert bar(0.5) == "█" * (BAR_CELLS // 2) + " " * (BAR_CELLS // 2)
    assert bar(1.5 / BAR_CELLS) == "█▌".ljust(BAR_CELLS)


def test_the_summary_counts_busy_windows_alone(small_spec):
    found = json.loads(render_drift(small_spec.workload, DRIFT, "tokens", "json"))
    assert found["load_measure"] == "tokens"
    assert found["rate_rps"] == pytest.approx(small_spec.workload.total_rate_rps)
    assert found["summary"] == pytest.approx(
        {
            "peak_rate_to_mean": 3.0,  # over (1 x 100 + 3 x 100) / 400
            "peak_load_to_mean": 3.5,
            "p95_load_to_mean": 3.5,
            "busiest_start_s": 100.0,
            "least_load_per_request": 0.8,
            "most_load_per_request": 1.2,
            "mean_variation": 0.2,
            "mean_variation_by_chance": 0.03,
            "worst_variation": 0.3,
            "worst_start_s": 100.0,
        }
    )
    assert found["windows"][2]["mean_input_tokens"] is None
    assert found["windows"][1]["load"] == 3.5


def test_the_table_tells_times_and_leaves_unknown_figures_out(small_spec):
    text = render_drift(small_spec.workload, DRIFT, "tokens", colour=False)
    rows = [line for line in text.splitlines() if line.strip().startswith(("0:", "1 d"))]
    assert [row.split("  ")[0].strip() for row in rows] == ["0:00:00", "0:01:40", "1 d 1:01:01"]
    assert "█" * BAR_CELLS in rows[1]
    assert rows[2].split()[-2:] == ["-", "-"]
    assert "Windows of 0:01:40" in text
    said = " ".join(text.split())
    assert "busiest window at 0:01:40: 3.50 times the mean load" in said
    assert "a request's load runs from 0.80 to 1.20" in said
    assert "20.0% off the whole's in the mean, 30.0% in the worst window, at 0:01:40" in said
    assert "chance alone: 3.0%" in said


def test_csv_has_a_row_a_window(small_spec):
    rows = list(csv.DictReader(io.StringIO(render_drift(small_spec.workload, DRIFT, "tokens", "csv"))))
    assert [float(row["start_s"]) for row in rows] == DRIFT.start_s.tolist()
    assert [row["variation"] for row in rows] == ["0.1", "0.3", ""]


def test_names_are_never_taken_for_markup(small_spec):
    named = replace(small_spec.workload, name="[red]x[/nosuch]")
    assert "[red]x[/nosuch]" in render_drift(named, DRIFT, "[b]", colour=False)


def test_without_windows(small_spec):
    workload = small_spec.workload
    assert "no windows" in render_drift(workload, NONE, "tokens", colour=False)
    assert json.loads(render_drift(workload, NONE, "tokens", "json"))["summary"] is None
    assert render_drift(workload, NONE, "tokens", "csv") == "start_s"
    with pytest.raises(InputError, match="has no windows to draw"):
        drift_figure(workload, NONE, "tokens")


def test_a_figure(small_spec, monkeypatch):
    image = drift_figure(small_spec.workload, DRIFT, "tokens", "svg")
    assert b"load: tokens" in image
    assert image == drift_figure(small_spec.workload, DRIFT, "tokens", "svg")
    with pytest.raises(InputError, match="a figure cannot be 'bmp'"):
        drift_figure(small_spec.workload, DRIFT, "tokens", "bmp")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="a figure"):
        drift_figure(small_spec.workload, DRIFT, "tokens")
