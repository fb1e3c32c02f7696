"""plan.json: every part of a plan comes back equal; a wrong field is one line that names the file and the field."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
from plan.builders import ATTAIN, EFFECT, UNCERTAINTY

from melange import InputError, SolveOptions, plan_fleet
from melange.capacity.basis import Basis
from melange.catalog.hardware import load_catalog
from melange.measurements.curve import CurvePoint, MeasuredCurve
from melange.plan.file import plan_of_record, plan_record, read_plan, write_plan
from melange.plan.lateness import PlanLateness
from melange.plan.plan import Plan
from melange.serving.efficiencies import Efficiencies
from melange.serving.engine_settings import VLLM_0_2
from melange.solver.problem import Status

CONTRACT = {
    "schema_version", "status", "instances", "replicas", "cost_usd_per_hour", "bound_usd_per_hour", "gap", "configs",
    "buckets", "utilization", "baselines", "best_single_type", "limits", "costs", "slo", "workload", "provenance",
}  # fmt: skip
SHAPE = replace(load_catalog().model("llama-3.1-8b"), name="mine", aliases=(), source="")
CURVE = MeasuredCurve(
    model="mine", gpu="L4", tp=1, precision="bf16", engine="vllm", engine_settings=VLLM_0_2, model_shape=SHAPE,
    points=(CurvePoint(64.0, 32.0, 0.0, "open", 2.0, 3.0, False, 0.03, None),),
)  # fmt: skip


@pytest.fixture
def plan(small_spec) -> Plan:
    """A plan with every part filled."""
    options = SolveOptions(explain=True, tie_outputs=True)
    basis = Basis(
        curves=(CURVE,), efficiencies=Efficiencies(gemm_scale=0.5), engine_settings=VLLM_0_2, engine_version="0.2.7"
    )
    solved = plan_fleet(small_spec.limited(maximum={"L4": 2}), options)
    late = PlanLateness(at_most=0.05, share=0.01, in_time_usd_per_hour=None, in_time_status=Status.UNKNOWN)
    (name,) = solved.buckets[0].shares
    moved = {"shares": {name: 0.75}, "late_shares": {name: 0.25}}
    first = replace(solved.buckets[0], **moved, late_rate_rps={name: solved.buckets[0].max_rate_rps[name]})
    return replace(
        solved, buckets=(first, *solved.buckets[1:]), lateness=late, attain=ATTAIN, uncertainty=UNCERTAINTY,
        nanobatching=EFFECT, basis=basis,
    )  # fmt: skip


@pytest.fixture
def row(plan):
    return plan_record(plan)


def test_every_part_comes_back_equal(plan, tmp_path):
    write_plan(tmp_path / "plan.json", plan)
    again = read_plan(tmp_path / "plan.json")
    assert again == plan
    assert plan.explanation is not None
    assert again.explanation == plan.explanation


# Of the fields of today, what the first plan files did not have.
SINCE_VERSION_1 = {
    "considered", "advice", "explanation", "attain", "uncertainty", "nanobatching", "windows", "lateness", "routing",
    "basis",
}  # fmt: skip


def of_version_1(row):
    """A plan file as the first version wrote it."""
    buckets = [{k: v for k, v in b.items() if k not in ("late_shares", "late_rate_rps")} for b in row["buckets"]]
    bag = {"routing": row["routing"], "attain": {"complete": True}}
    kept = {k: v for k, v in row.items() if k not in SINCE_VERSION_1}
    return kept | {"schema_version": 1, "explanation": {"lately": 1}, "extra": bag, "buckets": buckets}


def test_a_plan_of_the_first_version_is_read(small_spec, tmp_path):
    plan = plan_fleet(small_spec, SolveOptions(tie_outputs=True))
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(of_version_1(plan_record(plan))))
    assert read_plan(file) == replace(plan, considered=None, advice=None, basis=Basis())


def test_a_plan_of_the_first_version_is_verified_too(small_spec, tmp_path):
    row = of_version_1(plan_record(plan_fleet(small_spec)))
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(row | {"status": "infeasible"}))
    with pytest.raises(InputError, match=rf"^{file}: .*status is infeasible, but"):
        read_plan(file)


def test_a_plan_travels_to_other_processes(plan):
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_the_fields_of_the_contract(row):
    assert set(row) >= CONTRACT
    config = next(iter(row["configs"].values()))
    assert set(config) >= {"gpu", "instance", "tp", "price_usd_per_hour"}
    assert "aliases" not in config["hardware"]
    for bucket in row["buckets"]:
        assert set(bucket) >= {"input_tokens_max", "output_tokens_max", "rate_rps", "shares", "max_rate_rps"}
    for baseline in row["baselines"].values():
        assert set(baseline) >= {"instances", "replicas", "cost_usd_per_hour", "savings", "reason"}
    assert set(row["configs"]) == set(row["baselines"]) == {"L4", "A10G", "A100-80GB", "H100"}
    assert 0 <= row["baselines"][row["best_single_type"]]["savings"] < 1
    assert row["slo"]["statistic"] == "mean"


@pytest.mark.parametrize("name", sorted(CONTRACT - {"schema_version", "best_single_type"} | {"attain", "basis"}))
def test_a_mistyped_field_is_one_line_with_the_file(row, name, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**row, name: [5] if isinstance(row[name], float) else 5}))
    with pytest.raises(InputError, match=rf"^{file}: .*{name}") as caught:
        read_plan(file)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["status", "slo", "workload", "configs", "buckets", "basis"])
def test_a_missing_field_is_named(row, name, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({key: value for key, value in row.items() if key != name}))
    with pytest.raises(InputError, match=rf"^{file}: .*lacks the key '{name}'"):
        read_plan(file)


def test_a_newer_schema_is_refused(row, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**row, "schema_version": 99}))
    with pytest.raises(InputError, match=r"schema version is 99.*upgrade"):
        read_plan(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "done"}, "not a plan: status: invalid enum value 'done'"),
        ({"instances": {"L4": 0.5}}, "not a plan: instances"),
        ({"explanation": {"gap": 0.0, "caped": []}}, "unknown key 'explanation.caped'; did you mean 'capped'"),
        ({"basis": {"efficiencies": {"gemm_scale": 50.0}}}, "efficiency gemm_scale is 50"),
    ],
)
def test_a_record_is_checked_without_its_file_too(row, change, message):
    with pytest.raises(InputError, match=message):
        plan_of_record({**row, **change})


def test_a_plan_that_is_not_finite_is_never_written(row, tmp_path):
    plan = plan_of_record({**row, "cost_usd_per_hour": float("nan")})
    with pytest.raises(InputError, match="cost_usd_per_hour is nan"):
        write_plan(tmp_path / "plan.json", plan)
    assert not (tmp_path / "plan.json").exists()
