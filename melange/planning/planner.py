"""plan_fleet: a workload's cheapest fleet as a Plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from melange.capacity.profile import Profile
from melange.catalog.instances import InstanceType
from melange.catalog.offers import PriceChoice
from melange.errors import InfeasibleError, InputError, MelangeError
from melange.plan.costs import Baseline
from melange.plan.plan import Plan
from melange.planning.assemble import costs_of, plan_of
from melange.planning.baselines import single_type_baselines
from melange.planning.build import Build, able_types, build_problem, seen_by_type, without_able_types
from melange.planning.late import Late, late_share
from melange.planning.profile_source import load_profile
from melange.planning.rentable import Limits
from melange.planning.spec import WorkloadSpec
from melange.slo import Slo
from melange.solver.checker import violations
from melange.solver.problem import Problem, Solution, Status
from melange.solver.search import solve

__all__ = [
    "PlanOptions",
    "costs_of",
    "nearest_slo_factor",
    "plan_fleet",
    "prepare",
    "prepare_each",
    "scaled_slo",
    "solve_checked",
    "solved_fleet",
    "with_extras",
]


_Solved = tuple[Build, Solution, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """How to solve a workload, over what its file says. None keeps the file's value.

    ``slice_factor`` N restricts shares to multiples of 1/N (the paper's slices). ``gap`` is the relative gap to
    prove, ``time_limit_s`` bounds each solve. ``offers`` stand in for the price list's, the price choice still
    selecting among them. ``headroom_by_config`` and ``tie_outputs`` as in build_problem.
    """

    rate_rps: float | None = None
    slo: Slo | None = None
    prices: PriceChoice | None = None
    offers: tuple[InstanceType, ...] | None = None
    headroom: float | None = None
    fill: str | None = None
    limits: Limits = field(default_factory=Limits)
    slice_factor: int | None = None
    gap: float | None = None
    time_limit_s: float | None = None
    headroom_by_config: Mapping[str, float] | None = None
    tie_outputs: bool = False
    explain: bool = False

    def applied(self, spec: WorkloadSpec) -> WorkloadSpec:
        """The spec with these options in place of its own values."""
        workload = spec.workload
        if self.slo is not None:
            workload = replace(workload, slo=self.slo)
        if self.rate_rps is not None:
            workload = workload.at_rate(self.rate_rps)
        places = {key: place for key, place in spec.places.items() if self.prices is None or key != "prices"}
        return replace(
            spec,
            places=places,
            workload=workload,
            prices=self.prices or spec.prices,
            headroom=spec.headroom if self.headroom is None else self.headroom,
            profiles=spec.profiles if self.fill is None else replace(spec.profiles, fill=self.fill),
        )


def prepare(spec: WorkloadSpec, options: PlanOptions | None = None, profile: Profile | None = None) -> Build:
    """The problem of a workload under these options, that of plan_fleet; ``profile`` saves reading it again."""
    options = options or PlanOptions()
    builds = prepare_each(spec, options, profile)
    return builds[0] if len(builds) == 1 else _cheapest(builds, options)[0]


def prepare_each(spec: WorkloadSpec, options: PlanOptions, profile: Profile | None = None) -> list[Build]:
    """The problem for each choice of late buckets; a single one without an attainment SLO."""
    asked = options.applied(spec)
    profile = profile or load_profile(asked, asked_slo=spec.workload.slo)
    make = partial(
        build_problem,
        asked,
        profile,
        limits=options.limits,
        slice_factor=options.slice_factor,
        headroom_by_config=options.headroom_by_config,
        tie_outputs=options.tie_outputs,
        offers=options.offers,
    )
    first = make()
    return [first, *(make(late=late) for late in first.late_choices[1:])]


def plan_fleet(spec: WorkloadSpec, options: PlanOptions | None = None, *, profile: Profile | None = None) -> Plan:
    """The cheapest fleet for a workload.

    Where an attainment SLO leaves several choices of late buckets, each is solved and the cheapest plan taken.
    The plan's ``status`` tells what was proven; an infeasible one carries its ``reasons``. Raises InputError for bad
    input and sizes that nobody measured.
    """
    options = options or PlanOptions()
    builds = prepare_each(spec, options, profile)
    if builds[0].problem is None:
        plan = plan_of(builds[0], Solution(status=Status.INFEASIBLE), {})
        return _labelled(replace(plan, reasons=_unservable_reasons(spec, builds[0], options)), options)
    build, solution, reasons = _cheapest(builds, options)
    assert build.problem is not None
    plan = replace(plan_of(build, solution, _baselines(build, solution, options)), reasons=reasons)
    return _labelled(with_extras(plan, build.problem, solution, options), options)


def _cheapest(builds: Sequence[Build], options: PlanOptions) -> _Solved:
    """The build with the cheapest plan, of equals that with the fewest late requests; its bound holds for all."""
    solved: list[_Solved] = []
    settled: list[Late] = []
    for build in builds:
        if any(build.late < late for late in settled):
            continue
        found = _consistent(build, options)
        if found is None:
            continue
        solved.append(found)
        if not found[0].barred:
            settled.append(build.late)

    if not solved:
        reason = "a minimum asks for a GPU type beside which too much is late or not measured: measure it, or drop it"
        return builds[-1], Solution(status=Status.INFEASIBLE), (reason,)

    def cost(entry: _Solved) -> tuple[float, bool, float]:
        usd = entry[1].cost_usd_per_hour
        fewest = late_share(entry[0].late, entry[0].rate_rps)
        return np.inf if usd is None else round(usd, 9), entry[1].status == Status.INFEASIBLE, fewest

    build, best, reasons = min(solved, key=cost)
    rivals = [solution for _, solution, _ in solved if solution.status != Status.INFEASIBLE]
    if len(rivals) < 2:
        return build, best, reasons
    bounds = [solution.bound_usd_per_hour for solution in rivals]
    bound = None if None in bounds else min(value for value in bounds if value is not None)
    return build, _bounded(best, bound, all(solution.status == Status.OPTIMAL for solution in rivals)), reasons


def _consistent(build: Build, options: PlanOptions) -> _Solved | None:
    """The cheapest plan without the build's late buckets that rents nothing able to serve them; None if a floor does.

    The types that are able are barred only where they would be rented: without need of it, the problem keeps them.
    """
    able = able_types(build)
    for tried in (build, without_able_types(build)) if able else (build,):
        assert tried.problem is not None
        solution, reasons = solve_checked(tried.problem, options)
        counts = () if solution.instances is None else zip(build.offers, solution.instances, strict=True)
        if not any(count and offer.gpu in able for offer, count in counts):
            return tried, solution, reasons
    return None


def _bounded(best: Solution, bound_usd_per_hour: float | None, proven: bool) -> Solution:
    """The best of several solutions with the bound that holds for all."""
    usd = best.cost_usd_per_hour
    if usd is None:
        return replace(best, bound_usd_per_hour=bound_usd_per_hour)
    gap = None if bound_usd_per_hour is None else max(0.0, (usd - bound_usd_per_hour) / usd)
    status = best.status if proven else Status.FEASIBLE
    return replace(best, bound_usd_per_hour=bound_usd_per_hour, gap=gap, status=status)


def _baselines(build: Build, solution: Solution, options: PlanOptions) -> dict[str, Baseline]:
    """Each GPU type alone, with the late buckets it would have if nothing else were allowed."""
    result: dict[str, Baseline] = {}
    for gpu in dict.fromkeys(offer.gpu for offer in build.offers):
        own = seen_by_type(build, gpu)
        assert own.problem is not None
        keys = {offer.key for offer in build.offers if offer.gpu == gpu}
        result |= single_type_baselines(
            own.problem, solution, {gpu: keys}, own.unmeasured(), gap=options.gap, time_limit_s=options.time_limit_s
        )
    return result


def solve_checked(problem: Problem, options: PlanOptions) -> tuple[Solution, tuple[str, ...]]:
    """Solve and re-verify; beside the solution the reasons why there is none. A failed check raises MelangeError."""
    solution = solve(problem, gap=options.gap, time_limit_s=options.time_limit_s)
    faults = violations(problem, solution)
    if faults:
        raise MelangeError(f"the solver's plan fails its check: {faults[0]}")
    if solution.status != Status.INFEASIBLE:
        return solution, ()
    from melange.solver.explain import infeasibility_reasons

    return solution, infeasibility_reasons(problem, time_limit_s=options.time_limit_s)


def with_extras(plan: Plan, problem: Problem, solution: Solution, options: PlanOptions) -> Plan:
    """The plan with what else the options ask of a solved problem: the cost without slices, the explanation."""
    if solution.cost_usd_per_hour is None:
        return plan
    if problem.slice_factor is not None:
        free = solve(replace(problem, slice_factor=None), gap=options.gap, time_limit_s=options.time_limit_s)
        plan = replace(plan, continuous_cost_usd_per_hour=free.cost_usd_per_hour)
    if options.explain:
        from melange.solver.explain import explain

        explanation = explain(problem, solution, gap=options.gap, time_limit_s=options.time_limit_s)
        plan = replace(plan, explanation=explanation)
    return plan


def _labelled(plan: Plan, options: PlanOptions) -> Plan:
    asked = {"gap_asked": options.gap, "time_limit_s": options.time_limit_s}
    return replace(
        plan,
        slice_factor=options.slice_factor,
        routing="input-only" if options.tie_outputs else None,
        provenance={**plan.provenance, **asked},
    )


def solved_fleet(spec: WorkloadSpec, options: PlanOptions | None = None) -> Plan:
    """:func:`plan_fleet`, but no fleet is an InfeasibleError."""
    plan = plan_fleet(spec, options)
    if plan.status == Status.INFEASIBLE:
        raise InfeasibleError("no fleet serves the workload: " + "; ".join(plan.reasons))
    return plan


def _unservable_reasons(spec: WorkloadSpec, build: Build, options: PlanOptions) -> tuple[str, ...]:
    names = ", ".join(build.unservable[:6]) + (" ..." if len(build.unservable) > 6 else "")
    slo = build.spec.workload.slo
    reasons = [f"no config meets {slo.describe()} for requests of size {names}, whatever their rate"]
    factor = nearest_slo_factor(spec, build, options)
    if factor is not None:
        relaxed = scaled_slo(slo, factor)
        reasons.append(f"the nearest SLO that the same GPUs can meet is {relaxed.describe()}")
    else:
        reasons.append("even a hundredfold looser SLO is not met there: leave these sizes out or allow other GPUs")
    return tuple(reasons)


def scaled_slo(slo: Slo, factor: float) -> Slo:
    """The SLO with every threshold multiplied."""
    values = {f"{name}_s": value * factor for name, value in slo.thresholds_s.items()}
    return replace(slo, **values)  # type: ignore[arg-type]


def nearest_slo_factor(spec: WorkloadSpec, build: Build, options: PlanOptions) -> float | None:
    """The least factor (to 1%) by which all thresholds must grow until every bucket can be served; None above 100."""
    slo = build.spec.workload.slo

    def serves(factor: float) -> bool:
        try:
            relaxed = prepare_each(spec, replace(options, slo=scaled_slo(slo, factor)), None)
        except InputError:
            return False
        return relaxed[0].problem is not None

    low, high = 1.0, 100.0
    if not slo.thresholds_s or not serves(high):
        return None
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if serves(middle) else (middle, high)
    return float(np.ceil(high * 100) / 100)
