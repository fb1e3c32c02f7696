"""The published JSON Schemas describe what Mélange reads and writes, field by field."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import jsonschema
import pytest

from melange import LatencyStats, Measurement, Plan, SolveOptions, load_workload, plan_fleet
from melange.capacity.basis import Basis
from melange.capacity.rates import RateTable
from melange.catalog.hardware import Gpu, load_catalog
from melange.catalog.models import Model
from melange.catalog.precisions import PRECISIONS, RATES
from melange.files.documents import SCHEMAS, load_schema
from melange.files.shipped import data_path
from melange.interop.release import plan_release
from melange.measurements.curve import CurvePoint, MeasuredCurve
from melange.measurements.file import Header, KvCache, record_line
from melange.measurements.measurement import Question
from melange.plan.advice import PrecisionAdvice
from melange.plan.bucket import PlanBucket
from melange.plan.config import LeftOutOffer, PlanConfig
from melange.plan.costs import Baseline, Costs, PlanLimit
from melange.plan.demand import PlanDemand
from melange.plan.file import plan_record
from melange.plan.lateness import PlanLateness
from melange.plan.nanobatching import NanoBatchingEffect
from melange.plan.odds import FleetOdds, Uncertainty
from melange.plan.promise import AttainReport, SizedFleet, Standing, WindowAttainment
from melange.plan.windows import PlanWindow, PlanWindows
from melange.serving.considered import Considered, LeftOut
from melange.serving.efficiencies import Efficiencies
from melange.serving.engine_settings import EngineSettings
from melange.slo import Slo
from melange.solver.explanation import BreakEven, CapValue, Explanation, NextFleet
from melange.workload.load_scale import LoadScale

CATALOG_ONLY = {"aliases", "source", "unread"}  # kept in the catalog, left out of plans


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(load_schema(name))


def names(cls: type) -> set[str]:
    return {item.name for item in fields(cls)}


def described(schema: Any, path: str = "") -> list[str]:
    """Paths of the properties below a schema that have no description."""
    bare = []
    if isinstance(schema, dict):
        for key, value in schema.get("properties", {}).items():
            if "description" not in value:
                bare.append(f"{path}/{key}")
        for key, value in schema.items():
            bare += described(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for item in schema:
            bare += described(item, path)
    return bare


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas(name):
    jsonschema.Draft202012Validator.check_schema(load_schema(name))


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_is_described(name):
    assert described(load_schema(name)) == []


@pytest.mark.parametrize(
    ("schema", "path", "expected"),
    [
        ("measurements", "point", names(Measurement) | {"record"}),
        ("measurements", "latency", names(LatencyStats)),
        ("measurements", "header", names(Header) | {"record", "schema_version"}),
        ("measurements", "slo", names(Slo)),
        ("plan", None, names(Plan)),
        ("plan", "config", names(PlanConfig)),
        ("plan", "bucket", names(PlanBucket)),
        ("plan", "baseline", names(Baseline)),
        ("plan", "limit", names(PlanLimit)),
        ("plan", "costs", names(Costs)),
        ("plan", "considered", names(Considered)),
        ("plan", "left_out", names(LeftOut)),
        ("plan", "precision_advice", names(PrecisionAdvice)),
        ("plan", "slo", names(Slo) | {"statistic"}),
        ("plan", "hardware", names(Gpu) - CATALOG_ONLY),
        ("plan", "model_shape", names(Model) - CATALOG_ONLY),
        ("plan", "workload", names(PlanDemand)),
        ("plan", "load_scale", names(LoadScale)),
        ("plan", "profile", names(RateTable)),
        ("plan", "dropped_offer", names(LeftOutOffer)),
        ("plan", "explanation", names(Explanation)),
        ("plan", "cap_value", names(CapValue)),
        ("plan", "break_even", names(BreakEven)),
        ("plan", "next_fleet", names(NextFleet)),
        ("plan", "lateness", names(PlanLateness)),
        ("plan", "attain", names(AttainReport)),
        ("plan", "sized_fleet", names(SizedFleet)),
        ("plan", "standing", names(Standing)),
        ("plan", "plan_windows", names(PlanWindows)),
        ("plan", "plan_window", names(PlanWindow)),
        ("plan", "window_attainment", names(WindowAttainment)),
        ("plan", "uncertainty", names(Uncertainty)),
        ("plan", "fleet_odds", names(FleetOdds)),
        ("plan", "nanobatching", names(NanoBatchingEffect)),
        ("plan", "basis", names(Basis)),
        ("plan", "curve", names(MeasuredCurve)),
        ("plan", "engine_settings", names(EngineSettings)),
        ("plan", "efficiencies", names(Efficiencies)),
    ],
)
def test_schema_and_dataclass_have_the_same_fields(schema, path, expected):
    part = load_schema(schema) if path is None else load_schema(schema)["$defs"][path]
    assert set(part["properties"]) == expected


def test_a_row_of_a_curve_has_every_field_of_a_load_point():
    row = load_schema("plan")["$defs"]["curve"]["properties"]["points"]["items"]
    assert len(row["prefixItems"]) == row["minItems"] == row["maxItems"] == len(CurvePoint._fields)


def test_every_field_of_a_plan_is_required():
    assert set(load_schema("plan")["required"]) == names(Plan)


@pytest.mark.parametrize(
    ("headroom", "rate_rps", "limits", "options"),
    [
        (0.0, 3.5, {}, SolveOptions()),
        (0.1, 3.5, {"maximum": {"L4": 1}, "max_cost_usd_per_hour": 50}, SolveOptions(slice_factor=4)),
        (0.0, 3.5, {"only": ("A10G",)}, SolveOptions(tie_outputs=True)),
        (0.0, 3.5, {"maximum": {"L4": 2}}, SolveOptions(explain=True)),
        (0.0, 500, {"only": ("L4",), "maximum": {"L4": 1}}, SolveOptions()),
    ],
)
def test_plans_keep_their_schema(small_spec, headroom, rate_rps, limits, options):
    plan = plan_fleet(small_spec.with_headroom(headroom).with_rate(rate_rps).limited(**limits), options)
    validator("plan").validate(json.loads(json.dumps(plan_record(plan))))


def test_plan_of_a_release_config_keeps_its_schema(tmp_path):
    path = tmp_path / "config.json"
    rows = {"gpu_info": {"A": {"cost": 1, "tputs": [[1, 0.5]]}, "B": {"cost": 2, "tputs": [[0, 2]]}}}
    path.write_text(json.dumps(rows | {"workload_distribution": [[0.5, 0.5]], "total_request_rate": 2}))
    validator("plan").validate(plan_record(plan_release(path)))


@pytest.mark.parametrize(
    "change",
    [{"status": "done"}, {"cost_usd_per_hour": "4"}, {"instances": {"L4": 0}}, {"gap": -0.1}, {"surprise": 1}],
)
def test_a_wrong_plan_breaks_its_schema(small_spec, change):
    row = plan_record(plan_fleet(small_spec)) | change
    assert not validator("plan").is_valid(row)


def test_shipped_measurements_keep_their_schema():
    check = validator("measurements")
    files = sorted(data_path("profiles").glob("*/*/*.jsonl"))
    assert files
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            check.validate(json.loads(line))


def test_a_full_record_keeps_its_schema():
    stats = LatencyStats(mean=0.1, p50=0.1, p90=0.2, p95=0.2, p99=0.3, mean_upper=0.11)
    point = Measurement(
        model="m", gpu="L4", input_tokens=10, output_tokens=20, offered_rps=1.0, achieved_rps=1.0, concurrency=2.0,
        ttft_s=stats, tpot_decode_s=stats, tpot_e2e_per_token_s=stats, e2e_s=stats, samples=3, failures=1,
        duration_s=60.0, queue_growth_rps=-0.1, saturated=True, valid=False, invalid_reason="cold", low_rps=0.9,
        high_rps=1.1, engine_version="1", date="2026-11", sample_ttft_s=(0.1,), sample_e2e_s=(0.2,),
        sample_output_tokens=(20,), nominal_rps=1.1, confidence=0.97, queue_growth_low_rps=-0.2,
        queue_growth_high_rps=0.1, extra={"note": 1}, kv_dtype="fp8", max_batched_tokens=512, max_num_seqs=64,
        asked=Question(slo=Slo(tpot_s=0.1, attainment=0.9), resolution=1.4, requests=400, point_s=120.0),
    )  # fmt: skip
    row = json.loads(record_line(point))
    assert set(row) == names(Measurement) | {"record"}
    validator("measurements").validate(row)
    header = Header(
        model="m", gpu="L4", tp=1, precision="fp8", engine="vllm", engine_version="1", engine_command=("vllm",),
        kv_dtype="fp8", max_batched_tokens=512, max_num_seqs=64,
        max_model_len_tokens=64, kv_cache=KvCache(tokens=64, block_tokens=16), model_shape={"layers": 1},
        slo=Slo(ttft_s=1.0), facts={"anything": [1]},
    )  # fmt: skip
    row = json.loads(record_line(header))
    assert set(row) == names(Header) | {"record", "schema_version"}
    validator("measurements").validate(row)


@pytest.mark.parametrize(
    "row",
    [
        {"record": "point"},
        {"record": "header"},
        {"record": "header", "schema_version": 2, "host": "x"},
        {"record": "other", "schema_version": 1},
        {"record": "point", "model": "m", "gpu": "g", "input_tokens": 0, "output_tokens": 1, "achieved_rps": 1},
        {"record": "point", "model": "m", "gpu": "g", "input_tokens": 1, "output_tokens": 1, "achieved_rps": -1},
        {"record": "point", "model": "m", "gpu": "g", "input_tokens": 1, "output_tokens": 1, "achieved_rps": 1, "x": 1},
    ],
)
def test_a_wrong_record_breaks_the_schema(row):
    assert not validator("measurements").is_valid(row)


def test_shipped_workloads_keep_their_schema():
    files = sorted(data_path("workloads").glob("*.yaml"))
    assert files
    for file in files:
        load_workload(file)


def test_catalog_precisions_are_those_of_the_schema():
    allowed = set(load_schema("measurements")["$defs"]["point"]["properties"]["precision"]["enum"])
    assert allowed == set(PRECISIONS)
    assert all(set(gpu.tflops) <= set(RATES) for gpu in load_catalog().gpus.values())
