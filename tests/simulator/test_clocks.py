"""A fleet planned from measured load points is simulated on the engine that was measured, not on the datasheet's."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from simulator.builders import poisson

from melange.capacity.basis import Basis
from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.files.shipped import data_path
from melange.measurements.file import Header, record_line
from melange.measurements.measurement import LatencyStats, Measurement
from melange.perfmodel.clock import StepClock
from melange.perfmodel.hardware import ModelledEngine, step_clock
from melange.plan.file import read_plan, write_plan
from melange.plan.plan import Plan
from melange.planning.planner import plan_fleet
from melange.planning.spec import ProfileChoice
from melange.planning.workload_file import load_workload
from melange.serving.config import ConfigKey
from melange.serving.efficiencies import PRIORS, Efficiencies
from melange.serving.engine_settings import EngineSettings
from melange.simulator.arrivals import Arrivals
from melange.simulator.clocks import plan_clocks, plan_router
from melange.simulator.run import play_replica
from melange.simulator.saturation import saturation_rps
from melange.simulator.simulate import SimulationOptions, simulate

KEY = ConfigKey("llama-3.1-8b", "H100", 1, "bf16", "vllm")
SIZES = tuple((i, o) for i in (64, 512, 2048) for o in (32, 128, 512))
COMMAND = ["vllm", "serve", "m", "--max-num-seqs", "64", "--max-num-batched-tokens", "4096"]
LIMITS = EngineSettings(max_num_seqs=64, max_batched_tokens=4096)
WORKLOAD = """
version: 1
name: measured
model: {model}
slo: {tpot_ms: 60, tpot_definition: decode, statistic: mean}
rate_rps: 5
sizes:
  input_edges_tokens: [64, 512, 2048]
  output_edges_tokens: [32, 128, 512]
  representative: upper_edge
  buckets:
