"""Percentiles as a promise, against the joint promise of the same: on every shipped workload, and by the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from melange import ProfileChoice, load_workload, plan_fleet
from melange.catalog.hardware import load_catalog
from melange.perfmodel.estimate import max_rates_rps
from melange.perfmodel.hardware import ModelledEngine
from melange.plan.file import plan_of_record, plan_record
from melange.planning.spec import WorkloadSpec
from melange.slo import Slo

SHIPPED = ("arena-120ms", "arena-120ms-mean", "azure-code", "azure-conversation", "mooncake-conversation")
LIMITS: dict[str, Any] = {"ttft_s": 1.0, "tpot_s": 0.06}
SIZES = np.meshgrid([50.0, 700.0, 6000.0], [1.0, 40.0, 900.0], indexing="ij")


def each(share: float, **limits: float) -> Slo:
    return Slo(**limits, **{name.replace("_s", "_quantile"): share for name in limits})  # type: ignore[arg-type]


@pytest.mark.parametrize("gpu", ["L4", "H100"])
def test_rates_of_percentiles_lie_between_the_joint_promise_and_a_looser_one(gpu: str) -> None:
    catalog = load_catalog()
    modelled = ModelledEngine(model=catalog.model("llama-3.1-8b"), gpu=catalog.gpu(gpu), tp=1, precision="fp8")

    def rates(slo: Slo) -> Any:
        return max_rates_rps(modelled, slo, *SIZES)

    joint, alone = rates(Slo(**LIMITS, attainment=0.95)), rates(each(0.95, **LIMITS))
    assert (joint <= alone).all()
    assert (joint < alone).any()
    assert (alone <= rates(each(0.9, **LIMITS))).all()
    singles = []
    for name, limit in LIMITS.items():
        singles.append(rates(Slo(**{name: limit}, attainment=0.95)))
        assert (rates(each(0.95, **{name: limit})) == singles[-1]).all()
    np.testing.assert_allclose(alone, np.minimum(*singles), rtol=1e-3)


def shipped(name: str) -> WorkloadSpec:
    spec = load_workload(name)
    if spec.workload.model == "llama-2-7b":  # its published throughputs say nothing of any SLO
        spec = replace(spec, profiles=ProfileChoice(set="estimated/llama-2-7b"))
    return spec


@pytest.mark.parametrize("name", SHIPPED)
def test_a_percentile_of_each_is_never_dearer_than_the_same_jointly(name: str) -> None:
    spec = shipped(name)
    limits = LIMITS | {"ttft_s": 8.0 if name.startswith("mooncake") else 1.0}
    looser = [each(0.9, **limits)] if name == "azure-conversation" else []
    slos = (*looser, each(0.95, **limits), Slo(**limits, attainment=0.95))
    costs = [plan_fleet(spec.with_slo(slo)).cost_usd_per_hour for slo in slos]
    assert all(cost is not None for cost in costs)
    assert costs == sorted(costs, key=lambda cost: cost or 0.0)


def test_a_percentile_of_one_latency_is_its_joint_promise_and_comes_back_from_plan_json() -> None:
    spec = shipped("azure-code")
    alone, joint = (
        plan_fleet(spec.with_slo(slo)) for slo in (each(0.95, ttft_s=1.0), Slo(ttft_s=1.0, attainment=0.95))
    )
    assert (alone.instances, alone.cost_usd_per_hour) == (joint.instances, joint.cost_usd_per_hour)
    assert [bucket.max_rate_rps for bucket in alone.buckets] == [bucket.max_rate_rps for bucket in joint.buckets]
    assert plan_of_record(plan_record(alone)).slo == alone.slo
