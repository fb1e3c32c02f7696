"""attain: the cheapest fleet whose *simulated* attainment reaches a target.

The integer program proposes and the simulator disposes. Fleets are taken in order of cost from the program's bound.
Before a fleet is simulated, it is grown to a maximal one below the best cost so far: if even that fails, it and every
fleet it dominates are cut off together; if it passes, it is the new best. That a larger fleet does at least as well
under these policies is an assumption: some of those cut off are simulated after all, and the report says what they did.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from melange.allocation import loads
from melange.assemble import counts as named_counts
from melange.assemble import plan_of
from melange.build import Build
from melange.errors import InfeasibleError, InputError
from melange.fleets import Counts, arranged, dominates, fleet_cost, fleets_between, maximal
from melange.plan import Baseline, Plan
from melange.planner import PlanOptions, plan_fleet
from melange.planner import prepare as prepare_build
from melange.problem import Problem, Solution
from melange.profiles import Profile
from melange.simulator.clocks import plan_clocks
from melange.simulator.metrics import lone_met
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
GROWTHS = 12
LEAST_REQUESTS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedFleet:
    """A fleet that keeps the promise, or why a GPU type has none.

    ``headroom`` maps a config to replicas / load - 1: by how much its capacity exceeds the mean load that it carries.
    """

    instances: Mapping[str, int] | None = None
    replicas: Mapping[str, int] | None = None
    cost_usd_per_hour: float | None = None
    attainment: float | None = None
    attainment_low: float | None = None
    headroom: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttainReport:
    """How the cheapest fleet that keeps the promise was found.

    ``bound_usd_per_hour`` is what the integer program proves for the mean load alone; ``paper`` the fleet it would
    rent, with its simulated attainment. ``attainment_low`` is the one-sided bound of the confirming test.
    ``simulated`` fleets were played, ``cut_off`` ruled out by a failing larger one (``spot_checked`` of them played
    after all, ``spot_check_passed`` against the assumption), ``overloaded`` cannot carry the mean load. ``complete`` is
    false when the search ended before every cheaper fleet was ruled out. ``lone_share``: requests that keep the SLO on
    the best idle GPU, which no fleet exceeds.
    """

    target: float
    fleet: SizedFleet
    bound_usd_per_hour: float | None
    paper: SizedFleet
    promise_usd_per_hour: float
    promise_share: float
    single_type: Mapping[str, SizedFleet]
    savings: float | None
    policy: str
    arrivals: str
    sizes: str
    requests: int
    simulated: int
    cut_off: int
    overloaded: int
    spot_checked: int
    spot_check_passed: int
    confirmations: int
    complete: bool
    lone_share: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> AttainReport:
        """Read what :meth:`to_dict` wrote."""
        single = {gpu: SizedFleet(**fleet) for gpu, fleet in row["single_type"].items()}
        fleets = {name: SizedFleet(**row[name]) for name in ("fleet", "paper")}
        return cls(**{**row, **fleets, "single_type": single})


@dataclass(slots=True, kw_only=True)
class _Search:
    """The state of one search."""

    build: Build
    problem: Problem
    trials: Trials
    progress: Progress
    failed: list[Counts] = field(default_factory=list)
    verdicts: dict[Counts, Verdict] = field(default_factory=dict)
    confirmations: int = 0
    cut_off: list[Counts] = field(default_factory=list)
    overloaded: int = 0

    def plan(self, problem: Problem, counts: Counts) -> Plan | None:
        """The plan of instance counts with the shares of most slack; None where they cannot carry the mean load."""
        found = arranged(problem, counts)
        if found is None:
            return None
        replicas, shares, _ = found
        return plan_of(self.build, _widened(self.problem, problem, counts, replicas, shares), {})

    def passes(self, counts: Counts, plan: Plan) -> bool:
        """Screen, then confirm."""
        verdict = self.trials.screen(plan)
        if verdict.passed:
            self.confirmations += 1
            verdict = self.trials.confirm(plan, self.confirmations)
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

    ``simulation`` says how to play a fleet (policy, arrivals, requests a replication, by default 5,000 or ten minutes
    of arrivals; its replications are the test's own); ``trace`` gives sizes. At most ``max_fleets`` are simulated. The
    plan carries the report under ``extra["attain"]`` and the single-type fleets *of the same promise* as baselines
    (none where ``single_types`` is False). InputError for a target outside (0, 1) or an SLO without thresholds,
    InfeasibleError when no fleet can keep the promise.
    """
    if not 0 < target < 1:
        raise InputError(f"attainment target is {target}", fix="give a share between 0 and 1, for example 0.99")
    options = options or PlanOptions()
    paper = plan_fleet(spec, options, profile=profile)
    simulation = _long_enough(simulation or SimulationOptions(), paper)
    build = prepare_build(spec, options, profile)
    if build.problem is None or not paper.solved:
        raise InfeasibleError("no fleet serves even the mean load: " + "; ".join(paper.reasons))
    if not paper.slo.thresholds_s:
        raise InputError("the workload's SLO has no threshold to attain", fix="give it a TPOT, TTFT or E2E limit")
    trials = Trials(target=target, options=simulation, clocks=plan_clocks(paper), trace=trace)
    lone = _lone_share(trials, paper, list(paper.configs))
    if lone < target:
        raise InfeasibleError(
            f"{100 * lone:.2f}% of the requests keep {paper.slo.describe()} even alone on the fastest GPU: "
            f"no fleet reaches {100 * target:g}%"
        )
    problem = replace(build.problem, slice_factor=None)
    search = _Search(build=build, problem=problem, trials=trials, progress=on_progress or (lambda line: None))
    best = _first_passing(search, options)
    best, complete = _cheapest(search, best, paper.bound_usd_per_hour or 0.0, max_fleets)
    checked, against = _spot_check(search)
    single = _single_types(search, paper) if single_types else {}
    return _answer(search, paper, best, complete, (checked, against), single, lone)


