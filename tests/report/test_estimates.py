"""Estimates, calibrations and physical limits as tables, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json

import pytest

from melange import Slo, estimate
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.limits import physical_limits
from melange.report.estimates import render_calibration, render_estimates, render_limits
from melange.serving.efficiencies import PRIORS


@pytest.fixture(scope="module")
def found():
    slo = Slo(tpot_s=0.04, tpot_definition="decode")
    return estimate("llama-3.1-8b", ["L4", "H100"], slo, input_tokens=(250, 1000), output_tokens=(100,))


def test_a_table_a_configuration_with_bands(found):
    text = " ".join(render_estimates(found).split())
    for config in found.profile.configs.values():
        assert f"{config.key.describe()}: highest requests/s of a replica" in text
        for i, rate in enumerate(config.max_rate_rps[:, 0]):
            band = f"[{config.low_rps[i, 0]:.2g}-{config.high_rps[i, 0]:.2g}]"
            assert (f"{rate:.3g} {band}" if rate else " 0 ") in text
    assert "in brackets an 80% band" in text


def test_json_holds_rates_and_load_points(found):
    data = json.loads(render_estimates(found, "json"))
    assert [row["gpu"] for row in data["rates"]] == ["L4", "H100"]
    assert data["points"] == [point.to_dict() for point in found.points]
    assert data["notes"] == list(found.notes)
    assert data["slo"] == found.profile.slo.to_dict()


def test_csv_is_the_load_points_with_latencies_spread_out(found):
    rows = list(csv.DictReader(io.StringIO(render_estimates(found, "csv"))))
    assert len(rows) == len(found.points)
    assert [float(row["achieved_rps"]) for row in rows] == [point.achieved_rps for point in found.points]
    assert float(rows[0]["tpot_decode_mean_s"]) == found.points[0].to_dict()["tpot_decode_s"]["mean"]


def test_a_calibration_says_what_is_data_and_how_wrong_it_was():
    errors = {"held_out_median": 0.071, "by_gpu": {"A10G": {"median": 0.05, "points": 12}}}
    calibration = Calibration(name="mine", label="throughput-only", fitted=("gemm_scale",), errors=errors)
    text = render_calibration(calibration, "table")
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.split()}
    assert rows["gemm_scale"][3] == "data"
    assert rows["overhead_s"][3] == "prior"
    assert set(PRIORS) <= set(rows)
    assert rows["A10G"] == ["A10G", "5.0%", "12"]
    assert "Median error on held-out points: 7.1%" in text
    assert "Throughput only:" in text
    assert "bound by" not in text
    assert json.loads(render_calibration(calibration, "json"))["name"] == "mine"
    bare = render_calibration(Calibration(), "table")
    assert "held-out points: unknown" in bare
    assert "Throughput only:" not in bare


def test_limits_mark_what_cannot_be():
    sizes = {"model": "llama-2-7b", "gpu": "L4", "input_tokens": 500.0, "output_tokens": 100.0, "loop": "capacity"}
    points = [Measurement(**sizes, achieved_rps=rate) for rate in (0.5, 1e4)]
    limits = physical_limits(points)
    rows = json.loads(render_limits(limits, "json"))["limits"]
    assert [row["impossible"] for row in rows] == [False, True]
    assert [row["achieved_rps"] for row in rows] == [0.5, 1e4]
    for row, limit in zip(rows, limits, strict=True):
        assert row["optimum_rps"] == pytest.approx(limit.optimum_rps, rel=1e-4)
        assert row["share"] == pytest.approx(limit.share, rel=1e-3)
    text = render_limits(limits, "table").splitlines()
    assert ["IMPOSSIBLE" in line for line in text[-2:]] == [False, True]
    assert f"{100 * limits[0].share:.0f}%" in text[-2]
    assert len(render_limits(limits, "csv").splitlines()) == 3
    assert render_limits([], "csv") == ""
