"""simulate: play requests through a planned fleet and report what its users see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from melange.arrays import BoolArray
from melange.errors import InputError
from melange.files.version import __version__
from melange.parallel import run
from melange.plan.plan import Plan
from melange.routing.compiled import IS_COMPILED
from melange.routing.policy import DEFAULT_POLICY, Policy, policy_by_name
from melange.routing.table import RoutingTable, fleet_configs, routing_table
from melange.simulator.arrivals import (
    Arrivals,
    Process,
    Sizes,
    drawn_arrivals,
    drawn_process,
    lengthened,
    plan_sizes,
    recorded_rate_rps,
    replayed_arrivals,
    trace_sizes,
)
from melange.simulator.clocks import ConfigClock, plan_clocks, step_clocks
from melange.simulator.failures import FailureRule, outages
from melange.simulator.metrics import Estimate, Latency, kept_percentiles, outcome_of
from melange.simulator.report import (
    Replication,
    SimulationReport,
    attainments,
    bucket_reports,
    config_reports,
    joined,
    mean_kept,
    means_of,
    missed_shares,
    replication_of,
    tpot_quantiles,
)
from melange.simulator.run import play_fleet
from melange.simulator.stretches import Stretch, drawn_stretches

if TYPE_CHECKING:
    from melange.traces import Trace

SAMPLES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOptions:
    """How to simulate.

    ``requests`` a replication (None: 10,000 or ten minutes of arrivals, whichever is more; the whole trace when its
    times are replayed), of which the first ``warmup_share`` are not counted. ``rate_rps`` None is the plan's.
    ``process`` None replays the trace's times, scaled to the rate, where it has some, else draws arrivals as uneven as
    the workload says, Poisson ones where it does not.
    ``spread`` as in plan_sizes. ``jobs`` runs so many replications at a time. ``rotate``: every replication of a
    replayed trace begins at another of its requests and goes round. ``longer_input`` and ``longer_output`` make every
    request so much longer, 0.1 for 10%.
    """

    requests: int | None = None
    replications: int = 5
    seed: int = 0
    process: Process | None = None
    policy: Policy | None = None
    rate_rps: float | None = None
    warmup_share: float = 0.1
    spread: bool = True
    failures: tuple[FailureRule, ...] = ()
    jobs: int = 1
    rotate: bool = False
    longer_input: float = 0.0
    longer_output: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("requests", 1), ("replications", 1), ("jobs", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}", fix=f"give at least {least}")
        if not 0 <= self.warmup_share < 1:
            raise InputError(f"warm-up share is {self.warmup_share}", fix="give a share from 0 to below 1")
        if self.rate_rps is not None and not (np.isfinite(self.rate_rps) and self.rate_rps > 0):
            raise InputError(f"rate is {self.rate_rps}", fix="give a positive number of requests per second")
        for name in ("longer_input", "longer_output"):
            if not (np.isfinite(value := getattr(self, name)) and value >= 0):
                raise InputError(f"{name} is {value}", fix="give a share from 0, for example 0.1 for 10%")


DEFAULT_REQUESTS = 10_000
# A fleet at its limit fails slowly: a queue that grows by a few percent takes minutes to cost anybody the SLO.
LEAST_SPAN_S = 600.0
LOOSE_FIT = 0.25  # median error of the rates of a clock fitted to latencies, beyond which a report says so


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """A plan made ready to be played: tables, clocks, and where its requests come from.

    ``stretches``, where there are any, stand for one rate and mix: their sizes are the rows of ``sizes``.
    """

    plan: Plan
    names: tuple[str, ...]
    table: RoutingTable
    clocks: tuple[ConfigClock, ...]
    policy: Policy
    process: Process
    sizes: Sizes
    requests: int
    rate_rps: float
    trace: Trace | None
    inside: BoolArray | None
    options: SimulationOptions
    stretches: tuple[Stretch, ...] = ()

    def arrivals(self, replication: int) -> Arrivals:
        """The requests of one replication; every policy and fleet meets the same ones."""
        rng = np.random.default_rng([self.options.seed, replication, 1])
        return lengthened(self._as_long_as_now(rng), self.options.longer_input, self.options.longer_output)

    def _as_long_as_now(self, rng: np.random.Generator) -> Arrivals:
        if self.process.kind == "trace":
            assert self.trace is not None
            assert self.inside is not None
            first = int(rng.integers(self.inside.sum())) if self.options.rotate else None
            return replayed_arrivals(self.trace, self.inside, self.requests, self.rate_rps, first=first)
        if self.stretches:
            return drawn_stretches(self.stretches, self.sizes, self.process, rng)
        return drawn_arrivals(self.sizes, self.process, self.requests, self.rate_rps, rng)


def scenario_of(
    plan: Plan,
    trace: Trace | None = None,
    options: SimulationOptions | None = None,
    *,
    clocks: Mapping[str, ConfigClock] | None = None,
) -> Scenario:
    """Check what was asked and make everything that replications share.

    InputError: a plan without a fleet, sizes or profile; a trace that is empty or has no times where they are needed.
    """
    options = options or SimulationOptions()
    names = fleet_configs(plan)
    known = clocks or plan_clocks(plan, names)
    if trace is None:
        sizes, inside = plan_sizes(plan, spread=options.spread), None
    else:
        sizes, inside = trace_sizes(plan, trace)
    has_times = trace is not None and trace.arrival_s is not None
    process = options.process or (Process(kind="trace") if has_times else drawn_process(plan.workload.burstiness_cv))
    if process.kind == "trace" and (trace is None or not has_times):
        missing = "no trace was given" if trace is None else "the trace has no arrival times"
        raise InputError(f"arrivals are those of the trace, but {missing}", fix="use --arrivals poisson, or another")
    if process.kind == "trace" and trace is not None and inside is not None:
        recorded_rate_rps(trace, inside)  # one that cannot be scaled is refused here, not in a replication
    count = options.requests
    if count is None:
        rate = options.rate_rps or sum(b.rate_rps for b in plan.buckets)
        drawn = max(DEFAULT_REQUESTS, int(LEAST_SPAN_S * rate))
        count = int(inside.sum()) if process.kind == "trace" and inside is not None else drawn
    return Scenario(
        plan=plan,
        names=names,
        table=routing_table(plan, step_clocks(known)),
        clocks=tuple(known[name] for name in names),
        policy=options.policy or policy_by_name(DEFAULT_POLICY),
        process=process,
        sizes=sizes,
        requests=count,
        rate_rps=options.rate_rps or sum(b.rate_rps for b in plan.buckets),
        trace=trace,
        inside=inside,
        options=options,
    )


def replicate(scenario: Scenario, replication: int, samples: int = 0, causes: bool = True) -> Replication:
    """Play one replication; without ``causes`` it tells who missed the SLO, and not why."""
    plan, options = scenario.plan, scenario.options
    arrivals = scenario.arrivals(replication)
    rng = np.random.default_rng([options.seed, replication, 2])
    config_of = [scenario.names[c] for c in scenario.table.config_of]
    spot = [plan.configs[name].spot for name in config_of]
    down = outages(options.failures, config_of, spot, float(arrivals.arrival_s[-1]), rng)
    clocks = [entry.clock for entry in scenario.clocks]
    played = play_fleet(
        scenario.table,
        clocks,
        scenario.policy,
        arrivals,
        seed=options.seed * 1_000_003 + replication,
        outages=down,
        samples=samples,
    )
    warmup = int(options.warmup_share * len(arrivals))
    outcome = outcome_of(played, plan, scenario.table, clocks, warmup, causes=causes)
    capacity = np.array([clock.kv_capacity_tokens for clock in clocks], dtype=float)
    return replication_of(played, outcome, scenario.table, scenario.names, capacity, len(down))


def replications_of(
    scenario: Scenario, first: int, count: int, *, samples: bool = False, causes: bool = True
) -> list[Replication]:
    """Play replications ``first`` .. ``first + count - 1``, in parallel where the options ask for it."""
    wanted = [SAMPLES if samples and index == first else 0 for index in range(first, first + count)]
    arguments = [(scenario, first + k, n, causes) for k, n in enumerate(wanted)]
    # Compiled, the kernel runs without the interpreter's lock.
    return run(replicate, arguments, jobs=scenario.options.jobs, threads=IS_COMPILED)


def simulate(
    plan: Plan,
    trace: Trace | None = None,
    options: SimulationOptions | None = None,
    *,
    clocks: Mapping[str, ConfigClock] | None = None,
) -> SimulationReport:
    """Simulate a plan's fleet and report attainment, latencies, loads, costs and the causes of misses.

    ``trace`` gives the sizes, and the times where it has some; without one sizes come from the plan's buckets.
    ``clocks`` saves calibrating again. Errors as for :func:`scenario_of`.
    """
    scenario = scenario_of(plan, trace, options, clocks=clocks)
    count = 1 if _is_fixed(scenario) else scenario.options.replications
    return report_of(scenario, replications_of(scenario, 0, count, samples=True))


def _is_fixed(scenario: Scenario) -> bool:
    """Whether every replication would be the same: a replayed trace, and nothing else that is drawn."""
    if scenario.process.kind != "trace":
        return False
    draws = scenario.options.rotate or scenario.policy.within in ("random", "weighted-random", "power-of-two")
    return not draws and scenario.policy.estimator != "predictor" and not scenario.options.failures


def report_of(scenario: Scenario, replications: Sequence[Replication]) -> SimulationReport:
    """The report of a scenario's replications."""
    plan, options = scenario.plan, scenario.options
    outcome = joined([r.outcome for r in replications])
    shares = attainments(plan, replications)
    return SimulationReport(
        slo=plan.slo.to_dict(),
        slo_text=plan.slo.describe(),
        policy=scenario.policy.name,
        arrivals=_arrivals_text(scenario),
        sizes=scenario.sizes.source,
        requests=scenario.requests,
        warmup_requests=int(options.warmup_share * scenario.requests),
        replications=len(replications),
        seed=options.seed,
        attainment=Estimate.of(shares),
        attainment_by_replication=shares,
        mean_kept=mean_kept(plan, outcome),
        percentiles=kept_percentiles(outcome, plan.slo),
        cost_usd_per_hour=float(plan.cost_usd_per_hour or 0.0),
        ttft=Latency.of(outcome.ttft_s),
        tpot=Latency.of(outcome.tpot_s),
        e2e=Latency.of(outcome.e2e_s),
        means=means_of(plan, replications),
        missed_share=missed_shares(outcome),
        configs=config_reports(plan, scenario.names, outcome, replications),
        buckets=bucket_reports(plan, outcome),
        queue=replications[0].queue,
        tpot_quantiles_s=tpot_quantiles(outcome),
        clocks={entry.config: entry.to_dict() for entry in scenario.clocks},
        outages=sum(r.outages for r in replications),
        tokens_lost=sum(r.tokens_lost for r in replications),
        warnings=_warnings(scenario, len(replications)),
        provenance={
            "melange_version": __version__,
            "workload": plan.workload.name,
            "replicas": dict(plan.replicas),
        },
    )