def _long_enough(simulation: SimulationOptions, paper: Plan) -> SimulationOptions:
    """Replications of 5,000 requests or ten minutes of arrivals, whichever is more, unless a number was given."""
    if simulation.requests is not None:
        return simulation
    rate = simulation.rate_rps or sum(b.rate_rps for b in paper.buckets)
    return replace(simulation, requests=max(LEAST_REQUESTS, int(LEAST_SPAN_S * rate)))


def _widened(whole: Problem, part: Problem, counts: Counts, replicas: Any, shares: Any) -> Solution:
    """The solution of a part of a problem (some instance types alone) in the whole problem's columns."""
    columns = [whole.configs.index(name) for name in part.configs]
    rows = [whole.instances.index(name) for name in part.instances]
    wide_replicas = np.zeros(len(whole.configs), dtype=np.int64)
    wide_shares = np.zeros(whole.load.shape)
    wide_instances = np.zeros(len(whole.instances), dtype=np.int64)
    wide_replicas[columns], wide_instances[rows] = replicas, counts
    wide_shares[:, columns] = shares
    cost = fleet_cost(part, counts)
    return Solution(
        status="feasible",
        shares=wide_shares,
        replicas=wide_replicas,
        instances=wide_instances,
        cost_usd_per_hour=cost,
        bound_usd_per_hour=0.0,
        gap=1.0,
    )


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
    for counts in _proposals(search.problem, options):
        if any(dominates(f, counts) for f in search.failed):
            continue
        plan = search.plan(search.problem, counts)
        if plan is not None and search.passes(counts, plan):
            return counts
        search.failed.append(counts)
    reached = max((v.attainment for v in search.verdicts.values()), default=0.0)
    raise InfeasibleError(
        f"no fleet within the limits reached an attainment of {100 * search.trials.target:g}%: "
        f"the best that was simulated reached {100 * reached:.2f}%"
    )


