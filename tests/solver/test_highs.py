"""HiGHS's own verdict on a program."""

from __future__ import annotations

import math

import pulp
import pytest

from melange.solver.highs import SILENT, run_program


def knapsack() -> tuple[pulp.LpProblem, list[pulp.LpVariable]]:
    """Cheapest whole a, b with 2 a + 3 b >= 7 at prices 2 and 2.5: a = 2, b = 1 costs 6.5; relaxed 35/6."""
    program = pulp.LpProblem("small", pulp.LpMinimize)
    a, b = (program.add_variable(name, 0, 9, pulp.LpInteger) for name in "ab")
    program += 2 * a + 2.5 * b
    program += 2 * a + 3 * b >= 7
    return program, [a, b]


@pytest.mark.parametrize("start", [None, [0.0, 3.0], [2.0, 1.0]])
def test_an_optimum_is_proven_and_its_point_is_by_variable_index(start):
    program, variables = knapsack()
    found = run_program(program, SILENT, start)
    assert not found.infeasible
    assert [found.values[variable.index] for variable in variables] == pytest.approx([2, 1])
    assert found.bound == pytest.approx(6.5)


def test_a_program_without_a_point_is_proven_infeasible():
    program, (a, b) = knapsack()
    program += a + b <= 1
    found = run_program(program, SILENT)
    assert (found.infeasible, found.bound, found.values) == (True, math.inf, None)


def test_no_time_proves_nothing():
    program, _ = knapsack()
    found = run_program(program, {**SILENT, "timeLimit": 0.0, "presolve": "off"})
    assert not found.infeasible
    assert found.values is None
    assert found.bound <= 6.5


def test_nothing_is_printed(capfd):
    run_program(knapsack()[0], SILENT)
    assert capfd.readouterr() == ("", "")
