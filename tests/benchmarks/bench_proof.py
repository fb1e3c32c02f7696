"""Whether "proven cheapest" is true: fleets against other solvers with other formulations, disputes settled exactly.

    python tests/benchmarks/bench_proof.py [--random N] [--realistic N] [--first SEED] [--cp-sat PYTHON] [FILE ...]

``--random`` problems are small and of every kind (instances.py). ``--realistic`` ones are drawn from the workload files
named, the shipped ones by default: estimated profiles of the models at several rates, SLOs and headrooms, spot
or not, with caps and floors, late by design or not, owned machines, and machines that cost next to nothing. scipy's
``milp`` answers each; ``--cp-sat`` asks OR-tools too. A disagreement is settled in exact arithmetic where it can be,
not with lateness. Prints one line for each that is not in our favour and ends with status 1 if an optimum, a bound or
an "infeasible" was false.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from instances import random_problem
from oracles import CpSat, Opinion, cheaper_fleet, milp_fleet, overload

from melange import ProfileChoice, Slo, WorkloadSpec
from melange.capacity.profile import Profile
from melange.catalog.offers import PriceChoice
from melange.errors import MelangeError
from melange.planning.case import case_of
from melange.planning.limits import Limits, TypeLimit
from melange.planning.options import SolveOptions
from melange.planning.planner import choices_of
from melange.planning.profile_source import load_profile
from melange.planning.workload_file import load_workload
from melange.solver.checker import violations
from melange.solver.problem import Problem, Solution
from melange.solver.search import default_gap, solve

SHIPPED = ("azure-conversation", "azure-code", "mooncake-conversation", "arena-120ms")
MODELS = ("llama-3.1-8b", "llama-3.1-70b", "qwen3-8b", "qwen3-32b", "mixtral-8x7b", "llama-2-7b")
SLOS = (
    Slo(tpot_s=0.05, tpot_definition="decode"),
    Slo(tpot_s=0.1, tpot_definition="decode"),
    Slo(tpot_s=0.12, tpot_definition="e2e_per_token"),
    Slo(tpot_s=0.05, tpot_definition="decode", ttft_s=2.0),
    Slo(tpot_s=0.06, tpot_definition="decode", ttft_s=1.0, attainment=0.9),
)
LIMIT_S = 60.0
CENT = 1e-6


@cache
def _profile(file: str, model: str, slo: Slo) -> tuple[WorkloadSpec, Profile]:
    spec = load_workload(file)
    changed = replace(
        spec,
        workload=replace(spec.workload, model=model, slo=slo),
        profiles=ProfileChoice(set=f"estimated/{model}"),
        limits=Limits(),
        prices=PriceChoice(),
    )
    return changed, load_profile(changed)


def realistic_problem(seed: int, files: tuple[str, ...], models: tuple[str, ...] = MODELS) -> Problem | None:
    """A problem as ``melange solve`` would make it; None where this draw has no config for some size."""
    rng = np.random.default_rng([seed, 12])
    file, model = str(rng.choice(files)), str(rng.choice(models))
    slo = SLOS[int(rng.integers(len(SLOS)))]
    spec, profile = _profile(file, model, slo)
    gpus = sorted({key.gpu for key in profile.configs})
    types = {gpu: _type_limit(rng) for gpu in gpus if rng.random() < 0.25}
    excluded = tuple(gpu for gpu in gpus if gpu not in types and rng.random() < 0.25)
    asked = replace(
        spec.with_rate(spec.workload.total_rate_rps * float(np.exp(rng.uniform(np.log(0.1), np.log(20))))),
        prices=PriceChoice(spot=bool(rng.random() < 0.3)),
        headroom=float(rng.choice([0.0, 0.1, 0.3])),
        limits=Limits(types=types, exclude=excluded),
    )
    tie_outputs = bool(rng.random() < 0.2)
    slices = int(rng.choice([2, 4])) if tie_outputs and rng.random() < 0.5 else None
    try:
        case = case_of(choices_of(asked, SolveOptions(tie_outputs=tie_outputs, slice_factor=slices), profile))
    except MelangeError:
        return None
    if case.unservable:
        return None
    problem = case.problem
    if rng.random() < 0.15:
        prices = problem.price_usd_per_hour.copy()
        prices[int(rng.integers(len(prices)))] = 0.001
        problem = replace(problem, price_usd_per_hour=prices)
    return problem


def _type_limit(rng: np.random.Generator) -> TypeLimit:
    """A cap, a floor, or single GPUs that are owned."""
    kind = int(rng.integers(3))
    if kind == 0:
        return TypeLimit(maximum=int(rng.integers(0, 12)))
    return TypeLimit(minimum=int(rng.integers(1, 4))) if kind == 1 else TypeLimit(owned=int(rng.integers(1, 6)))


def verdict(problem: Problem, ours: Solution, theirs: Opinion) -> str:
    """``same``, or what exact arithmetic says of the difference."""
    usd = ours.cost_usd_per_hour
    if usd is None:
        if theirs.cost is None:
            return "same"
        return _settled(problem, theirs, np.inf, "infeasible")
    allowed = usd * default_gap(problem) + CENT * max(1.0, usd)
    bound = ours.bound_usd_per_hour
    assert bound is not None
    if theirs.cost is not None and abs(theirs.cost - usd) <= allowed and bound <= theirs.cost + CENT * max(1.0, usd):
        return "same"
    limit = bound if ours.status == "feasible" else max(bound, usd - allowed)
    return _settled(problem, theirs, limit - CENT * max(1.0, usd), "optimum")


def _settled(problem: Problem, theirs: Opinion, below: float, claim: str) -> str:
    if problem.slice_factor is None and problem.lateness is None and (theirs.cost or np.inf) <= below:
        assert theirs.replicas is not None
        if overload(problem, theirs.replicas) is False:
            return f"FALSE {claim}"
    if problem.slice_factor is not None and (theirs.cost is None or theirs.cost > below):
        return "theirs dearer"  # our plan has passed its check
    if problem.slice_factor is not None or problem.lateness is not None:
        return f"unsettled {claim}"
    top = below if np.isfinite(below) else (theirs.cost or 0.0) * 1.001
    found = cheaper_fleet(problem, top)
    if found is None:
        return f"unsettled {claim}"
    return "theirs wrong" if found.cost is None else f"FALSE {claim}"


def compare(problems: Iterable[tuple[int, Problem]], oracle: Callable[[Problem], Opinion | None]) -> Counter[str]:
    """Counts of verdicts, with a line for each that is worth a look, and the ratio of the times."""
    found: Counter[str] = Counter()
    seconds: list[tuple[float, float]] = []
    for seed, problem in problems:
        start = time.perf_counter()
        ours = solve(problem, time_limit_s=LIMIT_S)
        middle = time.perf_counter()
        theirs = oracle(problem)
        seconds.append((middle - start, time.perf_counter() - middle))
        faults = violations(problem, ours)
        if faults:
            said = "FALSE plan"
        elif theirs is None or ours.status == "unknown":
            said = "no answer in time"
        else:
            said = verdict(problem, ours, theirs)
        found[said] += 1
        found[f"status {ours.status}"] += 1
        if said not in ("same", "no answer in time"):
            cost = None if theirs is None else theirs.cost
            print(
                f"  seed {seed}: {said}; ours {ours.status} {ours.cost_usd_per_hour} (bound {ours.bound_usd_per_hour}),"
                f" theirs {cost}, {problem.load.shape[0]} x {problem.load.shape[1]}, slices {problem.slice_factor}",
                flush=True,
            )
    ours_s, theirs_s = (sum(column) for column in zip(*seconds, strict=True))
    print(f"  {len(seconds)} compared: {dict(sorted(found.items()))}")
    print(f"  seconds: ours {ours_s:.1f}, theirs {theirs_s:.1f}, ratio {theirs_s / ours_s:.2f}", flush=True)
    return found


def realistic(count: int, first: int, files: tuple[str, ...]) -> Iterator[tuple[int, Problem]]:
    """So many problems that have a config for every size, by seed."""
    seed = first
    while count > 0:
        problem = realistic_problem(seed, files)
        if problem is not None:
            count -= 1
            yield seed, problem
        seed += 1


def main() -> None:
    """Parse the arguments, compare, and say what was false."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=500)
    parser.add_argument("--realistic", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--cp-sat", metavar="PYTHON", help="an interpreter that has OR-tools, to ask CP-SAT as well")
    parser.add_argument("files", nargs="*", default=SHIPPED)
    given = parser.parse_args()
    oracles: dict[str, Callable[[Problem], Opinion | None]] = {"scipy milp": milp_fleet}
    if given.cp_sat:
        oracles["CP-SAT"] = CpSat(given.cp_sat)
    false = 0
    for name, oracle in oracles.items():
        print(f"{name}, {given.random} random problems")
        seeds = range(given.first, given.first + given.random)
        found = compare(((seed, random_problem(seed)) for seed in seeds), oracle) if given.random else Counter()
        if given.realistic:
            print(f"{name}, {given.realistic} problems from {', '.join(given.files)}")
            found += compare(realistic(given.realistic, given.first, tuple(given.files)), oracle)
        false += sum(count for said, count in found.items() if said.startswith("FALSE"))
    print(f"false: {false}")
    raise SystemExit(1 if false else 0)


if __name__ == "__main__":
    main()