def _proposals(problem: Problem, options: PlanOptions) -> list[Counts]:
    """Fleets for growing headrooms, of all types and of each alone, cheapest first."""
    alone = [problem.only_instances({key}) for key in problem.instances]
    found = set()
    for part in (problem, *(p for p in alone if p is not None and np.isfinite(p.load).any(axis=1).all())):
        for headroom in HEADROOMS:
            scaled = replace(part, load=part.load * (1 + headroom))
            solution = solve(scaled, gap=options.gap, time_limit_s=options.time_limit_s)
            if solution.instances is None:
                break
            number = dict(zip(part.instances, solution.instances, strict=True))
            found.add(tuple(int(number.get(key, 0)) for key in problem.instances))
    return sorted(found, key=lambda counts: (fleet_cost(problem, counts), counts))


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
            plan = search.plan(problem, counts)
            if plan is None:
                search.overloaded += 1
                continue
            grown = maximal(problem, counts, cost)
            larger = search.plan(problem, grown) if grown != counts else plan
            if larger is not None and search.passes(grown, larger):
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
        plan = search.plan(search.problem, counts)
        if plan is None:
            continue
        verdict = search.trials.screen(plan)
        if verdict.passed:
            verdict = search.trials.confirm(plan, search.confirmations + 1)
        checked += 1
        passed += verdict.passed
        if checked == SPOT_CHECKS:
            break
    return checked, passed


def _single_types(search: _Search, paper: Plan) -> dict[str, SizedFleet]:
    """Every GPU type alone, sized to the same promise."""
    offers, target = search.build.offers, search.trials.target
    result = {}
    for gpu in dict.fromkeys(offer.gpu for offer in offers):
        keys = {offer.key for offer in offers if offer.gpu == gpu}
        own = tuple(limit for limit in search.problem.limits if set(limit.weights) & keys)
        alone = replace(search.problem, limits=own, max_cost_usd_per_hour=None).only_instances(keys)
        if alone is None or not np.isfinite(alone.load).any(axis=1).all():
            result[gpu] = SizedFleet(reason="it cannot serve every size in time")
        elif (lone := _lone_share(search.trials, paper, alone.configs)) < target:
            result[gpu] = SizedFleet(
                reason=f"alone on an idle one, only {100 * lone:.2f}% of the requests keep the SLO"
            )
        else:
            result[gpu] = _sized_alone(search, alone)
    return result


def _sized_alone(search: _Search, alone: Problem) -> SizedFleet:
    """The smallest fleet of one type that passes.

    Headroom is raised until a quick look passes and the gap is halved; then the fleet is put to the test, and grown
    until it stands it.
    """
    looks: dict[Counts, bool] = {}

    def fleet(headroom: float) -> Counts | None:
        solution = solve(replace(alone, load=alone.load * (1 + headroom)))
        return None if solution.instances is None else tuple(int(n) for n in solution.instances)

    def looks_good(headroom: float) -> bool:
        counts = fleet(headroom)
        if counts is not None and counts not in looks:
            plan = search.plan(alone, counts)
            looks[counts] = plan is not None and search.trials.screen(plan).passed
        return counts is not None and looks[counts]

    low, high = 0.0, next((h for h in HEADROOMS if looks_good(h)), None)
    if high is None:
        return SizedFleet(reason=f"no fleet of it alone reached the target with up to {HEADROOMS[-1]:g} times headroom")
    while fleet(low) != fleet(high) and high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if looks_good(middle) else (middle, high)
    for _ in range(GROWTHS):
        counts = fleet(high)
        if counts is None:
            break
        plan = search.plan(alone, counts)
        number = dict(zip(alone.instances, counts, strict=True))
        wide = tuple(number.get(key, 0) for key in search.problem.instances)
        if plan is not None and search.passes(wide, plan):
            return _sized(search, alone, counts)
        while fleet(high) == counts:
            high += 0.02
    return SizedFleet(reason="no fleet of it alone that looked good stood the test")