"""


def engine_of(efficiencies: Efficiencies) -> StepClock:
    catalog = load_catalog()
    modelled = ModelledEngine(
        model=catalog.model(KEY.model), gpu=catalog.gpu(KEY.gpu), precision="bf16", settings=LIMITS
    )
    return step_clock(modelled, efficiencies)


def engine(seed: int) -> StepClock:
    """An engine whose efficiencies are drawn, one standard deviation wide, from what the model believes possible."""
    draw = np.random.default_rng(seed)
    logs = [np.log(prior.mean) + prior.spread * draw.normal() for prior in PRIORS.values()]
    return engine_of(Efficiencies.from_logs(logs))


def requests(sizes: tuple[tuple[int, int], ...], rate_rps: float, count: int, seed: int) -> Arrivals:
    rows = np.array(sizes)[np.random.default_rng(seed).integers(0, len(sizes), count)]
    return Arrivals(
        arrival_s=poisson(rate_rps, count, seed),
        input_tokens=rows[:, 0],
        output_tokens=rows[:, 1],
        cached_tokens=np.zeros(count, dtype=np.int64),
    )


def saturations(clock: StepClock) -> np.ndarray:
    inputs, outputs = np.array(SIZES, dtype=float).T
    return saturation_rps(clock, inputs, outputs)


def latencies(clock: StepClock, arrivals: Arrivals) -> tuple[np.ndarray, np.ndarray]:
    """TTFT and decode TPOT of the requests after the first tenth."""
    done = play_replica(clock, arrivals).requests[len(arrivals) // 10 :]
    return done.first_s - done.arrival_s, (done.end_s - done.first_s) / (done.output_tokens - 1)


def measured(clock: StepClock) -> list[Measurement]:
    """Load points as a profiler would take them: Poisson arrivals of one size, below and beyond saturation."""
    points = []
    for row, (size, saturation) in enumerate(zip(SIZES, saturations(clock), strict=True)):
        for share in (0.3, 0.6, 0.85):
            ttft, tpot = latencies(clock, requests((size,), share * saturation, 1000, 10 * row))
            points.append(load_point(size, share * saturation, float(ttft.mean()), float(tpot.mean())))
        points.append(load_point(size, float(saturation), saturated=True))
    return points


def load_point(
    size: tuple[int, int], rate_rps: float, ttft_s: float = 9.0, tpot_s: float = 0.05, *, saturated: bool = False
) -> Measurement:
    return Measurement(
        **KEY._asdict(),
        input_tokens=size[0],
        output_tokens=size[1],
        offered_rps=rate_rps * (1.3 if saturated else 1.0),
        achieved_rps=rate_rps,
        concurrency=rate_rps * (ttft_s + size[1] * tpot_s),
        ttft_s=LatencyStats(mean=ttft_s, mean_upper=ttft_s),
        tpot_decode_s=LatencyStats(mean=tpot_s, mean_upper=tpot_s),
        tpot_e2e_per_token_s=LatencyStats(mean=tpot_s, mean_upper=tpot_s),
        samples=1000,
        saturated=saturated,
    )


def planned(folder: Path, points: list[Measurement], **told: object) -> Plan:
    """The plan of a workload on these load points, written and read again."""
    header = Header(**{**KEY._asdict(), **told})
    (folder / "points.jsonl").write_text("".join(record_line(r) for r in (header, *points)))
    sizes = sorted({(int(point.input_tokens), int(point.output_tokens)) for point in points})
    share = 1 / len(sizes)
    buckets = [f"  - {{input_tokens_max: {i}, output_tokens_max: {o}, share: {share}}}" for i, o in sizes]
    text = (
        WORKLOAD.replace("{model}", points[0].model)
        + "\n".join(buckets)
        + "\nprofiles: {files: [points.jsonl]}\nfleet: {H100: {}}\n"
    )
    (folder / "workload.yaml").write_text(text)
    write_plan(folder / "plan.json", plan_fleet(load_workload(folder / "workload.yaml")))
    return read_plan(folder / "plan.json")


@pytest.mark.parametrize("seed", [3, 5])
def test_latencies_of_a_measured_engine_are_reproduced(tmp_path, seed):
    truth = engine(seed)
    plan = planned(tmp_path, measured(truth), engine_command=COMMAND)
    entry = next(iter(plan_clocks(plan).values()))
    assert entry.matched == "latencies"
    assert (entry.clock.max_num_seqs, entry.clock.max_batched_tokens) == (64, 4096)
    capacity = len(SIZES) / (1 / saturations(truth)).sum()
    for share, worst in ((0.5, 0.15), (0.7, 0.25)):
        arrivals = requests(SIZES, share * capacity, 5000, 99)
        for true, simulated in zip(latencies(truth, arrivals), latencies(entry.clock, arrivals), strict=True):
            errors = np.percentile(simulated, (50, 99)) / np.percentile(true, (50, 99)) - 1
            assert np.abs(errors).max() < worst
    arrivals = requests(SIZES, 0.5 * capacity, 5000, 99)
    of_datasheet = latencies(engine_of(Efficiencies()), arrivals)[1]
    assert abs(np.median(of_datasheet) / np.median(latencies(truth, arrivals)[1]) - 1) > 0.3


def test_few_load_points_leave_the_clock_to_the_rates_and_the_report_says_so(tmp_path):
    plan = planned(tmp_path, [load_point(size, 1.0, 0.2, 0.04) for size in SIZES if size[0] < 2048])
    clocks = plan_clocks(plan)
    assert {entry.matched for entry in clocks.values()} == {"slo"}
    report = simulate(plan, options=SimulationOptions(requests=200, replications=2), clocks=clocks)
    assert any("calibrated to rates under the SLO alone" in warning for warning in report.warnings)


def test_load_points_that_contradict_the_rates_are_reported(tmp_path):
    plan = planned(tmp_path, [load_point(size, 1.0, 0.05, 0.02) for size in SIZES])
    report = simulate(plan, options=SimulationOptions(requests=200, replications=2))
    assert any("carries other rates than the profile says" in warning for warning in report.warnings)


def test_a_model_that_only_its_folder_knows_is_simulated_from_the_header(tmp_path):
    known = load_catalog().model(KEY.model)
    shape = {item.name: getattr(known, item.name) for item in fields(known) if item.name not in ("aliases", "source")}
    points = [replace(load_point(size, 1.0 + n, 0.2, 0.04), model="mine") for n in range(2) for size in SIZES]
    plan = planned(tmp_path, points, model="mine", model_shape={**shape, "name": "mine"})
    assert plan.configs["H100"].model_shape is None
    assert plan_clocks(plan)["H100"].matched == "latencies"
    with pytest.raises(InputError, match="holds no model figures of H100"):
        plan_clocks(planned(tmp_path, points, model="mine"))


def test_an_estimates_engine_settings_are_the_simulators(tmp_path):
    plan = planned(tmp_path, [load_point(size, 1.0, 0.2, 0.04) for size in SIZES if size[0] < 2048])
    clocks = plan_clocks(replace(plan, basis=Basis(efficiencies=Efficiencies(), engine_settings=LIMITS)))
    assert next(iter(clocks.values())).clock.max_num_seqs == LIMITS.max_num_seqs


def measured_plan(folder: Path) -> Plan:
    points = [load_point(size, 1.0, 0.2, 0.04) for size in SIZES]
    return planned(folder, points, engine_command=COMMAND, engine_version="0.2.7")


def sparsely_measured_plan(folder: Path) -> Plan:
    """Too few points for a clock of its own: what its engine was is told by its version alone."""
    points = [load_point(size, 1.0, 0.2, 0.04) for size in SIZES if size[0] < 2048]
    return planned(folder, points, engine_version="0.2.7")


def estimated_plan(folder: Path) -> Plan:
    spec = load_workload("arena-120ms")
    calibration = str(data_path("profiles/calibrations/llama-2-7b-published.yaml"))
    choice = ProfileChoice(set="estimated/llama-2-7b", calibration=calibration)
    write_plan(folder / "plan.json", plan_fleet(replace(spec, profiles=choice)))
    return read_plan(folder / "plan.json")


def published_plan(folder: Path) -> Plan:
    write_plan(folder / "plan.json", plan_fleet(load_workload("arena-120ms")))
    return read_plan(folder / "plan.json")


@pytest.mark.parametrize("made", [measured_plan, sparsely_measured_plan, estimated_plan, published_plan])
def test_nothing_is_computed_from_provenance(tmp_path, made):
    plan = made(tmp_path)
    bare = replace(plan, provenance={}, workload=replace(plan.workload, provenance={}))
    clocks, again = ([entry.clock for entry in plan_clocks(p, p.replicas).values()] for p in (plan, bare))
    assert clocks == again
    quick = SimulationOptions(requests=400, replications=2)
    first, second = (simulate(p, options=quick) for p in (plan, bare))
    assert first.attainment == second.attainment
    assert first.e2e == second.e2e
    without = [entry.clock for entry in plan_clocks(replace(plan, basis=Basis()), plan.replicas).values()]
    assert without != clocks  # what they are made from is the plan's basis


def test_a_plans_router_knows_its_replicas_and_keeps_its_shares(small_spec):
    plan = plan_fleet(small_spec)
    router = plan_router(plan, "shares/least-tokens:oracle")
    assert {name: router.replicas.count(name) for name in plan.replicas} == dict(plan.replicas)
    bucket = plan.buckets[0]
    used = {router.route(50, 50).config for _ in range(40)}
    assert used == {name for name, share in bucket.shares.items() if share > 0.1}
    assert plan_router(plan).policy.name == "shares"
