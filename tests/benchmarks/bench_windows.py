"""Does a promise made from one half of a trace hold in the other? Plain, and made for every window.

Run: python tests/benchmarks/bench_windows.py TRACE [RATE ...] (default 4 and 12 req/s). The trace, one with times such
as Azure's conversation trace of 2023, is cut in two halves of equal time. From each half a promise of 99% is made for
the shipped workload's model and SLO, at the half's mix and the rate; then the other half is replayed, its requests in
order, at that same mean rate ("same rate") and at the rate that it has beside the first half in the trace ("own rate").
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

from melange.attainment.closed_loop import attain
from melange.errors import MelangeError
from melange.plan.costs import describe_instances
from melange.plan.plan import Plan
from melange.planning.spec import WorkloadSpec
from melange.planning.workload_file import load_workload
from melange.simulator.arrivals import Process
from melange.simulator.simulate import SimulationOptions, simulate
from melange.traces import Trace, read_trace
from melange.workload.histogram import workload_from_trace
from melange.workload.windows import WindowRule

TARGET = 0.99
SHIPPED = "azure-conversation"
KINDS = ("whole mix", "every window")


def main() -> None:
    """Print a row for each half, rate and kind of promise."""
    path = sys.argv[1]
    rates = [float(text) for text in sys.argv[2:]] or [4.0, 12.0]
    trace = read_trace(path)
    assert trace.arrival_s is not None
    first_s, last_s = float(trace.arrival_s.min()), float(trace.arrival_s.max())
    middle_s = (first_s + last_s) / 2
    halves = [_part(trace, first_s, middle_s), _part(trace, middle_s, last_s + 1)]
    specs = [_spec(path, span) for span in ((0.0, middle_s - first_s), (middle_s - first_s, last_s - first_s + 1))]
    print("promise from | req/s | made for | fleet | USD/h | confirmed | other half, same rate | own rate | s")
    for here, other in ((0, 1), (1, 0)):
        for rate in rates:
            spec = specs[here].with_rate(rate)
            for kind, asked in zip(KINDS, (spec, spec.for_windows()), strict=True):
                name = f"{('first', 'second')[here]} half | {rate:g} | {kind}"
                _row(name, asked, halves[other], len(halves[other]) / len(halves[here]))


def _part(trace: Trace, start_s: float, end_s: float) -> Trace:
    assert trace.arrival_s is not None
    kept = (trace.arrival_s >= start_s) & (trace.arrival_s < end_s)
    return replace(
        trace,
        input_tokens=trace.input_tokens[kept],
        output_tokens=trace.output_tokens[kept],
        arrival_s=trace.arrival_s[kept],
    )


def _spec(path: str, window_s: tuple[float, float]) -> WorkloadSpec:
    shipped = load_workload(SHIPPED)
    workload, _ = workload_from_trace(
        path, grid=shipped.workload.grid, window_s=window_s, slo=shipped.slo, name="half", model=shipped.workload.model,
        windows=WindowRule(),
    )  # fmt: skip
    return replace(shipped, workload=workload)


def _row(name: str, spec: WorkloadSpec, other: Trace, pace: float) -> None:
    rate, started = spec.workload.total_rate_rps, time.monotonic()
    try:
        plan, report = attain(spec, TARGET, None, SimulationOptions(jobs=os.cpu_count() or 1))
    except MelangeError as error:
        print(f"{name} | {error}", flush=True)
        return
    took = time.monotonic() - started
    same, own = (_replayed(plan, other, at) for at in (rate, rate * pace))
    mark = "" if report.complete else " (cheaper ones not ruled out)"
    print(
        f"{name} | {describe_instances(plan.instances)}{mark} | {plan.cost_usd_per_hour:.2f} | "
        f"{100 * (report.fleet.attainment or 0):.2f}% | {100 * same:.2f}% | {100 * own:.2f}% | {took:.0f}",
        flush=True,
    )


def _replayed(plan: Plan, trace: Trace, rate_rps: float) -> float:
    options = SimulationOptions(process=Process(kind="trace"), rate_rps=rate_rps, warmup_share=0.0)
    return simulate(plan, trace, options).attainment.mean


if __name__ == "__main__":
    main()
