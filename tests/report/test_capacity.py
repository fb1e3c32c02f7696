"""What given machines carry, as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from melange.attainment.given_machines import MachineRates, WayRate
from melange.report.capacity import render_capacity

BEST = WayRate(
    label="2 x TP 4", precision="fp8", is_open=True, replicas={"box/tp4/fp8": 2}, program_rps=0.0, simulated_rps=7.27,
    attainment=0.953,
)  # fmt: skip
OTHER = WayRate(label="1 x TP 8", precision="bf16", is_open=False, replicas={"box/tp8": 1}, program_rps=1.91)
RATES = MachineRates(
    workload="box", model="llama-3.1-70b", machines={"my-box": 1}, cost_usd_per_hour=20.0, slo_text="95%",
    target=0.95, ways=(BEST, OTHER), resolution=0.02, requests=5000, replications=4, seed=3, arrivals="poisson",
    policy="shares", left_out=("TP 1: does not fit",), warnings=("estimated",),
)  # fmt: skip


def test_the_best_way_comes_first_and_every_way_has_its_row():
    text = render_capacity(RATES, colour=False)
    assert text.startswith("1 x my-box at $20.00/h, llama-3.1-70b, 95%:\n7.27 req/s as 2 x TP 4, fp8")
    row = next(line for line in text.splitlines() if line.startswith("2 x TP 4 (best)"))
    assert "95.30%" in row
    assert "bf16 (not asked for)" in text
    assert "left out: TP 1: does not fit" in text
    assert text.splitlines()[-1] == "warning: estimated"


def test_without_simulation_nothing_is_said_of_it():
    text = render_capacity(replace(RATES, ways=(OTHER,)), colour=False)
    assert "no rate at the precision that the workload leaves open" in text
    assert "simulated:" not in text


def test_json_holds_the_same_figures():
    found = json.loads(render_capacity(RATES, "json"))
    assert [way["simulated_rps"] for way in found["ways"]] == [7.27, None]
    assert found["machines"] == {"my-box": 1}
