"""plan_fleet: a workload's cheapest fleet as a Plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.capacity.profile import Profile
from melange.errors import InputError, MelangeError
from melange.plan.costs import Baseline, describe_instances
from melange.plan.plan import Plan
from melange.planning.assemble import counts, plan_of, plan_without_fleet, pooled_warning
from melange.planning.baselines import single_type_baselines, undercut_by_baselines
from melange.planning.case import Case, case_of, refuse_unmeasured
from melange.planning.choices import Choices, choose
from melange.planning.every_window import with_windows
from melange.planning.late import against_in_time, with_lateness
from melange.planning.nearest_slo import nearest_slo_reasons
from melange.planning.options import SolveOptions
from melange.planning.profile_source import load_profile
from melange.planning.spec import WorkloadSpec
from melange.solver.checker import violations
from melange.solver.problem import Problem, Solution, Status
from melange.solver.search import solve
from melange.solver.ties import with_most_slack


def choices_of(spec: WorkloadSpec, options: SolveOptions | None = None, profile: Profile | None = None) -> Choices:
    """What a workload leaves to choose among; ``profile`` saves reading it again."""
    return choose(spec, profile or load_profile(spec), options)


def prepare(spec: WorkloadSpec, options: SolveOptions | None = None, profile: Profile | None = None) -> Case:
    """The program that :func:`plan_fleet` solves. InputError where no config can serve some bucket."""
    case = case_of(choices_of(spec, options, profile))
    refuse_unmeasured(case)
    if case.unservable:
        raise InputError(f"no config can serve size {case.unservable[0]}", fix="relax the SLO or allow other GPUs")
    return case


def plan_fleet(spec: WorkloadSpec, options: SolveOptions | None = None, *, profile: Profile | None = None) -> Plan:
    """The cheapest fleet for a workload.

    Where an attainment SLO lets requests miss, a part of them (``spec.late_by_design``) may be late by design, if that
    is cheaper: the plan says which, and what it saves. The plan's ``status`` tells what was proven; an infeasible one
    carries its ``reasons``. Raises InputError for bad input and sizes that nobody measured.
    """
    case = case_of(choices_of(spec, options, profile))
    refuse_unmeasured(case)
    if case.unservable:
        return replace(plan_without_fleet(case.choices), reasons=_unservable_reasons(case))
    problem, options = case.problem, case.choices.options
    solution, reasons = solve_checked(problem, options)
    solution, lateness = against_in_time(problem, solution, options)
    baselines = _baselines(case, solution)
    gap, limit_s = options.gap, options.time_limit_s
    sound = undercut_by_baselines(problem, solution, baselines, gap=gap, time_limit_s=limit_s)
    if sound is not solution:
        solution, lateness = against_in_time(problem, with_most_slack(problem, sound), options)
        baselines = _baselines(case, solution)
    reasons = (*reasons, *_best_effort(case, solution))
    plan = replace(plan_of(case, _checked(problem, solution), baselines), reasons=reasons)
    plan = with_windows(with_lateness(plan, lateness), case.choices, solution, case.program)
    return with_extras(plan, problem, solution, options)


def _baselines(case: Case, solution: Solution) -> dict[str, Baseline]:
    """Each GPU type alone, with requests late by design as they suit it."""
    keys: dict[str, set[str]] = {}
    for offer in case.choices.offers:
        keys.setdefault(offer.gpu, set()).add(offer.key)
    options = case.choices.options
    return single_type_baselines(
        case.problem, solution, keys, case.unmeasured(), gap=options.gap, time_limit_s=options.time_limit_s
    )


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


def _unservable_reasons(case: Case) -> tuple[str, ...]:
    choices, labels, late = case.choices, case.unservable, case.problem.lateness
    names = ", ".join(labels[:6]) + (" ..." if len(labels) > 6 else "")
    slo = choices.spec.slo
    among = f"considered: {choices.considered.describe()}"
    reasons = [f"no config meets {slo.describe()} for requests of size {names}, whatever their rate ({among})"]
    if late is not None and np.isfinite(case.problem.must_be_late):
        reasons.append(
            f"they are {100 * case.problem.must_be_late:.3g}% of the requests, of which at most "
            f"{100 * late.at_most:.3g}% may be late by design"
        )
    reasons += pooled_warning(slo)
    return (*reasons, *nearest_slo_reasons(slo, lambda other: _serves(choices.spec.with_slo(other))))


def _serves(spec: WorkloadSpec) -> bool:
    """Whether every bucket of a workload that may not be late can be served."""
    try:
        case = case_of(choices_of(spec))
        refuse_unmeasured(case)
    except InputError:
        return False
    return not case.unservable
