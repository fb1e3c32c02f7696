"""The program of a workload's windows: the mean load as its first period, the windows to be kept as the others.

With every window kept the mean load binds nothing, as it is a mixture of them: its shares are what a router follows,
which knows no windows. Which windows a stated share leaves out is decided before solving, by their load: the least cost
of their GPU time, with whole machines left aside. That is a rule, not the optimum over all choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.plan.plan import Plan
from melange.plan.windows import PlanWindow, PlanWindows
from melange.planning.choices import Choices
from melange.planning.spec import WorkloadSpec
from melange.solver.periods import joined
from melange.solver.problem import Problem, Solution
from melange.solver.search import relaxation_bound, solve
from melange.solver.slack import arrangement
from melange.workload.windows import Window

ProblemOf = Callable[[FloatArray], Problem]
"""The program of a demand, rates (n_buckets,) in requests/s."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Windows:
    """The windows that hold requests, the rates (n_windows, n_buckets) and program of each, and which are kept."""

    windows: Sequence[Window]
    rates_rps: FloatArray
    problems: Sequence[Problem]
    kept: Sequence[bool]


def over_windows(choices: Choices, problem_of: ProblemOf) -> Problem:
    """The program of the choices' demand, and of its windows where the spec asks for them.

    InputError for a workload without windows.
    """
    mean = problem_of(choices.rate_rps)
    if choices.spec.window_share is None:
        return mean
    found = _windows(choices.spec, problem_of)
    kept = np.flatnonzero(found.kept).tolist()
    names = [f"at {found.windows[n].start_s:.10g} s" for n in kept]
    return joined([mean, *(found.problems[n] for n in kept)], ["", *names])


def _windows(spec: WorkloadSpec, problem_of: ProblemOf) -> _Windows:
    assert spec.window_share is not None
    workload = spec.workload
    rates = workload.window_rates_rps()[:, workload.rate_rps > 0]
    busy = np.flatnonzero(rates.sum(axis=1) > 0).tolist()
    if not busy:
        missing = InputError(
            f"workload {workload.name} has no windows to plan for",
            fix="make it from a trace with times, or plan for its whole mix",
        )
        raise spec.located(missing, "for_every_window")
    problems = [problem_of(rates[n]) for n in busy]
    loads = np.array([relaxation_bound(problem) for problem in problems])
    wanted = math.ceil(spec.window_share * len(busy) - 1e-9)
    lightest = set(np.argsort(loads, kind="stable")[:wanted].tolist())
    return _Windows(
        windows=[workload.windows[n] for n in busy],
        rates_rps=rates[busy],
        problems=problems,
        kept=[n in lightest for n in range(len(busy))],
    )


def with_windows(plan: Plan, choices: Choices, solution: Solution, problem_of: ProblemOf) -> Plan:
    """The plan with the windows that it was planned for, and what the mean load alone would cost."""
    spec, options = choices.spec, choices.options
    if spec.window_share is None:
        return plan
    found = _windows(spec, problem_of)
    # Period 0 is the mean load, then come the windows that are kept.
    period = {n: 1 + place for place, n in enumerate(np.flatnonzero(found.kept).tolist())}
    rows = [
        PlanWindow(
            start_s=window.start_s,
            length_s=window.length_s,
            rate_rps=float(found.rates_rps[n].sum()),
            kept=found.kept[n],
            binding=solution.replicas is not None and period.get(n) in solution.binding,
            utilization=_highest(found.problems[n], choices, solution),
        )
        for n, window in enumerate(found.windows)
    ]
    mean = solve(problem_of(choices.rate_rps), gap=options.gap, time_limit_s=options.time_limit_s)
    return replace(
        plan,
        windows=PlanWindows(share=spec.window_share, mean_usd_per_hour=mean.cost_usd_per_hour, windows=tuple(rows)),
    )


def _highest(problem: Problem, choices: Choices, solution: Solution) -> float | None:
    """The highest utilisation of a fleet's configs in one window, at the demand without headroom."""
    if solution.replicas is None:
        return None
    late, whole = problem.lateness, 1 + choices.headroom
    lateness = None if late is None else replace(late, load=late.load / whole)
    found = arrangement(replace(problem, load=problem.load / whole, lateness=lateness), solution.replicas)
    return None if found is None else found.highest
