"""How fast fleets are proven cheapest, and how that compares with the paper's formulation, in one run.

    python tests/benchmarks/bench_solver.py [--quick]

Prints the median and the worst time, model building included, to prove 0.1% at three sizes over seeds and rates; then,
at 60 buckets x 8 slices x 8 types, the time of the paper's program (one binary per slice and type, CBC through PuLP,
same gap, stopped at 60 s and counted as such) over ours, with continuous shares and with the paper's slices.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pulp
from instances import generate

from melange.solver.checker import violations
from melange.solver.problem import Problem, Solution
from melange.solver.search import solve

GAP = 1e-3
RATES_RPS = (20.0, 200.0, 2000.0)
SIZES = ((100, 8, 0.5), (144, 16, 1.5), (400, 24, 4.0))
BASELINE_LIMIT_S = 60.0


def timed(action: Callable[[], Solution]) -> tuple[float, Solution]:
    """Wall seconds and what came of it."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def checked(problem: Problem) -> tuple[float, Solution]:
    """Time to prove a problem to 0.1%; a plan that fails its check stops the benchmark."""
    seconds, solution = timed(lambda: solve(problem, gap=GAP))
    faults = violations(problem, solution)
    if faults or solution.status != "optimal":
        raise SystemExit(f"status {solution.status}, {faults}")
    return seconds, solution


def paper_formulation(problem: Problem, slices: int) -> tuple[float, float | None]:
    """Seconds and cost of the paper's program: a binary for every slice and type, a count for every type."""
    start = time.perf_counter()
    program = pulp.LpProblem("paper", pulp.LpMinimize)
    n_b, n_c = problem.load.shape
    counts = [program.add_variable(f"n_{c}", 0, None, pulp.LpInteger) for c in range(n_c)]
    assigned = {
        (b, s, c): program.add_variable(f"a_{b}_{s}_{c}", cat=pulp.LpBinary)
        for b, c in np.argwhere(np.isfinite(problem.load)).tolist()
        for s in range(slices)
    }
    program += pulp.lpSum(float(price) * n for price, n in zip(problem.price_usd_per_hour, counts, strict=True))
    for b in range(n_b):
        for s in range(slices):
            program += pulp.lpSum(assigned[b, s, c] for c in range(n_c) if (b, s, c) in assigned) == 1
    for c in range(n_c):
        used = [float(problem.load[b, c]) / slices * a for (b, _, k), a in assigned.items() if k == c]
        program += pulp.lpSum(used) <= counts[c]
    program.solve(pulp.PULP_CBC_CMD(msg=False, gapRel=GAP, timeLimit=BASELINE_LIMIT_S))
    seconds = min(time.perf_counter() - start, BASELINE_LIMIT_S)
    return seconds, pulp.value(program.objective) if program.sol_status > 0 else None


def speed(seeds: int) -> None:
    """Median and worst seconds at each size, beside the limit for the median."""
    print(f"{'size':>9} {'median s':>9} {'worst s':>9} {'asked s':>9}   medians at {RATES_RPS} req/s")
    for n_buckets, n_configs, asked_s in SIZES:
        found: dict[float, list[float]] = {rate: [] for rate in RATES_RPS}
        for rate in RATES_RPS:
            for seed in range(seeds):
                found[rate].append(checked(generate(n_buckets, n_configs, rate, seed))[0])
        every = [seconds for times in found.values() for seconds in times]
        by_rate = " ".join(f"{statistics.median(times):.3f}" for times in found.values())
        size = f"{n_buckets}x{n_configs}"
        print(f"{size:>9} {statistics.median(every):9.3f} {max(every):9.3f} {asked_s:9.1f}   {by_rate}", flush=True)


def against_paper(seeds: int, slices: int = 8) -> None:
    """Ratios to the paper's formulation, per instance and of the medians."""
    heads = (("rate", 6), ("seed", 4), ("paper s", 8), ("cost", 10), ("shares s", 9), ("cost", 10))
    print("\n" + " ".join(f"{head:>{width}}" for head, width in (*heads, ("slices s", 9), ("cost", 10))))
    rows = []
    for rate in RATES_RPS:
        for seed in range(seeds):
            paper_s, paper_cost = paper_formulation(generate(60, 8, rate, seed, single_gpu=True), slices)
            free_s, free = checked(generate(60, 8, rate, seed, single_gpu=True))
            sliced_s, sliced = checked(generate(60, 8, rate, seed, single_gpu=True, slice_factor=slices))
            if paper_cost is not None and min(free.bound_usd_per_hour, sliced.bound_usd_per_hour) > paper_cost + 1e-6:
                raise SystemExit(f"a bound lies above the paper's plan at {paper_cost} USD/h")
            rows.append((paper_s, free_s, sliced_s))
            cost = "none" if paper_cost is None else f"{paper_cost:.3f}"
            print(
                f"{rate:6g} {seed:4} {paper_s:8.2f} {cost:>10} {free_s:9.3f} {free.cost_usd_per_hour:10.3f}"
                f" {sliced_s:9.3f} {sliced.cost_usd_per_hour:10.3f}",
                flush=True,
            )
    paper, *ours = zip(*rows, strict=True)
    for name, seconds in zip(("continuous shares", "whole slices"), ours, strict=True):
        ratios = [p / s for p, s in zip(paper, seconds, strict=True)]
        print(
            f"{name}: median ratio {statistics.median(ratios):.0f}, worst {min(ratios):.1f}, ratio of medians "
            f"{statistics.median(paper) / statistics.median(seconds):.0f}"
        )


def main() -> None:
    """Parse the arguments and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds a rate for the sizes, one for the comparison")
    quick = parser.parse_args().quick
    solve(generate(10, 4, 20.0, 0))  # loads PuLP and HiGHS, which a process does once
    speed(2 if quick else 7)
    against_paper(1 if quick else 5)


if __name__ == "__main__":
    main()
