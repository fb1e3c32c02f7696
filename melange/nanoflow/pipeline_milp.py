"""The cyclic schedule of one split's nano-operations as a mixed-integer linear program (PuLP, HiGHS in process).

Formulation (arXiv 2408.12757, section 4.1, made cyclic and linear). Variables: the period T, and per nano-operation i
the start s_i in [0, T], the layer lag k_i (which period after its nano-batch's KQV it runs in) and, in stage II, one
share choice x_ir with duration d_i = sum_r x_ir D_i / P(r). With w_ij = k_j - k_i (+ 1 where j is of the next layer):

* dependency i -> j:  s_j >= s_i + d_i - M w_ij   and   s_j + T >= s_i + d_i
* i and j take turns (o_ij = 1: i first) or, where v_ij = 1, overlap:
  s_j - s_i >= d_i - M (1 - o_ij) - M v_ij   and   s_i + T - s_j >= d_j - M (1 - o_ij) - M v_ij, and mirrored;
  operations of the same resource never overlap (v_ij = 0)
* overlapping shares fit the device:  R_i + R_j <= 2 - v_ij, and likewise for three resources at once

Three families of valid inequalities make it fast: T is at least the work of each resource, the length of each
nano-batch's way through a layer, and the device time taken, sum_i R_i d_i.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import pulp

from melange.nanoflow.nano_graph import NanoGraph
from melange.perfmodel.interference import Curve, Resource

WHOLE_DEVICE: Mapping[Resource, Curve] = dict.fromkeys(get_args(Resource), ((1.0, 1.0),))
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One period of a split's nano-operations: per task its start, duration, share and layer lag."""

    graph: NanoGraph
    period_s: float
    starts_s: tuple[float, ...]
    durations_s: tuple[float, ...]
    shares: tuple[float, ...]
    lags: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSolution:
    """What the solver found out about one split.

    ``schedule`` is None where none under the cutoff was found. ``bound_s`` is the proven lower bound of the period,
    the cutoff itself where the solver proved that nothing lies below it; ``solve_s`` its wall time.
    """

    schedule: Schedule | None
    bound_s: float
    cutoff_s: float
    solve_s: float

    @property
    def period_s(self) -> float:
        """The period found, or the cutoff where none was."""
        return self.cutoff_s if self.schedule is None else self.schedule.period_s

    @property
    def timed_out(self) -> bool:
        """Whether the time limit passed before anything was found or excluded."""
        return self.schedule is None and self.gap > 1e-9

    @property
    def gap(self) -> float:
        """Proven relative gap, (period - bound) / period."""
        return max(0.0, (self.period_s - self.bound_s) / self.period_s)


def solve_split(
    graph: NanoGraph,
    curves: Mapping[Resource, Curve] | None = None,
    *,
    cutoff_s: float,
    time_limit_s: float,
    order: Schedule | None = None,
) -> SplitSolution:
    """The shortest period of this split that is no longer than ``cutoff_s``.

    Without ``curves`` (stage I) every operation runs at its best speed and different resources do not interfere. With
    an interference table's (stage II) overlapping operations must share the device. ``order`` keeps each resource's
    operations in that schedule's order: a small program, whose bound speaks of that order only.
    """
    began = time.perf_counter()
    model = _Model.build(graph, curves, cutoff_s)
    if model is None:
        return SplitSolution(schedule=None, bound_s=cutoff_s, cutoff_s=cutoff_s, solve_s=time.perf_counter() - began)
    if order is not None:
        model.keep_order(order)
    model.problem.solve(pulp.HiGHS(msg=False, threads=1, timeLimit=time_limit_s, gapRel=0.0))
    status = model.problem.sol_status
    if status == pulp.LpSolutionInfeasible:
        found, bound = None, cutoff_s
    else:
        # PuLP calls a time-limited incumbent optimal: the bound is HiGHS's own.
        bound = model.problem.solverModel.getInfo().mip_dual_bound * cutoff_s
        bound = bound if math.isfinite(bound) else graph.least_period_s()
        usable = status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
        found = model.read() if usable else None
    bound = min(bound, found.period_s if found else cutoff_s)
    return SplitSolution(schedule=found, bound_s=bound, cutoff_s=cutoff_s, solve_s=time.perf_counter() - began)


