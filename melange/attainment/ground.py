"""Ground: what a closed-loop search stands on: loads in time and at the least, clocks, and the plan of any fleet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.attainment.fleets import Counts, fleet_cost
from melange.errors import InfeasibleError
from melange.perfmodel.floor import least_s
from melange.plan.costs import Baseline
from melange.plan.plan import Plan
from melange.planning.assemble import plan_of, with_shares
from melange.planning.case import Case, case_of
from melange.planning.choices import Choices
from melange.simulator.clocks import ConfigClock, plan_clocks
from melange.solver.problem import Problem, Solution, Status
from melange.solver.slack import Arrangement, most_slack

if TYPE_CHECKING:
    from melange.traces import Trace

NEARLY_LEAST = 1.1  # loads within this of the least are as good: what tells them apart is latency


NEXT_TO_NOTHING = 1e-9
"""Share of the rate that a size is given of which a trace has no request: served it must be, load it is not."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ground:
    """The fleets of a workload: what each could carry, and its plan.

    ``empty`` is their plan without a fleet, ``case`` the workload's program. ``in_time`` loads configs
    at their rates under the SLO, ``least`` with the least time that requests take, both at the demand itself, without
    headroom; ``inf`` where a config may not serve a bucket in time, or cannot hold its requests at all. ``left_out``
    are configs that serve no size in time.
    """

    case: Case
    empty: Plan
    in_time: Problem
    least: Problem
    clocks: Mapping[str, ConfigClock]
    left_out: tuple[str, ...]

    @property
    def choices(self) -> Choices:
        return self.case.choices

    def other_degrees(self, counts: Counts) -> list[int]:
        """The tensor-parallel degrees among which these machines leave a choice; none where each takes one alone."""
        rented = np.flatnonzero(np.array(counts)[self.in_time.config_instance] > 0)
        held: dict[int, set[int]] = {}
        for c in rented.tolist():
            held.setdefault(int(self.in_time.config_instance[c]), set()).add(int(self.in_time.gpus_per_replica[c]))
        return sorted(set().union(*(degrees for degrees in held.values() if len(degrees) > 1)))

    def _open(self, counts: Counts, degree: int | None) -> BoolArray:
        """(n_configs,) what may run on these machines: all, or the degree alone where a machine's type has it."""
        machine = self.in_time.config_instance
        rented: BoolArray = np.asarray(np.array(counts)[machine] > 0)
        if degree is None:
            return rented
        alike = self.in_time.gpus_per_replica == degree
        return np.asarray(rented & (alike | ~np.isin(machine, machine[alike])))

    def arranged(self, counts: Counts, degree: int | None = None) -> tuple[Arrangement, BoolArray] | None:
        """What runs on these machines with the most slack, and which rows (n_rows,) it serves; None where it is none.

        A size that none of them serves in time is spread by the least time it takes; one that fits none is left out.
        With ``degree`` the machines that hold replicas of that tensor-parallel degree run no others.
        """
        instances = np.array(counts, dtype=np.int64)
        rented = self._open(counts, degree)
        in_time: BoolArray = np.asarray(np.isfinite(self.in_time.load[:, rented]).any(axis=1))
        load = np.where(rented, np.where(in_time[:, None], self.in_time.load, self.least.load), np.inf)
        served: BoolArray = np.asarray(np.isfinite(load[:, rented]).any(axis=1))
        if not served.any():
            return None
        rows = np.flatnonzero(served)
        problem = replace(self.in_time, buckets=tuple(self.in_time.buckets[row] for row in rows), load=load[served])
        found = most_slack(problem, instances)
        return None if found is None else (found, served)

    def plan(
        self, counts: Counts, baselines: Mapping[str, Baseline] | None = None, *, degree: int | None = None
    ) -> Plan | None:
        """The plan of a fleet, also of one that the integer program would call too small; None where it serves nothing.

        Its bound is its own cost: what was ruled out below it is the search's to say.
        """
        found = self.arranged(counts, degree)
        if found is None:
            return None
        arrangement, served = found
        rented = self._open(counts, degree)
        in_time: BoolArray = np.asarray(np.isfinite(self.in_time.load[:, rented]).any(axis=1))
        shares = np.zeros(self.in_time.load.shape)
        shares[served] = arrangement.shares
        late = np.where(in_time[:, None], 0.0, shares)
        cost = fleet_cost(self.in_time, counts)
        solution = Solution(
            status=Status.FEASIBLE,
            shares=shares - late,
            late_shares=late,
            replicas=arrangement.replicas,
            instances=np.array(counts, dtype=np.int64),
            cost_usd_per_hour=cost,
            bound_usd_per_hour=0.0,
            gap=1.0,
        )
        return with_shares(self.empty, self.case, solution, baselines or {})


