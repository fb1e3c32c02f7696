"""Second opinions on fleet problems, by other formulations than the solver's, and exact arithmetic to settle disputes.

``milp_fleet`` is scipy's ``milp`` on load amounts, ``CpSat`` OR-tools' CP-SAT on whole numbers. ``overload``
decides a fleet exactly. ``cheaper_fleet`` searches the counts alone: for prices y of the configs' replicas, serving the
load is worth at least g(y) = sum over buckets of the cheapest config's y x load, so every fleet that carries it has
y . replicas >= g(y). The inequality holds whatever y is, so no solver's tolerance can make one wrong.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array

from melange.solver.problem import Problem

# What the checker lets a replica be too full by, relative.
ROOM = Fraction(1, 10**9)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opinion:
    """What an oracle says: ``cost`` of its fleet and the fleet's whole ``replicas``; None where it finds none."""

    cost: float | None
    replicas: np.ndarray | None = None
    instances: np.ndarray | None = None


def milp_fleet(problem: Problem, *, gap: float = 1e-9, limit_s: float = 60.0) -> Opinion | None:
    """scipy's answer at its default tolerances, None where time ran out.

    A variable is the load a bucket puts on a config, in units of the bucket's lightest load; with slices it is their
    number.
    """
    n_b, n_c, n_i = len(problem.buckets), len(problem.configs), len(problem.instances)
    load, late = problem.load, problem.lateness
    if late is not None:
        load = np.hstack([load, late.load])
    pairs, lightest = np.argwhere(np.isfinite(load)), load.min(axis=1)
    if not np.isfinite(lightest).all():
        return Opinion(cost=None)
    n_x = len(pairs)
    relative = load[pairs[:, 0], pairs[:, 1]] / lightest[pairs[:, 0]]
    slices = problem.slice_factor
    x, r, n = np.arange(n_x), n_x + np.arange(n_c), n_x + n_c + np.arange(n_i)
    total = n_x + n_c + n_i
    amount = np.ones(n_x) if slices is None else relative / slices
    served = np.zeros((n_b, total))
    # A row for each period and config.
    carried = np.zeros((problem.periods * n_c, total))
    served[pairs[:, 0], x] = 1 / relative if slices is None else 1.0
    carried[problem.bucket_period[pairs[:, 0]] * n_c + pairs[:, 1] % n_c, x] = amount * lightest[pairs[:, 0]]
    carried[np.arange(len(carried)), np.tile(r, problem.periods)] = -1
    machines = np.zeros((n_i, total))
    machines[problem.config_instance, r] = problem.gpus_per_replica
    machines[np.arange(n_i), n] = -problem.gpus_per_instance
    limits = _limit_rows(problem, n, total)
    rows = [
        LinearConstraint(csr_array(served), slices or 1, slices or 1),
        LinearConstraint(csr_array(np.vstack([carried, machines])), -np.inf, 0),
        *limits,
    ]
    if late is not None:
        # A row for each period, in units of what may be late, so that a tolerance is one of that.
        missed = np.zeros((problem.periods, total))
        weight = np.hstack([np.zeros_like(late.weight), late.weight])[pairs[:, 0], pairs[:, 1]]
        missed[problem.bucket_period[pairs[:, 0]], x] = weight / relative if slices is None else weight / slices
        rows.append(LinearConstraint(csr_array(missed / (late.at_most or 1.0)), 0, 1.0 if late.at_most else 0.0))
    cost = np.zeros(total)
    cost[n] = problem.price_usd_per_hour
    whole = np.ones(total)
    whole[x] = 0 if slices is None else 1
    options = {"mip_rel_gap": gap, "time_limit": limit_s}
    found = milp(cost, integrality=whole, bounds=Bounds(0, np.inf), constraints=rows, options=options)
    if found.status == 2:
        return Opinion(cost=None)
    if found.status != 0:
        return None
    counts = np.rint(found.x[n]).astype(int)
    return Opinion(
        cost=float(problem.price_usd_per_hour @ counts),
        replicas=np.rint(found.x[r]).astype(int),
        instances=counts,
    )


