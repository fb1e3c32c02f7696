"""Sweeps as text and figures."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest

from melange import InputError
from melange.analysis.sweep import sweep_prices, sweep_rates
from melange.errors import MissingExtraError
from melange.report.sweeps import render_sweep, sweep_figure


@pytest.fixture
def sweep(small_spec):
    return sweep_rates(small_spec.limited(maximum={"L4": 1}, only=("L4",)), [0.05, 100])


def test_json_has_a_row_a_point(sweep):
    data = json.loads(render_sweep(sweep, "json"))
    assert data["axis"] == "rate_rps"
    good, bad = data["points"]
    assert good["instances"] == {"L4": 1}
    assert good["cost_usd_per_hour"] == good["single_type_cost_usd_per_hour"]["L4"] == 0.7
    assert good["reason"] is None
    assert bad["status"] == "infeasible"
    assert bad["cost_usd_per_hour"] is None
    assert bad["reason"]


def test_csv_agrees_with_json(small_spec):
    sweep = sweep_rates(small_spec, [1, 5])
    rows = list(csv.DictReader(io.StringIO(render_sweep(sweep, "csv"))))
    points = json.loads(render_sweep(sweep, "json"))["points"]
    for row, point in zip(rows, points, strict=True):
        assert float(row["rate_rps"]) == point["rate_rps"]
        assert float(row["cost_usd_per_hour"]) == point["cost_usd_per_hour"]
        assert dict(part.split("=") for part in row["instances"].split()) == {
            name: str(count) for name, count in point["instances"].items()
        }
        for gpu, cost in point["single_type_cost_usd_per_hour"].items():
            assert float(row[f"{gpu}_only_usd_per_hour"]) == cost


def test_table_names_reasons_and_warnings(sweep):
    text = render_sweep(sweep, colour=False)
    assert "1 x L4" in text
    assert "none" in text
    assert "req/s 100:" in text
    assert "warning:" in text


@pytest.mark.parametrize(("name", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures(sweep, name, magic):
    assert sweep_figure(sweep, name).startswith(magic)


def test_a_figure_of_prices(small_spec):
    assert sweep_figure(sweep_prices(small_spec, "H100", [2, 4]), "svg").count(b"price of one H100")


def test_figure_formats_are_named(sweep):
    with pytest.raises(InputError, match="use one of png, svg, pdf"):
        sweep_figure(sweep, "bmp")


def test_a_figure_without_matplotlib_names_the_extra(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[notebooks\]'"):
        sweep_figure(sweep)
