"""CP-SAT's answers to fleet problems: one JSON problem a line in, one JSON answer a line out.

Runs in an environment of its own with OR-tools, whose HiGHS and highspy's cannot live in one process. Everything is a
whole number: a bucket is cut into parts, loads are rounded down and the parts that rounding loses are let go, so that
its optimum is never above the true one (by about 1e-4 of a bucket below it; with slices it is the true one).
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from ortools.sat.python import cp_model

PARTS = 10**5
LOAD_SCALE = 10**9
USD_SCALE = 10**6


def answer(problem: dict[str, Any]) -> dict[str, Any]:
    """``status`` (optimal, infeasible, unknown), and for an optimum its ``instances`` and ``replicas``."""
    load, slices = problem["load"], problem["slice_factor"]
    model, parts = cp_model.CpModel(), slices or PARTS
    n = [model.new_int_var(0, top, "") for top in problem["most_instances"]]
    r = [
        model.new_int_var(0, problem["most_instances"][i] * problem["gpus_per_instance"][i] // tp, "")
        for i, tp in zip(problem["config_instance"], problem["gpus_per_replica"], strict=True)
    ]
    carried: list[list[Any]] = [[] for _ in r]
    for row in load:
        able = [c for c, value in enumerate(row) if value is not None]
        x = {c: model.new_int_var(0, parts, "") for c in able}
        lost = 0 if slices else max(len(able) - 1, 0)
        model.add(sum(x.values()) >= parts - lost)
        for c, variable in x.items():
            carried[c].append(math.floor(row[c] * LOAD_SCALE / parts) * variable)
    for c, terms in enumerate(carried):
        # What the checker lets a replica be too full by.
        model.add(sum(terms) <= (LOAD_SCALE + 1) * r[c])
    for i, count in enumerate(n):
        on_it = [c for c, home in enumerate(problem["config_instance"]) if home == i]
        model.add(sum(problem["gpus_per_replica"][c] * r[c] for c in on_it) <= problem["gpus_per_instance"][i] * count)
    usd = sum(round(price * USD_SCALE) * count for price, count in zip(problem["price_usd_per_hour"], n, strict=True))
    for weights, minimum, maximum in problem["limits"]:
        total = sum(weight * count for weight, count in zip(weights, n, strict=True))
        model.add(total >= minimum)
        if maximum is not None:
            model.add(total <= maximum)
    if problem["max_cost_usd_per_hour"] is not None:
        model.add(usd <= round(problem["max_cost_usd_per_hour"] * USD_SCALE))
    model.minimize(usd)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = problem["limit_s"]
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return {"status": "infeasible"}
    if status != cp_model.OPTIMAL:
        return {"status": "unknown"}
    found = {"instances": [solver.value(v) for v in n], "replicas": [solver.value(v) for v in r]}
    return {"status": "optimal", **found}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
