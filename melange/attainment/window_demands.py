"""Windows as demands that a fleet must stand, each as if it lasted.

The search looks for the cheapest fleet for the hardest window, whose mix its shares suit; what it finds is then played
in every other window that is to be kept, as a router plays it that knows no windows. A window in which it falls short
joins the demands that every fleet must stand, and the search goes on: fleets that failed stay ruled out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.arrays import FloatArray
from melange.attainment.fleet_search import FleetSearch
from melange.attainment.trial import Demand
from melange.plan.plan import Plan
from melange.plan.promise import WindowAttainment
from melange.planning.assemble import costs_of
from melange.planning.load import load_measure
from melange.planning.spec import WorkloadSpec

NEXT_TO_NOTHING = 1e-9
"""Share of the rate that sizes are given of which a window has none, so that every window has the same buckets."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowDemand:
    """A window that is to be kept: where it lies, and its demand."""

    start_s: float
    length_s: float
    demand: Demand


def window_demands(spec: WorkloadSpec, paper: Plan) -> tuple[WindowDemand, ...]:
    """The windows that a plan was to keep, that of the most load first; none for a plan of the whole mix."""
    if paper.windows is None:
        return ()
    workload = spec.workload
    busy = workload.rate_rps > 0
    kept = {window.start_s for window in paper.windows.windows if window.kept}
    weight = load_measure(spec.for_windows(None)).weight[busy]
    rows = [
        (float(rates @ weight), WindowDemand(start_s=w.start_s, length_s=w.length_s, demand=_demand(rates)))
        for w, rates in zip(workload.windows, workload.window_rates_rps()[:, busy], strict=True)
        if w.start_s in kept
    ]
    return tuple(demand for _, demand in sorted(rows, key=lambda row: -row[0]))


def _demand(rates_rps: FloatArray) -> Demand:
    total = float(rates_rps.sum())
    return Demand(rate_rps=total, probability=rates_rps / total)


def spec_of(spec: WorkloadSpec, demand: Demand) -> WorkloadSpec:
    """The workload at this demand alone; sizes of which it has none keep next to none."""
    workload = spec.workload
    rates = np.zeros(workload.grid.shape)
    rates[workload.rate_rps > 0] = np.maximum(demand.probability, NEXT_TO_NOTHING) * demand.rate_rps
    return replace(spec, workload=replace(workload, rate_rps=rates), window_share=None)


def attained(search: FleetSearch, plan: Plan, windows: Sequence[WindowDemand]) -> tuple[WindowAttainment, ...]:
    """The attainment of a plan in each window by a quick look, in order of time."""
    found = [
        WindowAttainment(
            start_s=window.start_s,
            length_s=window.length_s,
            rate_rps=window.demand.rate_rps,
            attainment=search.trials.look_at(plan, window.demand).attainment,
        )
        for window in windows
    ]
    return tuple(sorted(found, key=lambda window: window.start_s))


def harder(search: FleetSearch, window: WindowDemand) -> FleetSearch:
    """The search for fleets that stand one window more: what failed stays failed, what passed is judged anew."""
    trials = replace(search.trials, demands=(*search.trials.demands, window.demand))
    failing = {counts: result for counts, result in search.results.items() if not result.passed}
    return replace(search, trials=trials, results=failing, complete=False, not_ruled_out=())


def of_whole(plan: Plan, spec: WorkloadSpec, paper: Plan) -> Plan:
    """A plan that was made for one window as a plan of the workload: its fleet and shares, the whole mix's rates."""
    whole = {(b.input_tokens_max, b.output_tokens_max): b.rate_rps for b in paper.buckets}
    buckets = tuple(replace(b, rate_rps=whole[b.input_tokens_max, b.output_tokens_max]) for b in plan.buckets)
    busy = dict.fromkeys(plan.replicas, 0.0)
    for bucket in buckets:
        for name, share in bucket.shares.items():
            busy[name] += share * bucket.rate_rps / (bucket.max_rate_rps[name] or np.inf)
        for name, share in bucket.late_shares.items():
            busy[name] += share * bucket.rate_rps / bucket.late_rate_rps.get(name, np.inf)
    cost = plan.cost_usd_per_hour
    return replace(
        plan,
        workload=paper.workload,
        buckets=buckets,
        utilization={name: busy[name] / count for name, count in plan.replicas.items()},
        costs=None if cost is None else costs_of(cost, spec.workload),
    )