@dataclass(slots=True, kw_only=True)
class _Model:
    """The program and its variables, in units of the cutoff so that every time lies in [0, 1]."""

    graph: NanoGraph
    problem: pulp.LpProblem
    scale_s: float
    interferes: bool
    choices: list[Curve]
    period: pulp.LpVariable
    starts: list[pulp.LpVariable]
    lags: list[pulp.LpAffineExpression]
    picks: list[list[pulp.LpAffineExpression]]
    first: dict[Pair, pulp.LpVariable]
    overlap: dict[Pair, pulp.LpVariable]

    @classmethod
    def build(cls, graph: NanoGraph, curves: Mapping[Resource, Curve] | None, cutoff_s: float) -> _Model | None:
        choices = [_feasible(graph, i, curves or WHOLE_DEVICE, cutoff_s) for i in range(len(graph.tasks))]
        if not all(choices):
            return None
        problem = pulp.LpProblem("pipeline", pulp.LpMinimize)
        period = problem.add_variable("T", 0, 1)
        problem += period
        model = cls(
            graph=graph,
            problem=problem,
            scale_s=cutoff_s,
            interferes=curves is not None,
            choices=choices,
            period=period,
            starts=[problem.add_variable(f"s{i}", 0, 1) for i in range(len(graph.tasks))],
            lags=[_lag(problem, graph, i) for i in range(len(graph.tasks))],
            picks=[_picks(problem, i, options) for i, options in enumerate(choices)],
            first={},
            overlap={},
        )
        model._constrain()
        return model

    def duration(self, i: int) -> pulp.LpAffineExpression:
        best = self.graph.tasks[i].best_s / self.scale_s
        return pulp.lpSum(
            pick * (best / reached) for pick, (_, reached) in zip(self.picks[i], self.choices[i], strict=True)
        )

    def share(self, i: int) -> pulp.LpAffineExpression:
        return pulp.lpSum(pick * share for pick, (share, _) in zip(self.picks[i], self.choices[i], strict=True))

    def longest(self, i: int) -> float:
        return self.graph.tasks[i].best_s / self.scale_s / min(reached for _, reached in self.choices[i])

    def keep_order(self, schedule: Schedule) -> None:
        """Let operations of one resource follow each other as in this schedule of the same graph."""
        for (i, j), first in self.first.items():
            if self.graph.tasks[i].resource == self.graph.tasks[j].resource:
                self.problem += first == int(schedule.starts_s[i] <= schedule.starts_s[j])

    def _constrain(self) -> None:
        tasks = range(len(self.graph.tasks))
        self.problem += self.starts[0] == 0  # a cycle may be turned at will
        for i in tasks:
            self.problem += self.starts[i] <= self.period
            if len(self.picks[i]) > 1:
                self.problem += pulp.lpSum(self.picks[i]) == 1
        for i, j, closes in self.graph.edges:
            self._depend(i, j, closes)
        for i, j in self.graph.free_pairs():
            if self.graph.tasks[i].resource == self.graph.tasks[j].resource or self.interferes:
                self._take_turns_or_share(i, j)
        self._fit_three()
        self._bound()

    def _depend(self, i: int, j: int, closes: bool) -> None:
        wrap = self.lags[j] - self.lags[i] + (1 if closes else 0)
        end = self.starts[i] + self.duration(i)
        self.problem += wrap >= 0
        self.problem += wrap <= 1
        self.problem += self.starts[j] >= end - (1 + self.longest(i)) * wrap
        self.problem += self.starts[j] + self.period >= end

    def _take_turns_or_share(self, i: int, j: int) -> None:
        first = self.first[i, j] = self.problem.add_variable(f"o{i}_{j}", cat=pulp.LpBinary)
        both: pulp.LpVariable | int = 0
        if self.graph.tasks[i].resource != self.graph.tasks[j].resource:
            both = self.overlap[i, j] = self.problem.add_variable(f"v{i}_{j}", cat=pulp.LpBinary)
            self.problem += self.share(i) + self.share(j) <= 2 - both
        for a, b, before in ((i, j, first), (j, i, 1 - first)):
            at_a, at_b, d_a, d_b = self.starts[a], self.starts[b], self.duration(a), self.duration(b)
            long_a, long_b = self.longest(a), self.longest(b)
            self.problem += at_b - at_a >= d_a - (1 + long_a) * (1 - before) - long_a * both
            self.problem += at_a + self.period - at_b >= d_b - long_b * (1 - before) - long_b * both

    def _fit_three(self) -> None:
        """Where a compute-, a memory- and a network-bound operation pairwise overlap, all three share the device."""
        for i, j, k in itertools.combinations(range(len(self.graph.tasks)), 3):
            pairs = [pair for pair in ((i, j), (i, k), (j, k)) if pair in self.overlap]
            if len(pairs) == 3:
                shares = self.share(i) + self.share(j) + self.share(k)
                self.problem += shares <= 7 - 2 * pulp.lpSum(self.overlap[pair] for pair in pairs)

    def _bound(self) -> None:
        tasks = self.graph.tasks
        for resource in {task.resource for task in tasks}:
            own = [i for i, task in enumerate(tasks) if task.resource == resource]
            self.problem += self.period >= pulp.lpSum(self.duration(i) for i in own)
        for loop in self.graph.loops():
            self.problem += self.period >= pulp.lpSum(self.duration(i) for i in loop)
        if self.interferes:
            self.problem += self.period >= pulp.lpSum(
                pick * (share * tasks[i].best_s / self.scale_s / reached)
                for i in range(len(tasks))
                for pick, (share, reached) in zip(self.picks[i], self.choices[i], strict=True)
            )

    def read(self) -> Schedule:
        """The schedule that the solver's discrete choices stand for, its times computed anew and exactly."""
        picked = [
            max(zip(picks, options, strict=True), key=lambda pair: pulp.value(pair[0]))[1]
            for picks, options in zip(self.picks, self.choices, strict=True)
        ]
        durations = [task.best_s / reached for task, (_, reached) in zip(self.graph.tasks, picked, strict=True)]
        lags = [round(pulp.value(lag)) for lag in self.lags]
        arcs = [(i, j, durations[i], lags[j] - lags[i] + int(closes)) for i, j, closes in self.graph.edges]
        for (i, j), first in self.first.items():
            if (i, j) in self.overlap and self.overlap[i, j].varValue > 0.5:
                continue
            a, b = (i, j) if first.varValue > 0.5 else (j, i)
            arcs += [(a, b, durations[a], 0), (b, a, durations[b], 1)]
        period, starts = tightest(len(durations), arcs, above=0.0, below=2 * sum(durations))
        return Schedule(
            graph=self.graph,
            period_s=period,
            starts_s=tuple(starts),
            durations_s=tuple(durations),
            shares=tuple(share for share, _ in picked),
            lags=tuple(lags),
        )