def _sized(search: _Search, problem: Problem, counts: Counts) -> SizedFleet:
    found = arranged(problem, counts)
    assert found is not None
    replicas, shares, _ = found
    load = loads(problem, shares)
    number = dict(zip(problem.instances, counts, strict=True))
    verdict = search.verdicts[tuple(number.get(key, 0) for key in search.problem.instances)]
    return SizedFleet(
        instances=named_counts(problem.instances, np.array(counts)),
        replicas=named_counts(problem.configs, replicas),
        cost_usd_per_hour=fleet_cost(problem, counts),
        attainment=verdict.attainment,
        attainment_low=verdict.low,
        headroom={
            name: float(replicas[c] / load[c] - 1)
            for c, name in enumerate(problem.configs)
            if replicas[c] and load[c] > 0
        },
    )


def _paper(search: _Search, paper: Plan) -> SizedFleet:
    """The plan for the mean load alone, and what simulating it gives."""
    verdict = search.trials.screen(paper)
    return SizedFleet(
        instances=dict(paper.instances),
        replicas=dict(paper.replicas),
        cost_usd_per_hour=paper.cost_usd_per_hour,
        attainment=verdict.attainment,
        headroom={name: 1 / used - 1 for name, used in paper.utilization.items() if used > 0},
    )


def _answer(
    search: _Search,
    paper: Plan,
    best: Counts,
    complete: bool,
    spot: tuple[int, int],
    single: Mapping[str, SizedFleet],
    lone: float,
) -> tuple[Plan, AttainReport]:
    fleet = _sized(search, search.problem, best)
    cost, base = float(fleet.cost_usd_per_hour or 0.0), float(paper.cost_usd_per_hour or 0.0)
    costs = [f.cost_usd_per_hour for f in single.values() if f.cost_usd_per_hour is not None]
    scenario = search.trials.scenario(paper)
    report = AttainReport(
        target=search.trials.target,
        fleet=fleet,
        bound_usd_per_hour=paper.bound_usd_per_hour,
        paper=_paper(search, paper),
        promise_usd_per_hour=cost - base,
        promise_share=cost / base - 1,
        single_type=single,
        savings=1 - cost / min(costs) if costs else None,
        policy=scenario.policy.name,
        arrivals=f"{scenario.process.describe()}, {scenario.rate_rps:g} req/s",
        sizes=scenario.sizes.source,
        requests=scenario.requests,
        simulated=len(search.verdicts),
        cut_off=len(set(search.cut_off)),
        overloaded=search.overloaded,
        spot_checked=spot[0],
        spot_check_passed=spot[1],
        confirmations=search.confirmations,
        complete=complete,
        lone_share=lone,
    )
    return _plan(search, paper, best, single, report), report


def _plan(search: _Search, paper: Plan, best: Counts, single: Mapping[str, SizedFleet], report: AttainReport) -> Plan:
    found = arranged(search.problem, best)
    assert found is not None
    replicas, shares, _ = found
    bound = paper.bound_usd_per_hour or 0.0
    solution = _widened(search.problem, search.problem, best, replicas, shares)
    cost = float(solution.cost_usd_per_hour or 0.0)
    gap = max(0.0, 1 - bound / cost)
    status = "optimal" if gap <= 1e-9 else "feasible"
    solution = replace(solution, bound_usd_per_hour=bound, gap=gap, status=status)
    baselines = {
        gpu: Baseline(
            instances=f.instances,
            replicas=f.replicas,
            cost_usd_per_hour=f.cost_usd_per_hour,
            savings=None if f.cost_usd_per_hour is None else 1 - cost / f.cost_usd_per_hour,
            reason=f.reason,
        )
        for gpu, f in single.items()
    }
    plan = plan_of(search.build, solution, baselines)
    return replace(plan, extra={**paper.extra, "attain": report.to_dict()})


def _describe(problem: Problem, counts: Counts) -> str:
    return " + ".join(f"{n} x {key}" for key, n in zip(problem.instances, counts, strict=True) if n)