def _arrivals_text(scenario: Scenario) -> str:
    text = f"{scenario.process.describe()}, {scenario.rate_rps:g} req/s"
    if scenario.process.kind != "trace" or scenario.trace is None or scenario.inside is None:
        return text
    recorded = recorded_rate_rps(scenario.trace, scenario.inside)
    return text if math.isclose(recorded, scenario.rate_rps, rel_tol=1e-6) else f"{text} (recorded: {recorded:.4g})"


def _warnings(scenario: Scenario, replications: int) -> tuple[str, ...]:
    found = []
    if scenario.sizes.dropped:
        found.append(f"{scenario.sizes.dropped} requests of the trace lie outside the plan's sizes and were left out")
    if not scenario.plan.slo.thresholds_s:
        found.append("the plan's SLO has no latency limit: attainment only counts requests that were served")
    if replications < 2:
        found.append("one replication says nothing about its own error: no confidence interval")
    return (*found, *_clock_warnings(scenario.clocks))


def _clock_warnings(clocks: Sequence[ConfigClock]) -> list[str]:
    """What the simulated latencies rest on, where that is less than measured latencies that fit."""
    found = []
    for matched, basis in (("saturation", "throughput"), ("slo", "rates under the SLO")):
        chosen = [entry for entry in clocks if entry.matched == matched]
        if chosen:
            found.append(
                f"clocks are calibrated to {basis} alone: latencies rest on the performance model ({_off(chosen)})"
            )
    late = [entry.config for entry in clocks if entry.matched == "nothing"]
    if late:
        found.append(f"no size is served in time by {', '.join(late)}: its clock is the performance model's alone")
    loose = [entry for entry in clocks if entry.matched == "latencies" and entry.median_error > LOOSE_FIT]
    if loose:
        found.append(
            f"the clock fitted to measured latencies of {', '.join(entry.config for entry in loose)} carries other "
            f"rates than the profile says ({_off(loose)}): measure more load points, on a quiet machine"
        )
    return found


def _off(clocks: Sequence[ConfigClock]) -> str:
    median = 100 * np.median([entry.median_error for entry in clocks])
    worst = 100 * max(entry.worst_error for entry in clocks)
    return f"rates match to {median:.0f}% in the median, {worst:.0f}% at worst"


def compare_policies(
    plan: Plan,
    policies: Sequence[str],
    trace: Trace | None = None,
    options: SimulationOptions | None = None,
    *,
    predictor_accuracy: float | None = None,
) -> dict[str, SimulationReport]:
    """A report per policy name over the same requests and clocks."""
    options = options or SimulationOptions()
    clocks = plan_clocks(plan, fleet_configs(plan))
    result = {}
    for name in policies:
        policy = policy_by_name(name, predictor_accuracy=predictor_accuracy)
        result[name] = simulate(plan, trace, replace(options, policy=policy), clocks=clocks)
    return result