def ground_of(choices: Choices, *, trace: Trace | None = None, keep_late: bool = False) -> Ground:
    """The ground of a workload's choices: of every kind of config that serves some size in time, its best token budget.

    The demand is the whole mix's, whatever windows the spec asks for. Where requests have the sizes of a ``trace``, the
    least loads are theirs and not those of the workload's means. InfeasibleError where there is none, unless
    ``keep_late`` asks for those too that serve no size in time.
    """
    able: BoolArray = np.asarray((np.nan_to_num(choices.max_rate_rps, nan=0.0) > 0).any(axis=0)) | keep_late
    if not able.any():
        raise InfeasibleError(
            f"no config serves any size in time: {choices.spec.slo.describe()} cannot be kept on "
            f"{', '.join(config.name for config in choices.configs)}"
        )
    left_out = tuple(config.name for config, can in zip(choices.configs, able, strict=True) if not can)
    kept = _with_configs(choices, _one_budget_each(choices, able))
    kept = replace(kept, spec=kept.spec.for_windows(None))
    case = case_of(kept)
    empty = plan_of(case, Solution(status=Status.UNKNOWN), {})
    clocks = plan_clocks(empty)
    # The search simulates the demand as it is: headroom is the program's way to provide for what is simulated here.
    # Nor is anything late by rule: what misses is what the simulation says.
    in_time = replace(case.problem, load=case.problem.load / (1 + kept.headroom), lateness=None)
    least = replace(in_time, load=_least_loads(case, clocks, trace))
    return Ground(case=case, empty=empty, in_time=in_time, least=least, clocks=clocks, left_out=left_out)


def _one_budget_each(choices: Choices, able: BoolArray) -> list[int]:
    """Of every kind of config one token budget and number of sequences: that with the most sizes in time, then the
    least load, and of loads that are nearly the least the smallest budget, where no limit on TTFT asks for more.

    They differ in little but latency, which simulation judges, and every further config takes a clock of its own. A
    prompt's chunk is what holds up the tokens of others, and a mean tells less of that than a simulation.
    """
    rates = np.nan_to_num(choices.max_rate_rps, nan=0.0)
    sizes = (rates > 0).sum(axis=0)
    load = np.where(rates > 0, choices.rate_rps[:, None] / np.where(rates > 0, rates, 1.0), 0.0).sum(axis=0)
    slo = choices.spec.slo
    nearly = NEARLY_LEAST if slo.ttft_s is None and slo.e2e_s is None else 1.0
    kinds: dict[tuple[object, ...], list[int]] = {}
    for c in np.flatnonzero(able).tolist():
        config = choices.configs[c]
        kind = (config.instance.key, config.key._replace(max_batched_tokens=None, max_num_seqs=None))
        kinds.setdefault(kind, []).append(c)
    kept = []
    for alike in kinds.values():
        most = [c for c in alike if sizes[c] == max(sizes[k] for k in alike)]
        near = [c for c in most if load[c] <= nearly * min(load[k] for k in most)]
        kept.append(min(near, key=lambda c: (choices.configs[c].max_batched_tokens or math.inf, float(load[c]), c)))
    return sorted(kept)


