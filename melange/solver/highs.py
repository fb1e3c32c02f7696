"""Run a PuLP program in HiGHS, silently and in this process, and read HiGHS's own verdict.

PuLP reports a time-limited incumbent as optimal, so its status is not used at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import pulp

from melange.arrays import FloatArray

if not hasattr(pulp.HiGHS, "createAndConfigureSolver"):
    # highspy is there: PuLP, which imports it under a bare except, took Ctrl-C for its absence.
    raise KeyboardInterrupt

# Linear programs (the shares of a fleet) are solved this tightly, integer programs must not be: at 1e-9 HiGHS cuts off
# nodes whose linear program is feasible, and its bound comes out too high. What 1e-7 lets a replica be too full by is
# left to the checks that follow every run.
LINEAR_TOLERANCE = 1e-9
INTEGER_TOLERANCE = 1e-7
SILENT: Mapping[str, Any] = {
    "parallel": "off",  # one thread: the same answer on every machine
    "primal_feasibility_tolerance": LINEAR_TOLERANCE,
    "mip_feasibility_tolerance": INTEGER_TOLERANCE,
    "mip_abs_gap": 0.0,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HighsResult:
    """``infeasible`` is proven; ``values`` of the best point by the variables' ``index``, None if none was found;
    ``bound`` is a proven lower bound of the objective, -inf if there is none.
    """

    infeasible: bool
    bound: float
    values: FloatArray | None = None


def run_program(
    program: pulp.LpProblem, options: Mapping[str, Any], start: Sequence[float] | None = None
) -> HighsResult:
    """Minimise the program under HiGHS's ``options``; ``start`` is a point to begin from, by variable index."""
    solver = pulp.HiGHS(msg=False, **options)
    solver.createAndConfigureSolver(program)
    solver.buildSolverModel(program)
    highs = program.solverModel
    if start is not None:
        solution = highspy.HighsSolution()
        solution.col_value = list(start)
        highs.setSolution(solution)
    highs.run()
    status, info = highs.getModelStatus(), highs.getInfo()
    # Every program here has a bounded objective, so "unbounded or infeasible" can only be infeasible.
    if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return HighsResult(infeasible=True, bound=math.inf)
    bound = float(info.mip_dual_bound)
    return HighsResult(
        infeasible=False,
        bound=bound if math.isfinite(bound) else -math.inf,
        values=np.array(highs.getSolution().col_value) if _has_point(info) else None,
    )


def _has_point(info: Any) -> bool:
    return bool(info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible)
