"""Values say what they are in one line, and show themselves as small HTML tables."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from melange import (
    SimulationOptions,
    Slo,
    Trace,
    attain,
    cost_efficiency,
    estimate,
    load_catalog,
    load_profile,
    plan_fleet,
    read_profile_set,
    simulate,
    solve,
    sweep_rates,
)
from melange.files.shown import LONGEST_REPR, html_table, number, share, short_repr
from melange.planning.planner import prepare

REPRS = (
    "Plan", "WorkloadSpec", "Workload", "Profile", "ConfigProfile", "Sweep", "SweepPoint", "SimulationReport",
    "AttainReport", "Estimates", "Problem", "Solution", "Trace", "MeasurementFile", "Catalog", "CostEfficiency",
)  # fmt: skip
TABLES = ("Plan", "SimulationReport", "AttainReport", "Sweep", "Profile", "ConfigProfile", "Estimates")


@pytest.fixture(scope="module")
def values(module_spec):
    spec = module_spec
    plan, profile = plan_fleet(spec), load_profile(spec)
    problem = prepare(spec).problem
    sweep = sweep_rates(spec, [1, 4])
    quick = SimulationOptions(requests=200, replications=2)
    slo = Slo(tpot_s=0.05, tpot_definition="decode")
    found = [
        plan, spec, spec.workload, profile, next(iter(profile.configs.values())), sweep, sweep.points[0],
        simulate(plan, options=quick), attain(spec, 0.9, simulation=quick)[1],
        estimate("llama-3.1-8b", "H100", slo, input_tokens=(100, 1000), output_tokens=(100,)),
        problem, solve(problem), Trace(input_tokens=np.array([3, 5]), output_tokens=np.array([7, 9])),
        read_profile_set("melange-2024/llama-2-7b")[0], load_catalog(), cost_efficiency(spec),
    ]  # fmt: skip
    return {type(value).__name__: value for value in found}


class Cells(HTMLParser):
    """The texts of a table's cells, and whether every tag was closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data)


def cells(html):
    parser = Cells()
    parser.feed(html)
    assert parser.open == []
    return parser.texts


@pytest.mark.parametrize("name", REPRS)
def test_reprs_are_one_short_line(values, name):
    text = repr(values[name])
    assert text.startswith(f"{name}(")
    assert text.endswith(")")
    assert "\n" not in text
    assert len(text) <= LONGEST_REPR


def test_a_plan_says_fleet_cost_and_proof(values):
    plan = values["Plan"]
    assert f"${plan.cost_usd_per_hour:.2f}/h" in repr(plan)
    assert all(name in repr(plan) for name in plan.instances)
    assert plan.status in repr(plan)


def test_an_infeasible_plan_says_why(small_spec):
    none = small_spec.limited(only=["L4"], maximum={"L4": 0}).with_rate(100)
    plan = plan_fleet(none)
    assert "infeasible" in repr(plan)
    assert plan.reasons[0][:30] in " ".join(cells(plan._repr_html_()))
    assert repr(solve(prepare(none).problem)) == "Solution(infeasible)"


def test_an_empty_trace_has_a_repr():
    assert repr(Trace(input_tokens=[], output_tokens=[])) == "Trace(no requests)"


@pytest.mark.parametrize("name", TABLES)
def test_html_is_a_closed_and_small_table(values, name):
    html = values[name]._repr_html_()
    assert len(cells(html)) > 5
    assert len(html) < 5000


def test_the_plans_table_names_the_single_types(values):
    plan = values["Plan"]
    texts = cells(values["Plan"]._repr_html_())
    assert {f"{gpu} only" for gpu in plan.baselines} <= set(texts)
    assert f"{plan.cost_usd_per_hour:.2f}" in texts


def test_html_is_escaped(small_spec):
    spec = replace(small_spec, workload=replace(small_spec.workload, name="<script>alert(1)</script>"))
    html = plan_fleet(spec)._repr_html_()
    assert "<script>" not in html
    assert any("<script>" in text for text in cells(html))


def test_tables_leave_absent_cells_empty_and_escape_the_rest():
    html = html_table("a < b", ("x & y",), [(None,), ("<b>",)], ["note > 1"])
    assert "<td></td>" in html
    assert cells(html) == ["a < b", "x & y", "<b>", "note > 1"]


def test_long_texts_are_cut():
    text = short_repr("Plan", "word " * 100)
    assert len(text) <= LONGEST_REPR
    assert text.endswith(" ...)")
    assert short_repr("Plan", "two\nlines") == "Plan(two lines)"


def test_numbers_and_shares():
    assert (number(1234.5), number(None), share(0.1234), share(None)) == ("1,234.50", "", "12.3%", "")