def _with_configs(choices: Choices, kept: list[int]) -> Choices:
    """The choices with these configs alone; machines that none of them runs on go too, but for those with a floor."""
    used = {choices.configs[c].instance.key for c in kept}
    used |= {key for limit in choices.limits if limit.minimum for key in limit.weights}
    limits = [
        replace(limit, weights={key: weight for key, weight in limit.weights.items() if key in used})
        for limit in choices.limits
    ]
    return replace(
        choices,
        configs=tuple(choices.configs[c] for c in kept),
        offers=tuple(offer for offer in choices.offers if offer.key in used),
        limits=tuple(limit for limit in limits if limit.weights),
        max_rate_rps=choices.max_rate_rps[:, kept],
        unlimited_rps=choices.unlimited_rps[:, kept],
        headroom=choices.headroom[kept],
    )


def _least_loads(case: Case, clocks: Mapping[str, ConfigClock], trace: Trace | None) -> FloatArray:
    """(n_rows, n_configs) replicas that a row keeps busy at the least; inf where its requests do not fit."""
    sizes, rate, bucket = _bucket_means(case) if trace is None else _trace_requests(case, trace)
    group = case.row[bucket]
    rows = np.zeros((int(case.row.max()) + 1, len(case.choices.configs)))
    for c, config in enumerate(case.choices.configs):
        entry = clocks[config.name]
        tokens = sizes[:, :2].sum(axis=1)
        held = entry.clock.held_tokens(tokens)
        fits = (tokens <= entry.max_request_tokens) & (held <= entry.clock.kv_capacity_tokens)
        seconds = least_s(entry.clock, sizes[:, 0], sizes[:, 1], sizes[:, 2], weights=rate)
        np.add.at(rows[:, c], group, np.where(fits, rate * seconds, np.inf))
    return rows


def _bucket_means(case: Case) -> tuple[FloatArray, FloatArray, IntArray]:
    """(n, 3) input, output and cached tokens, (n,) requests/s and (n,) the bucket: one row a bucket.

    True means, whatever sizes the program takes its loads at: these are what is simulated.
    """
    buckets = case.choices.buckets
    sizes = [
        (
            b.mean_input_tokens or b.load_input_tokens,
            b.mean_output_tokens or b.load_output_tokens,
            b.mean_cached_tokens or 0.0,
        )
        for b in buckets
    ]
    return np.array(sizes, dtype=float), case.choices.rate_rps, np.arange(len(buckets))


def _trace_requests(case: Case, trace: Trace) -> tuple[FloatArray, FloatArray, IntArray]:
    """The same, one row a request of the trace; those of sizes that the workload does not have are left out.

    All of them are played, so what is left out makes a bound no less true. A bucket of which the trace has nothing
    keeps a row of its means at next to no rate.
    """
    workload = case.choices.spec.workload
    place = np.full(workload.rate_rps.size, -1)
    place[np.flatnonzero(workload.rate_rps.ravel() > 0)] = np.arange(len(case.choices.buckets))
    located = workload.grid.locate(trace.input_tokens, trace.output_tokens)
    inside = located >= 0
    bucket = np.where(inside, place[located], -1)
    kept = bucket >= 0
    cached = np.zeros(len(trace)) if trace.cached_tokens is None else trace.cached_tokens
    sizes = np.stack([trace.input_tokens, trace.output_tokens, cached], axis=1)[kept].astype(float)
    rate = np.full(len(sizes), workload.total_rate_rps / max(int(inside.sum()), 1))
    means, _, own = _bucket_means(case)
    return (
        np.vstack([sizes, means]),
        np.append(rate, np.full(len(own), NEXT_TO_NOTHING * workload.total_rate_rps)),
        np.append(bucket[kept], own),
    )


def describe(problem: Problem, counts: Sequence[int]) -> str:
    """``2 x H100 + 7 x L40S``."""
    return " + ".join(f"{n} x {key}" for key, n in zip(problem.instances, counts, strict=True) if n)