def tightest(
    nodes: int, arcs: Sequence[tuple[int, int, float, int]], *, above: float, below: float
) -> tuple[float, list[float]]:
    """The least period, to 1e-12 of itself, for which starts exist with s_j + w T >= s_i + d for arcs (i, j, d, w).

    Bisection over the period; each trial asks for longest paths (Bellman and Ford), which fail on a positive cycle.
    """
    starts = _longest_paths(nodes, arcs, below)
    if starts is None:
        raise ArithmeticError(f"no schedule has a period of {below}")
    while below - above > 1e-12 * below:
        middle = (above + below) / 2
        trial = _longest_paths(nodes, arcs, middle)
        if trial is None:
            above = middle
        else:
            below, starts = middle, trial
    return below, starts


def _longest_paths(nodes: int, arcs: Sequence[tuple[int, int, float, int]], period: float) -> list[float] | None:
    starts = [0.0] * nodes
    for _ in range(nodes + 1):
        moved = False
        for i, j, duration, wraps in arcs:
            earliest = starts[i] + duration - wraps * period
            if earliest > starts[j] + 1e-15:
                starts[j], moved = earliest, True
        if not moved:
            return starts
    return None


def _feasible(graph: NanoGraph, i: int, curves: Mapping[Resource, Curve], cutoff_s: float) -> Curve:
    """Share choices that leave its nano-batch's way through a layer no longer than the cutoff."""
    task = graph.tasks[i]
    others = max(sum(graph.tasks[j].best_s for j in loop if j != i) for loop in graph.loops() if i in loop)
    return tuple(
        (share, reached)
        for share, reached in curves[task.resource]
        if task.best_s / reached + others <= cutoff_s * (1 + 1e-9)
    )


def _lag(problem: pulp.LpProblem, graph: NanoGraph, i: int) -> pulp.LpAffineExpression:
    if graph.tasks[i].kind == "kqv":
        return pulp.LpAffineExpression(constant=0)
    return pulp.LpAffineExpression(problem.add_variable(f"k{i}", cat=pulp.LpBinary))


def _picks(problem: pulp.LpProblem, i: int, options: Curve) -> list[pulp.LpAffineExpression]:
    if len(options) == 1:
        return [pulp.LpAffineExpression(constant=1)]
    return [pulp.LpAffineExpression(problem.add_variable(f"x{i}_{r}", cat=pulp.LpBinary)) for r in range(len(options))]
