"""attain: the cheapest fleet whose *simulated* attainment reaches a target.

The integer program proposes and the simulator disposes. Fleets are taken in order of cost from the program's bound (see
fleet_search); beside the cheapest, every GPU type alone is sized to the same promise (see single_types).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from melange.attainment.fleet_search import FleetSearch, Progress, cheapest, first_passing, fleet_search, spot_check
from melange.attainment.fleets import Counts, fleet_cost
from melange.attainment.promise import sized_fleet
from melange.attainment.single_types import lone_share, sized_types
from melange.attainment.trial import Trials
from melange.capacity.profile import Profile
from melange.errors import InfeasibleError, InputError
from melange.plan.costs import Baseline
from melange.plan.plan import Plan
from melange.plan.promise import AttainReport, SizedFleet
from melange.planning.assemble import additivity_warning
from melange.planning.case import cases
from melange.planning.options import SolveOptions
from melange.planning.planner import choices_of, plan_fleet
from melange.planning.spec import WorkloadSpec
from melange.simulator.arrivals import drawn_process
from melange.simulator.clocks import plan_clocks
from melange.simulator.simulate import LEAST_SPAN_S, SimulationOptions

if TYPE_CHECKING:
    from melange.traces import Trace

MAX_FLEETS = 400
LEAST_REQUESTS = 5000
# What a gigabyte or two holds; replications that confirm are twice as long.
MOST_REQUESTS = 1_000_000


def attain(
    spec: WorkloadSpec,
    target: float,
    options: SolveOptions | None = None,
    simulation: SimulationOptions | None = None,
    *,
    trace: Trace | None = None,
    profile: Profile | None = None,
    max_fleets: int = MAX_FLEETS,
    single_types: bool = True,
    on_progress: Progress | None = None,
) -> tuple[Plan, AttainReport]:
    """The cheapest fleet for which at least ``target`` of the requests jointly meet the SLO's thresholds.

    ``simulation`` says how to play a fleet (policy, arrivals, by default as uneven as the
    workload says; requests a replication, by default
    5,000 or ten minutes of arrivals; its replications are the test's own); ``trace`` gives sizes. At most
    ``max_fleets`` are simulated. The plan carries the report as ``attain`` and the single-type fleets *of
    the same promise* as baselines (none where ``single_types`` is False). InputError for a target outside (0, 1), an
    SLO without thresholds or a replayed trace, InfeasibleError when no fleet can keep the promise.
    """
    if not 0 < target < 1:
        raise InputError(f"attainment target is {target}", fix="give a share between 0 and 1, for example 0.99")
    options = options or SolveOptions()
    paper = plan_fleet(spec, options, profile=profile)
    if not paper.solved:
        reasons = paper.reasons or ("the time limit passed before any was found",)
        raise InfeasibleError("no fleet serves even the mean load: " + "; ".join(reasons))
    if not paper.slo.thresholds_s:
        raise InputError("the workload's SLO has no threshold to attain", fix="give it a TPOT, TTFT or E2E limit")
    simulation = _repeatable(simulation or SimulationOptions(), paper)
    trials = Trials(target=target, options=simulation, clocks=plan_clocks(paper), trace=trace)
    lone = lone_share(trials, paper, list(paper.configs))
    if lone < target:
        raise InfeasibleError(
            f"{100 * lone:.2f}% of the requests keep {paper.slo.describe()} even alone on the fastest GPU: "
            f"no fleet reaches {100 * target:g}%"
        )
    choices = choices_of(spec, replace(options, slice_factor=None), profile)
    search = fleet_search(cases(choices), trials, on_progress or (lambda line: None))
    best = first_passing(search)
    best, complete = cheapest(search, best, paper.bound_usd_per_hour or 0.0, max_fleets)
    checked = spot_check(search)
    single = sized_types(search, paper) if single_types else {}
    return _answer(search, paper, best, complete, checked, single, lone)


def _repeatable(simulation: SimulationOptions, paper: Plan) -> SimulationOptions:
    """The options with drawn arrivals and a number of requests: 5,000 or ten minutes' unless one was given."""
    process = simulation.process or drawn_process(paper)
    if process.kind == "trace":
        raise InputError(
            "a replayed trace is the same in every replication, so nothing can be confirmed on it",
            fix="take its sizes and draw the arrivals: poisson, gamma:CV or mmpp",
        )
    rate = simulation.rate_rps or sum(b.rate_rps for b in paper.buckets)
    requests = simulation.requests or max(LEAST_REQUESTS, int(LEAST_SPAN_S * rate))
    if requests > MOST_REQUESTS:
        raise InputError(
            f"a replication has {requests:,} requests, more than the {MOST_REQUESTS:,} that memory is sure to hold",
            fix="give a number of requests, or solve for a share of the rate",
        )
    return replace(simulation, process=process, requests=requests)


def _answer(
    search: FleetSearch,
    paper: Plan,
    best: Counts,
    complete: bool,
    spot: tuple[int, int],
    single: Mapping[str, SizedFleet],
    lone: float,
) -> tuple[Plan, AttainReport]:
    cost, base = fleet_cost(search.problem, best), float(paper.cost_usd_per_hour or 0.0)
    plan = search.plan(best, paper.bound_usd_per_hour or 0.0, _baselines(single, cost))
    assert plan is not None
    costs = [f.cost_usd_per_hour for f in single.values() if f.cost_usd_per_hour is not None]
    scenario = search.trials.scenario(paper)
    verdicts = search.verdicts
    report = AttainReport(
        target=search.trials.target,
        fleet=sized_fleet(plan, verdicts[best]),
        bound_usd_per_hour=paper.bound_usd_per_hour,
        paper=sized_fleet(paper, search.trials.screen(paper)),
        promise_usd_per_hour=cost - base,
        promise_share=cost / base - 1,
        single_type=single,
        savings=1 - cost / min(costs) if costs else None,
        policy=scenario.policy.name,
        arrivals=f"{scenario.process.describe()}, {scenario.rate_rps:g} req/s",
        sizes=scenario.sizes.source,
        requests=scenario.requests,
        simulated=len(verdicts),
        cut_off=len(set(search.cut_off)),
        overloaded=search.overloaded,
        spot_checked=spot[0],
        spot_check_passed=spot[1],
        confirmations=sum(verdict.low is not None for verdict in verdicts.values()),
        complete=complete,
        lone_share=lone,
    )
    settled = additivity_warning(plan.slo)  # The mix was played, not added up.
    kept = (warning for warning in plan.warnings if warning not in settled)
    warnings = (*kept, *_short_warning(scenario.requests / scenario.rate_rps))
    return replace(plan, warnings=warnings, routing=paper.routing, attain=report), report


def _short_warning(span_s: float) -> tuple[str, ...]:
    """A sentence for replications too short to show a queue that grows slowly."""
    if span_s >= 0.99 * LEAST_SPAN_S:
        return ()
    return (
        f"a replication spans {span_s:.3g} s of arrivals: queues that grow over minutes are not seen; "
        f"{LEAST_SPAN_S:g} s or more show them",
    )


def _baselines(single: Mapping[str, SizedFleet], cost_usd_per_hour: float) -> dict[str, Baseline]:
    """The single-type fleets of the same promise as a plan's baselines."""
    return {
        gpu: Baseline(
            instances=f.instances,
            replicas=f.replicas,
            cost_usd_per_hour=f.cost_usd_per_hour,
            savings=None if f.cost_usd_per_hour is None else 1 - cost_usd_per_hour / f.cost_usd_per_hour,
            reason=f.reason,
        )
        for gpu, f in single.items()
    }