def _limit_rows(problem: Problem, n: np.ndarray, total: int) -> list[LinearConstraint]:
    rows = []
    for limit in problem.limits:
        row = np.zeros(total)
        for key, weight in limit.weights.items():
            row[n[problem.instances.index(key)]] = weight
        rows.append(LinearConstraint(row, limit.minimum, np.inf if limit.maximum is None else limit.maximum))
    if problem.max_cost_usd_per_hour is not None:
        row = np.zeros(total)
        row[n] = problem.price_usd_per_hour
        rows.append(LinearConstraint(row, 0, problem.max_cost_usd_per_hour * (1 + 1e-9)))
    return rows


class CpSat:
    """CP-SAT in a process of its own, under an interpreter that has OR-tools; call it with a problem."""

    def __init__(self, interpreter: str, limit_s: float = 20.0) -> None:
        script = Path(__file__).with_name("cp_sat.py")
        self.limit_s = limit_s
        self.process = subprocess.Popen(
            [interpreter, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, problem: Problem) -> Opinion | None:
        """The answer, None where time ran out."""
        if not np.isfinite(problem.load).any(axis=1).all():
            return Opinion(cost=None)
        limits = [
            [[limit.weights.get(key, 0) for key in problem.instances], limit.minimum, limit.maximum]
            for limit in problem.limits
        ]
        asked = {
            "load": [[value if np.isfinite(value) else None for value in row] for row in problem.load.tolist()],
            "limits": limits,
            "most_instances": _most_instances(problem).tolist(),
            "limit_s": self.limit_s,
            "slice_factor": problem.slice_factor,
            "max_cost_usd_per_hour": problem.max_cost_usd_per_hour,
        }
        arrays = ("config_instance", "gpus_per_replica", "gpus_per_instance", "price_usd_per_hour")
        asked |= {name: getattr(problem, name).tolist() for name in arrays}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        said = json.loads(self.process.stdout.readline())
        if said["status"] == "unknown":
            return None
        if said["status"] == "infeasible":
            return Opinion(cost=None)
        counts = np.array(said["instances"])
        return Opinion(
            cost=float(problem.price_usd_per_hour @ counts), instances=counts, replicas=np.array(said["replicas"])
        )


def _most_instances(problem: Problem) -> np.ndarray:
    """(n_instances,) what serving everything on it could take, with every floor on top."""
    finite = np.where(np.isfinite(problem.load), problem.load, 0.0)
    need = np.zeros(len(problem.instances))
    np.add.at(need, problem.config_instance, (np.ceil(finite.sum(axis=0)) + 1) * problem.gpus_per_replica)
    floors = sum(limit.minimum for limit in problem.limits)
    return np.ceil(need / problem.gpus_per_instance).astype(int) + floors + 1


def overload(problem: Problem, replicas: np.ndarray) -> bool | None:
    """Whether the load is too much for these replicas, in exact arithmetic; None where neither answer is certain.

    Shares of a linear program prove that it is not, its prices that it is. Whole slices are not looked at.
    """
    usable = np.isfinite(problem.load) & (replicas > 0)
    if not usable.any(axis=1).all():
        return True
    shares, y = _minimax(problem, replicas, usable)
    exact = [[Fraction(float(s)) for s in row] for row in np.where(usable, np.maximum(shares, 0), 0)]
    load = problem.load
    fits = True
    for c in np.flatnonzero(replicas).tolist():
        carried = sum(
            (row[c] / sum(row) * Fraction(float(load[b, c])) for b, row in enumerate(exact) if row[c]), Fraction(0)
        )
        fits &= carried <= int(replicas[c]) * (1 + ROOM)
    if fits:
        return False
    # A config without replicas has a price at which nothing goes there.
    worth = Fraction(0)
    for b in range(len(load)):
        worth += min(Fraction(float(load[b, c])) * Fraction(float(y[c])) for c in np.flatnonzero(usable[b]).tolist())
    spent = sum((Fraction(float(y[c])) * int(replicas[c]) for c in np.flatnonzero(replicas).tolist()), Fraction(0))
    return True if worth > spent * (1 + ROOM) else None


def _minimax(problem: Problem, replicas: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the least highest utilisation, and the prices (n_configs,) that prove it."""
    pairs = np.argwhere(usable)
    n_b, n_c, n_x = len(problem.buckets), len(problem.configs), len(pairs)
    served, carried = np.zeros((n_b, n_x + 1)), np.zeros((n_c, n_x + 1))
    served[pairs[:, 0], np.arange(n_x)] = 1
    carried[pairs[:, 1], np.arange(n_x)] = problem.load[pairs[:, 0], pairs[:, 1]]
    carried[:, -1] = -replicas
    found = linprog(
        np.r_[np.zeros(n_x), 1.0], A_ub=carried, b_ub=np.zeros(n_c), A_eq=served, b_eq=np.ones(n_b), bounds=(0, None)
    )
    if found.status != 0:
        raise RuntimeError(f"the linear program of the shares failed: {found.message}")
    shares = np.zeros(problem.load.shape)
    shares[pairs[:, 0], pairs[:, 1]] = found.x[:-1]
    return shares, np.maximum(-found.ineqlin.marginals, 0.0)


def cheaper_fleet(problem: Problem, below_usd_per_hour: float, *, rounds: int = 200) -> Opinion | None:
    """A fleet with continuous shares that costs at most this, ``Opinion(cost=None)`` if there is none; None: undecided.

    Counts are searched under the inequalities y . replicas >= g(y) alone, adding the one that a found fleet breaks.
    """
    if not np.isfinite(problem.load).any(axis=1).all():
        return Opinion(cost=None)
    n_i, n_c = len(problem.instances), len(problem.configs)
    n, total = np.arange(n_i), n_i + n_c
    price = problem.price_usd_per_hour
    machines = np.zeros((n_i, total))
    machines[n, n] = -problem.gpus_per_instance
    machines[problem.config_instance, n_i + np.arange(n_c)] = problem.gpus_per_replica
    cost = np.r_[price, np.zeros(n_c)]
    fixed = [LinearConstraint(machines, -np.inf, 0), *_limit_rows(problem, n, total)]
    fixed.append(LinearConstraint(cost / below_usd_per_hour, 0, 1))
    cuts: list[np.ndarray] = []
    _add_cut(cuts, problem, (price / problem.gpus_per_instance)[problem.config_instance] * problem.gpus_per_replica)
    whole = False
    for _ in range(rounds):
        rows = [*fixed, LinearConstraint(np.array(cuts), 1 - 1e-12, np.inf)]
        found = milp(cost, integrality=np.full(total, int(whole)), bounds=Bounds(0, np.inf), constraints=rows)
        if found.status == 2:
            return Opinion(cost=None)
        if found.status != 0:
            return None
        replicas = found.x[n_i:]
        if not whole:
            before = len(cuts)
            _separate(cuts, problem, replicas)
            whole = len(cuts) == before
            continue
        counts, replicas = np.rint(found.x[:n_i]).astype(int), np.rint(replicas).astype(int)
        too_much = overload(problem, replicas)
        if too_much is False:
            return Opinion(cost=float(price @ counts), replicas=replicas, instances=counts)
        before = len(cuts)
        _separate(cuts, problem, replicas)
        if len(cuts) == before:
            return None
    return None


def _separate(cuts: list[np.ndarray], problem: Problem, replicas: np.ndarray) -> None:
    """Add the inequality that these replicas break most, if they break one."""
    # A sliver of every config lets the program price the ones that are not there.
    room = np.maximum(replicas, 1e-6)
    shares, y = _minimax(problem, room, np.isfinite(problem.load))
    load = np.where(np.isfinite(problem.load), problem.load, 0.0)
    if ((load * shares).sum(axis=0) > room * (1 + 1e-7)).any():
        _add_cut(cuts, problem, y)


def _add_cut(cuts: list[np.ndarray], problem: Problem, y: np.ndarray) -> None:
    finite = np.isfinite(problem.load)
    worth = np.where(finite, np.where(finite, problem.load, 0.0) * y, np.inf).min(axis=1).sum()
    if worth > 0:
        cuts.append(np.r_[np.zeros(len(problem.instances)), y / worth])
