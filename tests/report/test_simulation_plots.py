"""Plots of a simulation."""

from __future__ import annotations

import sys
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("matplotlib")

from melange.errors import InputError, MissingExtraError
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.report.simulation_plots import write_plots
from melange.simulator.report import QueueSeries, SimulationReport
from melange.simulator.simulate import SimulationOptions, simulate


@pytest.fixture(scope="module")
def report() -> SimulationReport:
    plan = plan_fleet(load_workload("arena-120ms").with_rate(4))
    found = simulate(plan, options=SimulationOptions(requests=400, replications=1))
    queue = QueueSeries(at_s=(0.0, 1.0), waiting={"L4": (0, 1)}, running={"L4": (2, 3)}, up={"L4": (1, 1)})
    return replace(found, queue=queue, policy="a test's")


def test_the_same_report_gives_the_same_files(report, tmp_path):
    first, again = (write_plots(report, tmp_path / name / "deep") for name in "ab")
    assert [path.name for path in first] == [
        "tpot_cdf.svg", "tpot_cdf.png", "load_over_time.svg", "load_over_time.png"
    ]  # fmt: skip
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert ET.parse(first[0]).getroot().tag.endswith("svg")
    assert first[1].read_bytes().startswith(b"\x89PNG")


def test_titles_and_limits_are_drawn(report, tmp_path):
    cdf, load = (path.read_text() for path in write_plots(report, tmp_path, formats=("svg",)))
    assert f"{100 * report.attainment.mean:.2f}% keep the SLO jointly (policy a test's)" in cdf
    assert "limit 120 ms" in cdf
    assert "waiting requests" in load
    assert "L4" in load
    free = replace(report, slo={**report.slo, "tpot_s": None})
    assert "limit" not in write_plots(free, tmp_path, formats=("svg",))[0].read_text()


def test_without_a_queue_there_is_one_plot(report, tmp_path):
    written = write_plots(replace(report, queue=None), tmp_path, formats=("png",))
    assert [path.name for path in written] == ["tpot_cdf.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["tpot_cdf.png"]


def test_a_folder_that_cannot_be_made(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write plots"):
        write_plots(report, tmp_path / "file")


def test_without_matplotlib_the_extra_is_named(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="a figure needs the package matplotlib"):
        write_plots(report, tmp_path / "none")
    assert not (tmp_path / "none").exists()
