"""plan_fleet: a workload's cheapest fleet as a Plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from melange.capacity.profile import Profile
from melange.errors import InputError, MelangeError
from melange.plan.costs import Baseline, describe_instances
from melange.plan.plan import Plan
from melange.planning.assemble import counts, plan_of, plan_without_fleet
from melange.planning.baselines import single_type_baselines, undercut_by_baselines
from melange.planning.case import Case, case_of, cases, seen_by_type
from melange.planning.choices import Choices, choose
from melange.planning.every_window import with_windows
from melange.planning.late import Late
from melange.planning.nearest_slo import nearest_slo_reasons
from melange.planning.options import SolveOptions
from melange.planning.profile_source import load_profile
from melange.planning.spec import WorkloadSpec
from melange.solver.checker import violations
from melange.solver.problem import Problem, Solution, Status
from melange.solver.search import solve
from melange.solver.ties import with_most_slack

_Solved = tuple[Case, Solution, tuple[str, ...]]


def choices_of(spec: WorkloadSpec, options: SolveOptions | None = None, profile: Profile | None = None) -> Choices:
    """What a workload leaves to choose among; ``profile`` saves reading it again."""
    return choose(spec, profile or load_profile(spec), options)


def prepare(spec: WorkloadSpec, options: SolveOptions | None = None, profile: Profile | None = None) -> Case:
    """The case that :func:`plan_fleet` solves, of several the one with the cheapest plan.

    InputError where no config can serve some bucket.
    """
    choices = choices_of(spec, options, profile)
    found = cases(choices)
    if not found:
        raise InputError(f"no config can serve size {choices.unservable[0]}", fix="relax the SLO or allow other GPUs")
    return found[0] if len(found) == 1 else _cheapest(found)[0]


def plan_fleet(spec: WorkloadSpec, options: SolveOptions | None = None, *, profile: Profile | None = None) -> Plan:
    """The cheapest fleet for a workload.

    Where an attainment SLO leaves several choices of late buckets, each is solved and the cheapest plan taken.
    The plan's ``status`` tells what was proven; an infeasible one carries its ``reasons``. Raises InputError for bad
    input and sizes that nobody measured.
    """
    choices = choices_of(spec, options, profile)
    found = cases(choices)
    if not found:
        return replace(plan_without_fleet(choices), reasons=_unservable_reasons(choices))
    case, solution, reasons = _cheapest(found)
    baselines = _baselines(case, solution)
    gap, limit_s = choices.options.gap, choices.options.time_limit_s
    sound = undercut_by_baselines(case.problem, solution, baselines, gap=gap, time_limit_s=limit_s)
    if sound is not solution:
        sound = _checked(case.problem, with_most_slack(case.problem, sound))
        solution, baselines = sound, _baselines(case, sound)
    plan = replace(plan_of(case, solution, baselines), reasons=(*reasons, *_best_effort(case, solution)))
    plan = with_windows(plan, choices, solution, case.program)
    return with_extras(plan, case.problem, solution, choices.options)


def _cheapest(found: Sequence[Case]) -> _Solved:
    """The case with the cheapest plan, of equals that with the fewest late requests; its bound holds for all."""
    solved: list[_Solved] = []
    settled: list[Late] = []
    for case in found:
        if any(case.late < late for late in settled):
            continue
        answer = _consistent(case)
        if answer is None:
            continue
        solved.append(answer)
        if not answer[0].barred:
            settled.append(case.late)

    if not solved:
        reason = "a minimum asks for a GPU type beside which too much is late or not measured: measure it, or drop it"
        return found[-1], Solution(status=Status.INFEASIBLE), (reason,)

    def cost(entry: _Solved) -> tuple[float, bool, float]:
        usd = entry[1].cost_usd_per_hour
        return np.inf if usd is None else round(usd, 9), entry[1].status == Status.INFEASIBLE, entry[0].late_share

    case, best, reasons = min(solved, key=cost)
    rivals = [solution for _, solution, _ in solved if solution.status != Status.INFEASIBLE]
    if len(rivals) < 2:
        return case, best, reasons
    bounds = [solution.bound_usd_per_hour for solution in rivals]
    bound = None if None in bounds else min(value for value in bounds if value is not None)
    return case, _bounded(best, bound, all(solution.status == Status.OPTIMAL for solution in rivals)), reasons


def _consistent(case: Case) -> _Solved | None:
    """The cheapest plan without the case's late buckets that rents nothing able to serve them; None if a floor does.

    The types that are able are barred only where they would be rented: without need of it, the problem keeps them.
    """
    choices, able = case.choices, case.able_types
    for tried in (case, case_of(choices, case.late, able)) if able else (case,):
        solution, reasons = solve_checked(tried.problem, choices.options)
        counts = () if solution.instances is None else zip(choices.offers, solution.instances, strict=True)
        if not any(count and offer.gpu in able for offer, count in counts):
            return tried, solution, reasons
    return None


def _bounded(best: Solution, bound_usd_per_hour: float | None, proven: bool) -> Solution:
    """The best of several solutions with the bound that holds for all."""
    usd = best.cost_usd_per_hour
    if usd is None:
        return replace(best, bound_usd_per_hour=bound_usd_per_hour)
    gap = None if bound_usd_per_hour is None else max(0.0, (usd - bound_usd_per_hour) / (usd or 1.0))
    status = best.status if proven else Status.FEASIBLE
    return replace(best, bound_usd_per_hour=bound_usd_per_hour, gap=gap, status=status)


def _baselines(case: Case, solution: Solution) -> dict[str, Baseline]:
    """Each GPU type alone, with the late buckets it would have if nothing else were allowed."""
    result: dict[str, Baseline] = {}
    offers, options = case.choices.offers, case.choices.options
    for gpu in dict.fromkeys(offer.gpu for offer in offers):
        own = seen_by_type(case, gpu)
        keys = {offer.key for offer in offers if offer.gpu == gpu}
        result |= single_type_baselines(
            own.problem, solution, {gpu: keys}, own.unmeasured(), gap=options.gap, time_limit_s=options.time_limit_s
        )
    return result


def solve_checked(problem: Problem, options: SolveOptions) -> tuple[Solution, tuple[str, ...]]:
    """Solve and re-verify; beside the solution the reasons why there is none. A failed check raises MelangeError."""
    solution = solve(problem, gap=options.gap, time_limit_s=options.time_limit_s)
    solution = _checked(problem, with_most_slack(problem, _checked(problem, solution)))
    if solution.status != Status.INFEASIBLE:
        return solution, ()
    from melange.solver.explain import infeasibility_reasons

    return solution, infeasibility_reasons(problem, time_limit_s=options.time_limit_s)


def _checked(problem: Problem, solution: Solution) -> Solution:
    faults = violations(problem, solution)
    if faults:
        raise MelangeError(f"the solver's plan fails its check: {faults[0]}")
    return solution


def with_extras(plan: Plan, problem: Problem, solution: Solution, options: SolveOptions) -> Plan:
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


def _best_effort(case: Case, solution: Solution) -> tuple[str, ...]:
    """What rate the limits allow at the most, where they allow no fleet."""
    if solution.status != Status.INFEASIBLE:
        return ()
    from melange.solver.best_effort import best_effort

    problem, options = case.problem, case.choices.options
    found = best_effort(problem, time_limit_s=options.time_limit_s)
    if found is None or found.solution.instances is None:
        return ()
    fleet = describe_instances(counts(problem.instances, found.solution.instances))
    rate_rps = case.choices.spec.workload.total_rate_rps
    at_most = f"{found.share * rate_rps:.3g} of {rate_rps:.3g} req/s"
    return (f"best effort: within all of these limits {at_most} can be carried, by {fleet}",)


def _unservable_reasons(choices: Choices) -> tuple[str, ...]:
    names = ", ".join(choices.unservable[:6]) + (" ..." if len(choices.unservable) > 6 else "")
    slo = choices.spec.slo
    among = f"considered: {choices.considered.describe()}"
    reasons = [f"no config meets {slo.describe()} for requests of size {names}, whatever their rate ({among})"]
    return (*reasons, *nearest_slo_reasons(slo, lambda other: _serves(choices.spec.with_slo(other))))


def _serves(spec: WorkloadSpec) -> bool:
    """Whether every bucket of a workload that may not be late can be served."""
    try:
        return bool(cases(choices_of(spec)))
    except InputError:
        return False
