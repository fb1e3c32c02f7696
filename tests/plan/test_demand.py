from __future__ import annotations

from dataclasses import replace

import pytest

from melange import InputError, plan_fleet
from melange.files.records import from_plain, to_plain
from melange.plan.demand import PlanDemand
from melange.workload.load_scale import LoadScale


def test_a_plan_says_what_it_serves_in_all(small_spec):
    workload = replace(small_spec.workload, burstiness_cv=1.5, provenance={"trace": "t.csv"})
    scale = LoadScale(margin=0.5)
    demand = plan_fleet(replace(small_spec, workload=workload).with_load_scale(scale)).workload
    assert demand == PlanDemand(
        name="small", model="llama-2-7b", rate_rps=pytest.approx(3.5 * 1.5), representative="mean",
        input_edges_tokens=(100, 1000), output_edges_tokens=(100, 500), input_tokens_per_s=pytest.approx(480 * 1.5),
        output_tokens_per_s=pytest.approx(375 * 1.5), burstiness_cv=1.5, load_scale=scale,
        provenance=demand.provenance,
    )  # fmt: skip
    assert demand.provenance["trace"] == "t.csv"


def test_what_a_source_does_not_state_is_none():
    demand = PlanDemand(name="bare", rate_rps=2.0)
    plain = to_plain(demand)
    stated = {name: value for name, value in plain.items() if value is not None}
    assert stated == {"name": "bare", "rate_rps": 2.0, "provenance": {}}
    assert demand.provenance is not PlanDemand(name="other", rate_rps=1.0).provenance


def test_its_record_is_checked_down_to_the_load_scale():
    demand = PlanDemand(name="n", rate_rps=2.0, input_edges_tokens=(10, 20), load_scale=LoadScale(margin=0.1))
    record = to_plain(demand)
    assert from_plain(PlanDemand, record, "no demand") == demand
    with pytest.raises(InputError, match=r"margin is -1"):
        from_plain(PlanDemand, {**record, "load_scale": {**record["load_scale"], "margin": -1.0}}, "no demand")
    with pytest.raises(InputError, match=r"no demand: input_edges_tokens"):
        from_plain(PlanDemand, {**record, "input_edges_tokens": [0.5]}, "no demand")
