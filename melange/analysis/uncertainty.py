"""How sure is the fleet: rates and demand drawn from their uncertainty, fleets judged by regret on fresh draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.parallel import Progress, run
from melange.plan.odds import FleetOdds, Uncertainty
from melange.plan.plan import Plan
from melange.planning.case import Case, redrawn
from melange.planning.choices import Choices
from melange.planning.options import SolveOptions
from melange.planning.planner import plan_fleet, prepare
from melange.planning.spec import WorkloadSpec
from melange.solver.problem import GroupLimit, Problem
from melange.solver.search import solve

# Log-scale standard deviation of a rate by its source, where the rate brings no band of its own. Published and
# measured figures: run-to-run and machine-to-machine spread; estimates: the model's error on GPUs it never saw.
SPREAD_BY_SOURCE = MappingProxyType({"measured": 0.05, "published": 0.10, "estimated": 0.20})
# How that variance divides. Independent noise per cell alone would invent savings: every draw would find some config
# that happens to shine in some bucket.
VARIANCE_SHARES = MappingProxyType({"common": 0.3, "gpu": 0.3, "smooth": 0.3, "cell": 0.1})
CORRELATION_LENGTH = 1.5  # of the smooth part, in natural logarithms of tokens: a factor of 4.5 in size
CANDIDATES = 5
NORMAL_80 = 1.2816  # low and high of an estimate are an 80% band
SOLVE_GAP = 1e-4

Fleet = tuple[int, ...]


def judge_fleets(
    case: Case,
    *,
    draws: int = 200,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Uncertainty:
    """Draw rates and demand ``draws`` times, solve each, and judge the fleets found on as many fresh draws.

    log error of a rate = common + per GPU + smooth over size + per cell, its variance split by VARIANCE_SHARES and its
    total from the rate's own band (low/high as an 80% interval) or its source. Demand is bootstrapped: the trace's kept
    requests are redrawn over the buckets (fixed total rate). A fleet that a draw overloads buys the cheapest extra
    instances (recourse). ``jobs`` draws are solved at a time, in processes; ``progress`` is told (done, total).
    InputError when no draw has a fleet within the limits.
    """
    if draws < 10:
        raise InputError(f"{draws} draws are too few", fix="ask for at least 10, for example --uncertainty 200")
    rng = np.random.default_rng(seed)
    spread = _spreads(case.choices)
    most = draws * (2 + CANDIDATES)
    tell = progress or (lambda done, total: None)
    problems = [(_drawn(case, spread, rng),) for _ in range(draws)]
    answers = run(_cheapest, problems, jobs=jobs, progress=lambda done, _: tell(done, most))
    found = Counter(answer[0] for answer in answers if answer is not None)
    candidates = _candidates(case.problem, found)
    each = 1 + len(candidates)
    fresh = [(_drawn(case, spread, rng), candidates) for _ in range(draws)]
    rows = run(_played, fresh, jobs=jobs, progress=lambda done, _: tell(draws + done * each, draws * (1 + each)))
    best, costs = np.array([row[0] for row in rows]), np.array([row[1] for row in rows]).T
    return _judged(case, candidates, found, best, costs, draws=draws, seed=seed)


def _played(problem: Problem, candidates: Sequence[Fleet]) -> tuple[float, list[float]]:
    """The cheapest cost of a draw, and that of each candidate with what it has to buy; NaN where there is no fleet."""
    answer = _cheapest(problem)
    if answer is None:
        return np.nan, [np.nan] * len(candidates)
    fleet, best = answer
    return best, [best if each == fleet else _with_recourse(problem, each) for each in candidates]


def _candidates(problem: Problem, found: Counter[Fleet]) -> list[Fleet]:
    """The fleets that were cheapest most often, and the one at the figures as they stand."""
    candidates = [fleet for fleet, _ in found.most_common(CANDIDATES)]
    nominal = _cheapest(problem)
    if nominal is not None and nominal[0] not in candidates:
        candidates = [*candidates[: CANDIDATES - 1], nominal[0]]
    return candidates


def _judged(
    case: Case,
    candidates: Sequence[Fleet],
    found: Counter[Fleet],
    best: FloatArray,
    costs: FloatArray,
    *,
    draws: int,
    seed: int,
) -> Uncertainty:
    """The verdict from ``best`` (draws,) and ``costs`` (candidates, draws), NaN where there is no fleet."""
    served = np.isfinite(best)
    if not served.any() or not np.isfinite(costs).any():
        raise InputError(
            "no draw of rates and demand has a fleet within the limits",
            fix="loosen the caps or the budget, or leave --uncertainty out",
        )
    rows = [
        _odds(case.problem, fleet, found[fleet] / draws, costs[k][served], best[served])
        for k, fleet in enumerate(candidates)
        if np.isfinite(costs[k]).any()
    ]
    rows.sort(key=lambda row: (row.share_stuck, row.mean_regret_usd_per_hour, row.cost_usd_per_hour))
    p5, p50, p95 = np.percentile(best[served], (5, 50, 95))
    return Uncertainty(
        draws=draws,
        fresh_draws=draws,
        seed=seed,
        fleets=tuple(rows),
        optimal_cost_p5_usd_per_hour=float(p5),
        optimal_cost_p50_usd_per_hour=float(p50),
        optimal_cost_p95_usd_per_hour=float(p95),
        distinct_fleets=len(found),
        share_unservable=float(np.mean(~served)),
        demand=_demand_text(case.choices),
    )


def solve_with_uncertainty(
    spec: WorkloadSpec,
    options: SolveOptions | None = None,
    *,
    draws: int = 200,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Plan:
    """The cheapest fleet at the figures as they stand, with the odds of it and its rivals as ``uncertainty``.

    InputError for a fleet for every window: what is drawn is the demand of a whole mix.
    """
    if spec.window_share is not None:
        raise InputError("odds are those of the whole mix, not of its windows", fix="ask for one of them at a time")
    plan = plan_fleet(spec, options)
    if not plan.solved:
        return plan
    odds = judge_fleets(prepare(spec, options), draws=draws, seed=seed, jobs=jobs, progress=progress)
    return replace(plan, uncertainty=odds)


def _kept_requests(choices: Choices) -> int | None:
    return choices.spec.workload.sample_requests


def _demand_text(choices: Choices) -> str:
    kept = _kept_requests(choices)
    return "fixed: the workload names no trace size" if kept is None else f"bootstrapped from {kept:,} requests"


def _spreads(choices: Choices) -> FloatArray:
    """(n_buckets, n_configs) log-scale standard deviation of each max rate: that of the nearest profiled size."""
    spread = np.empty(choices.max_rate_rps.shape)
    for c, config in enumerate(choices.configs):
        table = choices.profile.configs[config.key]
        by_source = np.vectorize(lambda source: SPREAD_BY_SOURCE.get(source, 0.2), otypes=[float])(table.source)
        with np.errstate(divide="ignore", invalid="ignore"):
            band = np.log(table.high_rps / table.low_rps) / (2 * NORMAL_80)
        cells = np.where(np.isfinite(band), band, by_source)
        i, o = (
            np.abs(np.log(choices.load_tokens[:, axis, None]) - np.log(sizes)).argmin(axis=1)
            for axis, sizes in enumerate((table.input_tokens, table.output_tokens))
        )
        spread[:, c] = cells[i, o]
    return spread


def _drawn(case: Case, spread: FloatArray, rng: np.random.Generator) -> Problem:
    """The problem under one draw of rates and demand; rates without the limit are off by as much as those in time."""
    choices = case.choices
    factor = np.exp(_errors(choices, spread, rng))
    rate = choices.rate_rps
    kept = _kept_requests(choices)
    if kept is not None:
        total = rate.sum()
        rate = np.maximum(rng.multinomial(kept, rate / total) / kept, 1e-12) * total
    return redrawn(case, rate_rps=rate, factor=factor)


def _errors(choices: Choices, spread: FloatArray, rng: np.random.Generator) -> FloatArray:
    n_buckets, n_configs = spread.shape
    gpus = choices.gpus
    kinds = [config.key for config in choices.configs]
    by_gpu = {gpu: rng.standard_normal() for gpu in dict.fromkeys(gpus)}
    root = _size_root(choices)
    by_kind = {
        kind: (root @ rng.standard_normal(n_buckets), rng.standard_normal(n_buckets)) for kind in dict.fromkeys(kinds)
    }
    share = {name: np.sqrt(value) for name, value in VARIANCE_SHARES.items()}
    common = share["common"] * rng.standard_normal()
    columns = []
    for c in range(n_configs):
        smooth, cell = by_kind[kinds[c]]
        columns.append(common + share["gpu"] * by_gpu[gpus[c]] + share["smooth"] * smooth + share["cell"] * cell)
    return np.asarray(spread * np.stack(columns, axis=1))


def _size_root(choices: Choices) -> FloatArray:
    """Square root of the squared-exponential correlation of buckets over log input and log output size."""
    sizes = np.log(choices.load_tokens)
    distance2 = ((sizes[:, None, :] - sizes[None, :, :]) ** 2).sum(axis=2)
    correlation = np.exp(-distance2 / (2 * CORRELATION_LENGTH**2))
    values, vectors = np.linalg.eigh(correlation)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0.0, None)))


def _cheapest(problem: Problem) -> tuple[Fleet, float] | None:
    """The cheapest fleet and its cost; None where the limits allow none."""
    solution = solve(problem, gap=SOLVE_GAP)
    if solution.instances is None or solution.cost_usd_per_hour is None:
        return None
    return tuple(int(n) for n in solution.instances), solution.cost_usd_per_hour


def _with_recourse(problem: Problem, fleet: Fleet) -> float:
    """Cost of the fleet and the cheapest instances bought on top where it does not carry the problem; NaN if none."""
    floors = tuple(
        GroupLimit(name=f"bought {key}", weights={key: 1}, minimum=count)
        for key, count in zip(problem.instances, fleet, strict=True)
        if count
    )
    answer = _cheapest(replace(problem, limits=(*problem.limits, *floors)))
    return np.nan if answer is None else answer[1]


def _odds(problem: Problem, fleet: Fleet, share_optimal: float, costs: FloatArray, best: FloatArray) -> FleetOdds:
    cost = float(problem.price_usd_per_hour @ fleet)
    carried = np.isfinite(costs)
    share_sufficient = float(np.mean(carried & (costs <= cost + 1e-9)))
    costs, regret = costs[carried], (costs - best)[carried]
    return FleetOdds(
        instances={key: count for key, count in zip(problem.instances, fleet, strict=True) if count},
        cost_usd_per_hour=cost,
        share_optimal=share_optimal,
        mean_cost_usd_per_hour=float(costs.mean()),
        p5_cost_usd_per_hour=float(np.percentile(costs, 5)),
        p95_cost_usd_per_hour=float(np.percentile(costs, 95)),
        mean_regret_usd_per_hour=float(regret.mean()),
        p95_regret_usd_per_hour=float(np.percentile(regret, 95)),
        share_sufficient=share_sufficient,
        share_stuck=float(np.mean(~carried)),
    )
