"""attain: the cheapest fleet whose *simulated* attainment reaches a target.

The integer program proposes and the simulator disposes. Every GPU type alone is sized to the promise first (see
single_types); below the cheapest of them, mixed fleets are simulated until all are ruled out (see fleet_search).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from melange.attainment.fleet_search import FleetSearch, Progress, cheapest, spot_check
from melange.attainment.fleets import Counts
from melange.attainment.ground import Ground, describe, ground_of
from melange.attainment.promise import sized_fleet
from melange.attainment.single_types import cheapest_single, lone_share, report_singles, sized_singles
from melange.attainment.standing import REPLICATIONS as STANDING_REPLICATIONS
from melange.attainment.standing import standing_of
from melange.attainment.surrogate import MissModel
from melange.attainment.trial import Trials
from melange.attainment.window_demands import WindowDemand, attained, harder, of_whole, spec_of, window_demands
from melange.capacity.profile import Profile
from melange.errors import InfeasibleError, InputError
from melange.files.shown import clock_text
from melange.plan.costs import Baseline
from melange.plan.plan import Plan
from melange.plan.promise import AttainReport, SizedFleet
from melange.planning.assemble import additivity_warning, pooled_warning
from melange.planning.baselines import savings_of
from melange.planning.options import SolveOptions
from melange.planning.planner import choices_of, plan_fleet
from melange.planning.profile_source import load_profile
from melange.planning.spec import WorkloadSpec
from melange.simulator.arrivals import drawn_process
from melange.simulator.simulate import LEAST_SPAN_S, SimulationOptions
from melange.slo import Slo
from melange.solver.problem import Status

if TYPE_CHECKING:
    from melange.traces import Trace

MAX_FLEETS = 100
MAX_REQUESTS = 6_000_000
LEAST_REQUESTS = 5000
# What a gigabyte or two holds; replications that confirm are twice as long.
MOST_REQUESTS = 1_000_000


def attain(
    spec: WorkloadSpec,
    target: float | None = None,
    options: SolveOptions | None = None,
    simulation: SimulationOptions | None = None,
    *,
    trace: Trace | None = None,
    profile: Profile | None = None,
    max_fleets: int = MAX_FLEETS,
    max_requests: int = MAX_REQUESTS,
    single_types: bool = True,
    standing: int = STANDING_REPLICATIONS,
    on_progress: Progress | None = None,
) -> tuple[Plan, AttainReport]:
    """The cheapest fleet for which at least ``target`` of the requests jointly meet the SLO's thresholds.

    ``target`` None takes the promise from the SLO: the share that it states, or its percentiles, which are kept one by
    one and leave no target to give.

    ``simulation`` says how to play a fleet (policy, arrivals, by default as uneven as the workload says; requests a
    replication, by default 5,000 or ten minutes of arrivals; its replications are the test's own); ``trace`` gives
    sizes. A process of kind ``trace`` plays the trace's own requests at its own times, each replication once round from
    another of them on. ``standing`` replications stand behind each figure of what the promise stands, 0 asks for none.
    The search ends after ``max_fleets`` fleets or ``max_requests`` requests were simulated, and says what it has
    not ruled out. Configs that serve no size in time are left out, and named by the report. The plan carries the report
    as ``attain`` and single-type fleets *of the same promise* as baselines (none where ``single_types`` is False; the
    cheapest fleet may then be missed). InputError for a target outside (0, 1), an SLO without thresholds or a replay
    without times, InfeasibleError when no fleet can keep the promise.
    """
    target = _promised(spec.slo, target)
    if spec.window_share is not None and (trace is not None or (simulation and simulation.rate_rps)):
        raise InputError("windows have rates and sizes of their own", fix="leave the trace and the rate out")
    options = replace(options or SolveOptions(), slice_factor=None)
    simulation = _repeatable(simulation or SimulationOptions(), spec, trace)
    tell = on_progress or (lambda line: None)
    profile = profile or load_profile(spec)
    paper = plan_fleet(spec, options, profile=profile)
    windows = window_demands(spec, paper)
    hardest = spec_of(spec, windows[0].demand) if windows else spec
    ground = ground_of(choices_of(hardest, options, profile), trace=trace)
    search = _search(ground, target, simulation, trace, max_fleets, max_requests, tell)
    lone = lone_share(search)
    if lone < target:
        limit = "the worst limit of " if spec.slo.quantiles else ""
        raise InfeasibleError(
            f"{100 * lone:.2f}% of the requests keep {limit}{spec.slo.describe()} even alone on the fastest GPU: "
            f"no fleet reaches {100 * target:g}%"
        )
    search, best, passed, singles = _settled(search, windows, single_types)
    plan, report = _answer(search, paper, best, len(passed), report_singles(search, singles), lone)
    if windows:
        report = replace(report, windows=attained(search, plan, windows))
    if standing:
        tell("what the promise stands")
        report = replace(report, standing=standing_of(plan, search.trials, spec.workload, replications=standing))
    if windows:
        plan = of_whole(plan, spec, paper)
    return replace(plan, attain=report, warnings=(*_shortfall(report), *plan.warnings)), report


def _settled(
    search: FleetSearch, windows: Sequence[WindowDemand], single_types: bool
) -> tuple[FleetSearch, Counts, list[Counts], dict[str, Counts | SizedFleet]]:
    """The search at its end, its best fleet, the spot checks that passed, and the single types that were sized.

    Where the best fleet falls short in a window, the search goes on with that one among its demands.
    """
    while True:
        singles: dict[str, Counts | SizedFleet] = sized_singles(search) if single_types else {}
        best = cheapest(search, cheapest_single(search, singles))
        passed = spot_check(search, best)
        best = min([best, *passed], key=search.cost)
        broken = _worst_window(search, best, windows)
        if broken is None:
            return search, best, passed, singles
        search.progress(f"{describe(search.problem, best)} falls short in the window at {clock_text(broken.start_s)}")
        search = harder(search, broken)


def _worst_window(search: FleetSearch, best: Counts, windows: Sequence[WindowDemand]) -> WindowDemand | None:
    """The window, not yet among the demands, in which the fleet falls furthest below the target; None where in none."""
    plan = search.plan(best)
    assert plan is not None
    known = {id(demand) for demand in search.trials.demands}
    others = [window for window in windows[1:] if id(window.demand) not in known]
    results = [(search.trials.look_at(plan, window.demand), window) for window in others]
    broken = [(result.attainment, n) for n, (result, _) in enumerate(results) if not result.passed]
    return others[min(broken)[1]] if broken else None


def _promised(slo: Slo, target: float | None) -> float:
    """The share to attain (see Slo.attained): the one that was asked for, or the SLO's own."""
    if not slo.thresholds_s:
        raise InputError("the workload's SLO has no threshold to attain", fix="give it a TPOT, TTFT or E2E limit")
    if target is None:
        if slo.share is None:
            raise InputError("the workload's SLO is about means and states no share to attain", fix="give one: 0.99")
        return slo.share
    if not 0 < target < 1:
        raise InputError(f"attainment target is {target}", fix="give a share between 0 and 1, for example 0.99")
    if slo.quantiles:
        raise InputError(
            f"the SLO promises percentiles, {slo.describe()}, and the target {target:g} is of a joint attainment",
            fix="leave the target out (--attain alone), or the percentiles",
        )
    return target


def _search(
    ground: Ground,
    target: float,
    simulation: SimulationOptions,
    trace: Trace | None,
    max_fleets: int,
    max_requests: int,
    tell: Progress,
) -> FleetSearch:
    """A search over the fleets of a ground, nothing judged yet. InfeasibleError where no machine can serve anything."""
    units = np.eye(len(ground.in_time.instances), dtype=np.int64)
    plans = (ground.plan(tuple(int(n) for n in unit)) for unit in units)
    one = next((plan for plan in plans if plan is not None), None)
    if one is None:
        raise InfeasibleError("no machine that may be rented can hold the requests")
    trials = Trials(target=target, options=simulation, clocks=ground.clocks, trace=trace)
    return FleetSearch(
        ground=ground,
        trials=trials,
        arrivals=trials.scenario(one).arrivals(0),
        model=MissModel(ground.in_time, ground.least, target),
        progress=tell,
        most_requests=max_requests,
        most_fleets=max_fleets,
    )


def _repeatable(simulation: SimulationOptions, spec: WorkloadSpec, trace: Trace | None) -> SimulationOptions:
    """The options with a process and a number of requests: 5,000 or ten minutes' of drawn ones, a whole trace's."""
    process = simulation.process or drawn_process(spec.workload.burstiness_cv)
    replayed = process.kind == "trace"
    if replayed and (trace is None or not trace.span_s):
        raise InputError(
            "arrivals are those of the trace, but "
            + ("none was given" if trace is None else "it has no arrival times"),
            fix="give a trace with times, or draw the arrivals: poisson, gamma:CV or mmpp",
        )
    rate = simulation.rate_rps or spec.workload.total_rate_rps
    whole = len(trace) if replayed and trace is not None else max(LEAST_REQUESTS, int(LEAST_SPAN_S * rate))
    requests = simulation.requests or whole
    if requests > MOST_REQUESTS:
        raise InputError(
            f"a replication has {requests:,} requests, more than the {MOST_REQUESTS:,} that memory is sure to hold",
            fix="give a number of requests, or solve for a share of the rate",
        )
    return replace(simulation, process=process, requests=requests, rotate=replayed)


def _shortfall(report: AttainReport) -> tuple[str, ...]:
    short = report.shortfall
    return () if short is None else (short,)


def _answer(
    search: FleetSearch,
    paper: Plan,
    best: Counts,
    spot_check_passed: int,
    single: Mapping[str, SizedFleet],
    lone: float,
) -> tuple[Plan, AttainReport]:
    cost = search.cost(best)
    plan = search.plan(best, _baselines(single, cost))
    assert plan is not None
    costs = [f.cost_usd_per_hour for f in single.values() if f.cost_usd_per_hour is not None]
    scenario = search.trials.scenario(plan)
    results = search.results
    base = paper.cost_usd_per_hour
    report = AttainReport(
        target=search.trials.target,
        percentiles=bool(plan.slo.quantiles),
        fleet=sized_fleet(plan, results[best]),
        bound_usd_per_hour=paper.bound_usd_per_hour,
        paper=_mean_load_fleet(search, paper),
        promise_usd_per_hour=None if base is None else cost - base,
        promise_share=cost / base - 1 if base else None,
        single_type=single,
        savings=savings_of(cost, min(costs, default=None)),
        policy=scenario.policy.name,
        arrivals=f"{scenario.process.describe()}, {scenario.rate_rps:g} req/s",
        sizes=scenario.sizes.source,
        requests=scenario.requests,
        simulated=len(results),
        cut_off=search.cut_off,
        overloaded=len(search.overloaded),
        spot_checked=search.spot_checked,
        spot_check_passed=spot_check_passed,
        confirmations=sum(result.low is not None for result in results.values()),
        complete=search.complete,
        not_ruled_out=tuple(describe(search.problem, counts) for counts in search.not_ruled_out),
        left_out=search.ground.left_out,
        lone_share=lone,
    )
    settled = (*additivity_warning(plan.slo), *pooled_warning(plan.slo))  # The mix was played, not added up.
    kept = (warning for warning in plan.warnings if warning not in settled)
    warnings = (*kept, *_short_warning(scenario.requests / scenario.rate_rps))
    # Simulation rules fleets out, it proves nothing: the report says what was ruled out, the plan has no bound.
    judged = replace(plan, status=Status.FEASIBLE, bound_usd_per_hour=None, gap=None)
    return replace(judged, warnings=warnings, routing=paper.routing, attain=report), report


def _mean_load_fleet(search: FleetSearch, paper: Plan) -> SizedFleet:
    """What the integer program rents for the mean load, played once over; why it rents nothing, where it does not."""
    if not paper.solved:
        reasons = paper.reasons or ("the time limit passed before any was found",)
        return SizedFleet(reason="; ".join(reasons))
    counts = tuple(paper.instances.get(key, 0) for key in search.problem.instances)
    search.screen([counts])
    plan = search.ground.plan(counts)
    result = search.results.get(counts)
    return SizedFleet(reason="it serves nothing") if plan is None or result is None else sized_fleet(plan, result)


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
            savings=savings_of(cost_usd_per_hour, f.cost_usd_per_hour),
            reason=f.reason,
        )
        for gpu, f in single.items()
    }
