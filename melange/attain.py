"""attain: the cheapest fleet whose *simulated* attainment reaches a target.

The integer program proposes and the simulator disposes. Fleets are taken in order of cost from the program's bound.
Before a fleet is simulated, it is grown to a maximal one below the best cost so far: if even that fails, it and every
fleet it dominates are cut off together; if it passes, it is the new best. That a larger fleet does at least as well
under these policies is an assumption: some of those cut off are simulated after all, and the report says what they did.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from melange.assemble import additivity_warning, plan_of
from melange.build import Build
from melange.errors import InfeasibleError, InputError
from melange.fleets import Counts, arranged, dominates, fleet_cost, fleets_between, maximal
from melange.late import Late
from melange.plan import Baseline, Plan
from melange.planner import PlanOptions, plan_fleet, prepare_each
from melange.problem import Problem, Solution
from melange.profiles import Profile
from melange.simulator.arrivals import Process
from melange.simulator.clocks import plan_clocks
from melange.simulator.metrics import lone_met
from melange.simulator.promise import AttainReport, SizedFleet
from melange.simulator.simulate import LEAST_SPAN_S, SimulationOptions
from melange.simulator.trial import Trials, Verdict
from melange.solver import solve
from melange.workload_file import WorkloadSpec

if TYPE_CHECKING:
    from melange.traces import Trace

Progress = Callable[[str], None]

HEADROOMS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.65, 1.0, 1.5, 2.5, 4.0)
MAX_FLEETS = 400
SPOT_CHECKS = 3
HEADROOM_STEP = 0.02
SIZES_TESTED = 12
LEAST_REQUESTS = 5000
# What a gigabyte or two holds; replications that confirm are twice as long.
MOST_REQUESTS = 1_000_000


@dataclass(slots=True, kw_only=True)
class _Search:
    """The state of one search.

    ``problem`` has the instances, prices and limits that all ``builds`` share; ``builds`` are the workload's problems
    by the buckets that they leave out as late, of which a fleet gets the one of the GPU types that it rents.
    ``attempts`` counts the confirmations among which the test's error is divided.
    """

    builds: Mapping[Late, Build]
    problem: Problem
    trials: Trials
    progress: Progress
    failed: list[Counts] = field(default_factory=list)
    verdicts: dict[Counts, Verdict] = field(default_factory=dict)
    attempts: int = 0
    cut_off: list[Counts] = field(default_factory=list)
    overloaded: int = 0

    def build_for(self, gpus: Sequence[str]) -> Build | None:
        """The build with what none of these GPU types can serve in time left out; None where that is too much."""
        late = next(iter(self.builds.values())).late_by_type()
        return self.builds.get(frozenset.intersection(*(late[gpu] for gpu in gpus)))

    def plan(
        self, counts: Counts, bound_usd: float = 0.0, baselines: Mapping[str, Baseline] | None = None
    ) -> Plan | None:
        """The plan of instance counts with the shares of most slack; None where they cannot carry the mean load."""
        offers = next(iter(self.builds.values())).offers
        build = self.build_for([offer.gpu for offer, n in zip(offers, counts, strict=True) if n])
        if build is None or build.problem is None:
            return None
        problem = replace(build.problem, slice_factor=None)
        found = arranged(problem, counts)
        if found is None:
            return None
        replicas, shares, _ = found
        cost = fleet_cost(problem, counts)
        gap = max(0.0, 1 - bound_usd / cost)
        solution = Solution(
            status="optimal" if gap <= 1e-9 else "feasible",
            shares=shares,
            replicas=replicas,
            instances=np.array(counts, dtype=np.int64),
            cost_usd_per_hour=cost,
            bound_usd_per_hour=bound_usd,
            gap=gap,
        )
        return plan_of(build, solution, baselines or {})

    def passes(self, counts: Counts, plan: Plan) -> bool:
        """Screen, then confirm, unless an earlier verdict still stands."""
        known = self.verdicts.get(counts)
        if known is not None and (known.passed or known.low is None):
            return known.passed
        verdict = self.trials.screen(plan)
        if verdict.passed:
            self.attempts += 1
            verdict = self.trials.confirm(plan, self.attempts)
        self.verdicts[counts] = verdict
        self.progress(f"{_describe(self.problem, counts)}: attainment {100 * verdict.attainment:.2f}%")
        return verdict.passed


def attain(
    spec: WorkloadSpec,
    target: float,
    options: PlanOptions | None = None,
    simulation: SimulationOptions | None = None,
    *,
    trace: Trace | None = None,
    profile: Profile | None = None,
    max_fleets: int = MAX_FLEETS,
    single_types: bool = True,
    on_progress: Progress | None = None,
) -> tuple[Plan, AttainReport]:
    """The cheapest fleet for which at least ``target`` of the requests jointly meet the SLO's thresholds.

    ``simulation`` says how to play a fleet (policy, arrivals, by default Poisson; requests a replication, by default
    5,000 or ten minutes of arrivals; its replications are the test's own); ``trace`` gives sizes. At most
    ``max_fleets`` are simulated. The plan carries the report under ``extra["attain"]`` and the single-type fleets *of
    the same promise* as baselines (none where ``single_types`` is False). InputError for a target outside (0, 1), an
    SLO without thresholds or a replayed trace, InfeasibleError when no fleet can keep the promise.
    """
    if not 0 < target < 1:
        raise InputError(f"attainment target is {target}", fix="give a share between 0 and 1, for example 0.99")
    options = options or PlanOptions()
    paper = plan_fleet(spec, options, profile=profile)
    if not paper.solved:
        reasons = paper.reasons or ("the time limit passed before any was found",)
        raise InfeasibleError("no fleet serves even the mean load: " + "; ".join(reasons))
    if not paper.slo.thresholds_s:
        raise InputError("the workload's SLO has no threshold to attain", fix="give it a TPOT, TTFT or E2E limit")
    simulation = _repeatable(simulation or SimulationOptions(), paper)
    trials = Trials(target=target, options=simulation, clocks=plan_clocks(paper), trace=trace)
    lone = _lone_share(trials, paper, list(paper.configs))
    if lone < target:
        raise InfeasibleError(
            f"{100 * lone:.2f}% of the requests keep {paper.slo.describe()} even alone on the fastest GPU: "
            f"no fleet reaches {100 * target:g}%"
        )
    search = _search(prepare_each(spec, options, profile), trials, on_progress or (lambda line: None))
    best = _first_passing(search, options)
    best, complete = _cheapest(search, best, paper.bound_usd_per_hour or 0.0, max_fleets)
    checked = _spot_check(search)
    single = _single_types(search, paper) if single_types else {}
    return _answer(search, paper, best, complete, checked, single, lone)


def _repeatable(simulation: SimulationOptions, paper: Plan) -> SimulationOptions:
    """The options with drawn arrivals and a number of requests: 5,000 or ten minutes' unless one was given."""
    process = simulation.process or Process(kind="poisson")
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


def _search(builds: Sequence[Build], trials: Trials, progress: Progress) -> _Search:
    solvable = {build.late: build for build in builds if build.problem is not None}
    problem = next(build.problem for build in solvable.values() if build.problem is not None)
    return _Search(builds=solvable, problem=replace(problem, slice_factor=None), trials=trials, progress=progress)


def _lone_share(trials: Trials, plan: Plan, configs: Sequence[str]) -> float:
    """Share of requests that some of these configs keeps within the SLO when it is idle."""
    arrivals = trials.scenario(plan).arrivals(0)
    clocks = [trials.clocks[name].clock for name in configs]
    alone = [lone_met(clock, plan.slo, arrivals.input_tokens, arrivals.output_tokens) for clock in clocks]
    return float(np.any(alone, axis=0).mean())


def _first_passing(search: _Search, options: PlanOptions) -> Counts:
    """A fleet that passes, to start from: the cheapest of those that the program gives with more and more headroom.

    It is asked for mixed fleets and for every instance type alone: the cheapest capacity may be too slow for a promise
    that a dearer GPU keeps with room to spare.
    """
    found: set[Counts] = set()
    for build in search.builds.values():
        assert build.problem is not None
        found.update(_proposals(replace(build.problem, slice_factor=None), options))
    for counts in sorted(found, key=lambda counts: (fleet_cost(search.problem, counts), counts)):
        if any(dominates(f, counts) for f in search.failed):
            continue
        plan = search.plan(counts)
        if plan is None:
            continue
        if search.passes(counts, plan):
            return counts
        search.failed.append(counts)
    reached = max((v.attainment for v in search.verdicts.values()), default=0.0)
    raise InfeasibleError(
        f"no fleet within the limits was confirmed to attain {100 * search.trials.target:g}%: "
        f"the best that was simulated reached {100 * reached:.2f}%"
    )


def _proposals(problem: Problem, options: PlanOptions) -> set[Counts]:
    """Fleets for growing headrooms, of all types and of each alone."""
    alone = [problem.only_instances({key}) for key in problem.instances]
    found = set()
    for part in (problem, *(p for p in alone if p is not None and np.isfinite(p.load).any(axis=1).all())):
        for headroom in HEADROOMS:
            scaled = replace(part, load=part.load * (1 + headroom))
            solution = solve(scaled, gap=options.gap, time_limit_s=options.time_limit_s)
            if solution.instances is None:
                break
            found.add(_wide(problem, part, solution))
    return found


def _wide(whole: Problem, part: Problem, solution: Solution) -> Counts:
    """The instance counts of a solution for some instance types alone, in the order of all."""
    assert solution.instances is not None
    number = dict(zip(part.instances, solution.instances, strict=True))
    return tuple(int(number.get(key, 0)) for key in whole.instances)


def _cheapest(search: _Search, best: Counts, bound: float, max_fleets: int) -> tuple[Counts, bool]:
    """The cheapest fleet that passes, and whether all cheaper ones were ruled out."""
    problem = search.problem
    low = bound
    while True:
        cost = fleet_cost(problem, best)
        for counts in fleets_between(problem, low, cost):
            if any(dominates(f, counts) for f in search.failed):
                search.cut_off.append(counts)
                continue
            if len(search.verdicts) >= max_fleets:
                return best, False
            plan = search.plan(counts)
            if plan is None:
                search.overloaded += 1
                continue
            grown = maximal(problem, counts, cost)
            larger = search.plan(grown)
            if larger is None:
                # It rents a type for which what the smaller one may serve late is not late.
                grown, larger = counts, plan
            if search.passes(grown, larger):
                best, low = grown, fleet_cost(problem, counts)
                break
            search.failed.append(grown)
            if grown != counts:
                search.cut_off.append(counts)
        else:
            return best, True


def _spot_check(search: _Search) -> tuple[int, int]:
    """Simulate a few of the fleets that were cut off; (how many, how many pass against the assumption)."""
    draw = random.Random(search.trials.options.seed)
    distinct = sorted({counts for counts in search.cut_off if counts not in search.verdicts})
    draw.shuffle(distinct)
    checked, passed = 0, 0
    for counts in distinct:
        plan = search.plan(counts)
        if plan is None:
            continue
        verdict = search.trials.screen(plan)
        if verdict.passed:
            verdict = search.trials.confirm(plan, search.attempts + 1)
        checked += 1
        passed += verdict.passed
        if checked == SPOT_CHECKS:
            break
    return checked, passed


def _single_types(search: _Search, paper: Plan) -> dict[str, SizedFleet]:
    """Every GPU type alone, sized to the same promise: a search of its own, its test at the same error.

    A type's fleets leave out as late what that type cannot serve in time, as any fleet of it does.
    """
    offers = next(iter(search.builds.values())).offers
    result = {}
    for gpu in dict.fromkeys(offer.gpu for offer in offers):
        build = search.build_for([gpu])
        keys = {offer.key for offer in offers if offer.gpu == gpu}
        alone = None if build is None or build.problem is None else _alone(build.problem, keys)
        if alone is None:
            result[gpu] = SizedFleet(reason="it cannot serve every size in time")
        elif (lone := _lone_share(search.trials, paper, alone.configs)) < search.trials.target:
            result[gpu] = SizedFleet(
                reason=f"alone on an idle one, only {100 * lone:.2f}% of the requests keep the SLO"
            )
        else:
            result[gpu] = _sized_alone(replace(search, attempts=0), alone)
    return result


def _alone(problem: Problem, keys: set[str]) -> Problem | None:
    """The problem with these instance types and their own limits alone; None where they cannot serve some size."""
    own = tuple(limit for limit in problem.limits if set(limit.weights) & keys)
    alone = replace(problem, limits=own, max_cost_usd_per_hour=None, slice_factor=None).only_instances(keys)
    return alone if alone is not None and np.isfinite(alone.load).any(axis=1).all() else None


def _sized_alone(search: _Search, alone: Problem) -> SizedFleet:
    """The smallest fleet of one type that passes.

    Headroom is raised until a quick look expects the test to be passed, and the gap is halved; see :func:`_tested`.
    """
    looks: dict[Counts, bool] = {}

    @cache
    def fleet(headroom: float) -> Counts | None:
        solution = solve(replace(alone, load=alone.load * (1 + headroom)))
        return None if solution.instances is None else _wide(search.problem, alone, solution)

    def looks_good(headroom: float) -> bool:
        counts = fleet(headroom)
        if counts is not None and counts not in looks:
            plan = search.plan(counts)
            looks[counts] = plan is not None and search.trials.expects(plan)
        return counts is not None and looks[counts]

    low, high = 0.0, next((h for h in HEADROOMS if looks_good(h)), None)
    if high is None:
        return SizedFleet(reason=f"no fleet of it alone reached the target with up to {HEADROOMS[-1]:g} times headroom")
    while fleet(low) != fleet(high) and high - low > HEADROOM_STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if looks_good(middle) else (middle, high)
    return _tested(search, fleet, high)


def _tested(search: _Search, fleet: Callable[[float], Counts | None], headroom: float) -> SizedFleet:
    """The fleet of a headroom put to the test: shrunk while it passes, or grown until it does."""
    best, step = None, 0.0
    for _ in range(SIZES_TESTED):
        counts = fleet(headroom) if headroom >= 0 else None
        plan = None if counts is None else search.plan(counts)
        if counts is None or plan is None:
            break
        passed = search.passes(counts, plan)
        if passed:
            best = SizedFleet.of(plan, search.verdicts[counts])
        if step and passed == (step > 0):
            break
        step = step or (-HEADROOM_STEP if passed else HEADROOM_STEP)
        while headroom >= 0 and fleet(headroom) == counts:
            headroom += step
    return best or SizedFleet(reason="no fleet of it alone that looked good stood the test")


def _answer(
    search: _Search,
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
        fleet=SizedFleet.of(plan, verdicts[best]),
        bound_usd_per_hour=paper.bound_usd_per_hour,
        paper=SizedFleet.of(paper, search.trials.screen(paper)),
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
    return replace(plan, warnings=warnings, extra={**paper.extra, "attain": report.to_dict()}), report


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


def _describe(problem: Problem, counts: Counts) -> str:
    return " + ".join(f"{n} x {key}" for key, n in zip(problem.instances, counts, strict=True) if n)
