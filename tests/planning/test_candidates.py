"""Which configurations an estimate tries: every GPU on offer, every degree, and the token budgets that are of use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange import (
    InputError,
    InstanceType,
    Limits,
    PriceChoice,
    ProfileChoice,
    ServingChoice,
    Slo,
    load_workload,
    plan_fleet,
)
from melange.catalog.hardware import load_catalog
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.profile import bare_tables
from melange.planning.candidates import Machines, candidates, machines_of, precisions_of, useful, with_sequences
from melange.serving.engine_settings import default_settings

CATALOG = load_catalog()
MODEL = CATALOG.model("llama-3.1-8b")


def offer(gpu, gpus, name=None):
    return InstanceType(name=name or f"{gpu}x{gpus}", gpu=gpu, gpus=gpus, price_usd_per_hour=1.0, memory_gib=20.0)


def test_every_gpu_on_offer_is_tried_at_every_degree_of_its_machines():
    machines = machines_of([offer("L4", 1), offer("H100", 8), offer("H100", 2)], Limits(), CATALOG)
    found, left_out = candidates(MODEL, machines, ServingChoice(), Calibration(), CATALOG)
    assert {(m.gpu.name, m.tp) for m in found} == {("L4", 1), *(("H100", tp) for tp in (1, 2, 4, 8))}
    assert {m.precision for m in found} == {"bf16"}
    assert {e.gpu for e in left_out if e.reason == "no offer"} == set(CATALOG.gpus) - {"L4", "H100"}
    assert {(e.gpu, e.tp) for e in left_out if e.reason == "no machine"} == {("L4", 2), ("L4", 4), ("L4", 8)}


def test_limits_leave_out_by_any_name_and_say_so():
    offers = [offer("L4", 1, "g6.xlarge"), offer("H100", 8), offer("A100-40GB", 1)]
    machines = machines_of(offers, Limits(only=("g6.xlarge", "a100"), exclude=("A100-40GB",)), CATALOG)
    assert dict(machines.most_gpus) == {"L4": 1}
    assert {e.gpu for e in machines.left_out if e.reason == "not allowed"} == {"H100", "A100-40GB"}


def test_what_does_not_fit_is_left_out_with_how_much_is_missing():
    big = CATALOG.model("llama-3.1-70b")
    found, left_out = candidates(big, Machines(most_gpus={"H100": 2}), ServingChoice(), Calibration(), CATALOG)
    assert {m.tp for m in found} == {2}
    missing = [e for e in left_out if e.reason == "does not fit"]
    assert {e.tp for e in missing} == {1}
    assert all("GiB" in e.detail and e.precision == "bf16" for e in missing)


def test_precisions():
    h100, t4 = CATALOG.gpu("H100"), CATALOG.gpu("T4")
    assert precisions_of(MODEL, h100, ServingChoice()) == ("bf16",)
    assert precisions_of(MODEL, t4, ServingChoice()) == ("fp16",)  # computes no bf16
    assert precisions_of(MODEL, h100, ServingChoice(precisions=("any",))) == ("bf16", "fp8", "int8")
    assert precisions_of(MODEL, h100, ServingChoice(precisions=("fp8", "int4"))) == ("fp8", "int4")
    with pytest.raises(InputError, match="did you mean fp8"):
        ServingChoice(precisions=("fp9",))
    with pytest.raises(InputError, match="stands alone"):
        ServingChoice(precisions=("any", "fp8"))


def test_named_budgets_and_kv_dtypes_are_the_ones_tried():
    serving = ServingChoice(batched_tokens=(2048, 512), kv_dtypes=("auto", "fp8"))
    found, _ = candidates(MODEL, Machines(most_gpus={"L4": 1}), serving, Calibration(), CATALOG)
    assert {(m.key.max_batched_tokens, m.key.kv_dtype) for m in found} == {
        (budget, kv)
        for budget in (None, 512)
        for kv in ("auto", "fp8")  # 2048 is the engine's own on an L4
    }
    by_key = {(m.max_batched_tokens, m.kv_dtype): m.engine for m in found}
    assert by_key[512, "fp8"].max_batched_tokens == 512
    assert by_key[None, "fp8"].kv_bytes_per_element == 1.0


def test_named_numbers_of_sequences_are_the_ones_tried():
    serving = ServingChoice(batched_tokens=(2048, 64), sequences=(128, 256))
    found, _ = candidates(MODEL, Machines(most_gpus={"L4": 1}), serving, Calibration(), CATALOG)
    # 2048 tokens and 256 sequences are the engine's own on an L4; 64 tokens hold no 128 sequences.
    assert [(m.key.max_batched_tokens, m.key.max_num_seqs) for m in found] == [(None, 128), (None, None), (64, None)]
    assert [m.engine.max_num_seqs for m in found] == [128, 256, 64]


def test_only_budgets_that_some_size_needs_are_kept():
    slo, sizes = Slo(tpot_s=0.03, tpot_definition="decode"), ([100.0, 4000.0], [100.0])
    engines = [
        ModelledEngine(model=MODEL, gpu=CATALOG.gpu("H100"), max_batched_tokens=budget)
        for budget in (None, 8192, 4096, 2048, 1024, 512)
    ]
    tables = bare_tables(engines, slo, *sizes, calibration=Calibration())
    loads = np.array([100.0, 4000.0]), np.array([100.0, 100.0])
    kept = useful(engines, tables, *loads)
    rates = {e.max_batched_tokens: t.rate_at(*loads) for e, t in zip(engines, tables, strict=True)}
    best = np.max(list(rates.values()), axis=0)
    reached = np.max([rates[e.max_batched_tokens] for e in kept], axis=0)
    np.testing.assert_allclose(reached, best, rtol=2e-4)
    for one in kept:  # none is matched by another everywhere
        others = [rates[e.max_batched_tokens] for e in kept if e is not one]
        assert not any((other >= rates[one.max_batched_tokens]).all() for other in others)
    assert 8192 not in {e.max_batched_tokens for e in kept}  # the H100's own: the first of equals stays


@pytest.mark.parametrize("name", ["box-70b", "box-70b-tp8"])
def test_eight_h100_serve_70b_at_degree_eight(shared, name):
    plan = plan_fleet(load_workload(shared / "cases" / f"{name}.yaml"))
    assert plan.status == "optimal"
    assert [plan.configs[config].tp for config in plan.replicas] == [8]
    assert sum(plan.utilization.values()) == pytest.approx(0.30, abs=0.01)


def test_a_70b_workload_is_answered_with_what_is_priced(small_spec):
    workload = replace(small_spec.workload, model="llama-3.1-70b", slo=Slo(tpot_s=0.05, tpot_definition="decode"))
    spec = replace(
        small_spec, workload=workload, profiles=ProfileChoice(set="estimated/llama-3.1-70b"), prices=PriceChoice()
    )
    plan = plan_fleet(spec)
    assert plan.considered is not None
    assert {"B200", "H100", "H200"} <= set(plan.considered.gpus)
    assert plan.best_single_type is not None
    assert plan.cost_usd_per_hour <= min(
        b.cost_usd_per_hour for b in plan.baselines.values() if b.cost_usd_per_hour is not None
    )


def test_no_config_is_said_of_those_considered_alone(small_spec):
    workload = replace(small_spec.workload, model="llama-3.1-8b", slo=Slo(tpot_s=0.0001, tpot_definition="decode"))
    spec = replace(
        small_spec,
        workload=workload,
        profiles=ProfileChoice(set="estimated/llama-3.1-8b"),
        prices=PriceChoice(),
        serving=ServingChoice(tp=(1,)),
        limits=Limits(fleet=("L4",)),
    )
    plan = plan_fleet(spec)
    assert plan.status == "infeasible"
    assert "no config meets" in plan.reasons[0]
    assert "considered: L4 of price set 2026-11, checkpoint precision bf16, TP 1" in plan.reasons[0]


def test_numbers_of_sequences_that_suit_the_demand_join_the_best_budget():
    slo = Slo(tpot_s=0.03, tpot_definition="decode", tpot_quantile=0.95)
    engines = [ModelledEngine(model=MODEL, gpu=CATALOG.gpu("H100"), max_batched_tokens=b) for b in (None, 4096)]
    sizes = np.array([100.0, 4000.0]), np.array([100.0, 100.0]), np.zeros(2)
    tables = bare_tables(engines, slo, sizes[0].tolist(), [100.0], calibration=Calibration())
    rates = np.ones(2)

    def found(serving=ServingChoice(), calibration=Calibration(), promise=slo):  # noqa: B008
        return with_sequences(engines, tables, serving, calibration, promise, sizes, rates)

    tried = found()
    load = [float((rates / table.rate_at(*sizes[:2])).sum()) for table in tables]
    best = engines[int(np.argmin(load))]
    assert tried
    assert {each.key._replace(max_num_seqs=None) for each in tried} == {best.key}
    more = bare_tables(tried, slo, sizes[0].tolist(), [100.0], calibration=Calibration())
    reached = np.max([table.rate_at(*sizes[:2]) for table in (*tables, *more)], axis=0)
    assert (rates / reached).sum() < 0.95 * min(load)
    assert found(ServingChoice(sequences=(64,))) == []
    assert found(calibration=Calibration(settings=default_settings(CATALOG.gpu("H100")))) == []
    assert found(promise=Slo()) == []
