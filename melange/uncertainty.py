"""How sure is the fleet: rates and demand drawn from their uncertainty, fleets judged by regret on fresh draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from melange.build import Build, config_key, with_figures
from melange.errors import InputError
from melange.plan import Plan
from melange.planner import PlanOptions, plan_fleet, prepare
from melange.problem import GroupLimit, Problem
from melange.solver import solve
from melange.workload_file import WorkloadSpec

FloatArray = NDArray[np.float64]

# Log-scale standard deviation of a rate by its source, where the rate brings no band of its own. Published and
# measured figures: run-to-run and machine-to-machine spread; estimates: the model's error on GPUs it never saw.
SPREAD_BY_SOURCE = MappingProxyType({"measured": 0.05, "published": 0.10, "estimated": 0.20})
# How that variance divides. Independent noise per cell alone would invent savings: every draw would find some config
# that happens to shine in some bucket.
VARIANCE_SHARES = MappingProxyType({"common": 0.3, "gpu": 0.3, "smooth": 0.3, "cell": 0.1})
CORRELATION_LENGTH = 1.5  # of the smooth part, in natural logarithms of tokens: a factor of 4.5 in size
CANDIDATES = 5
NORMAL_90 = 1.6449
SOLVE_GAP = 1e-4

Fleet = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOdds:
    """One candidate fleet, judged on fresh draws with recourse.

    ``instances``: instance key -> count. ``share_optimal``: share of the first draws whose cheapest fleet it is.
    Costs in USD/h of the fleet plus the replicas bought where a draw needs more: mean, 5th and 95th percentile.
    ``mean_regret_usd_per_hour`` and ``p95_regret_usd_per_hour``: over the cheapest fleet of each draw.
    ``share_sufficient``: share of the fresh draws that need nothing bought.
    """

    instances: Mapping[str, int]
    cost_usd_per_hour: float
    share_optimal: float
    mean_cost_usd_per_hour: float
    p5_cost_usd_per_hour: float
    p95_cost_usd_per_hour: float
    mean_regret_usd_per_hour: float
    p95_regret_usd_per_hour: float
    share_sufficient: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """Candidate fleets by least mean regret, and the range of the cheapest cost over the draws (5th, 50th, 95th)."""

    draws: int
    fresh_draws: int
    seed: int
    fleets: tuple[FleetOdds, ...]
    optimal_cost_p5_usd_per_hour: float
    optimal_cost_p50_usd_per_hour: float
    optimal_cost_p95_usd_per_hour: float
    distinct_fleets: int
    demand: str

    @property
    def least_regret(self) -> FleetOdds:
        return self.fleets[0]


def assess(
    build: Build,
    *,
    draws: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Uncertainty:
    """Draw rates and demand ``draws`` times, solve each, and judge the fleets found on as many fresh draws.

    log error of a rate = common + per GPU + smooth over size + per cell, its variance split by VARIANCE_SHARES and its
    total from the rate's own band (low/high as a 90% interval) or its source. Demand is bootstrapped: the trace's kept
    requests are redrawn over the buckets (fixed total rate). A fleet that a draw overloads buys the cheapest extra
    instances (recourse). ``progress`` is told (done, total). Raises InputError when the workload has no fleet.
    """
    if build.problem is None:
        raise InputError("the workload has sizes that no config can serve", fix="solve it without --uncertainty")
    if draws < 10:
        raise InputError(f"{draws} draws are too few", fix="ask for at least 10, for example --uncertainty 200")
    rng = np.random.default_rng(seed)
    spread = _spreads(build)
    total = draws * (1 + 1 + CANDIDATES)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    found: Counter[Fleet] = Counter()
    nominal = _cheapest(build.problem)
    for _ in range(draws):
        found[_cheapest(_drawn(build, spread, rng))[0]] += 1
        tick()
    candidates = [fleet for fleet, _ in found.most_common(CANDIDATES)]
    if nominal[0] not in candidates:
        candidates = [*candidates[: CANDIDATES - 1], nominal[0]]
    best = np.empty(draws)
    costs = np.empty((len(candidates), draws))
    for n in range(draws):
        problem = _drawn(build, spread, rng)
        fleet, best[n] = _cheapest(problem)
        tick()
        for k, candidate in enumerate(candidates):
            costs[k, n] = best[n] if candidate == fleet else _with_recourse(problem, candidate)
            tick()
    prices = build.problem.price_usd_per_hour
    rows = [
        _odds(build.problem, fleet, float(prices @ fleet), found[fleet] / draws, costs[k], best)
        for k, fleet in enumerate(candidates)
    ]
    rows.sort(key=lambda row: (row.mean_regret_usd_per_hour, row.cost_usd_per_hour))
    p5, p50, p95 = np.percentile(best, (5, 50, 95))
    return Uncertainty(
        draws=draws,
        fresh_draws=draws,
        seed=seed,
        fleets=tuple(rows),
        optimal_cost_p5_usd_per_hour=float(p5),
        optimal_cost_p50_usd_per_hour=float(p50),
        optimal_cost_p95_usd_per_hour=float(p95),
        distinct_fleets=len(found),
        demand=_demand_text(build),
    )


def solve_with_uncertainty(
    spec: WorkloadSpec,
    options: PlanOptions | None = None,
    *,
    draws: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """The cheapest fleet at the figures as they stand, with the odds of it and its rivals under ``extra``."""
    plan = plan_fleet(spec, options)
    if not plan.solved:
        return plan
    odds = assess(prepare(spec, options), draws=draws, seed=seed, progress=progress)
    return replace(plan, extra={**plan.extra, "uncertainty": asdict(odds)})


def _kept_requests(build: Build) -> int | None:
    kept = build.spec.workload.provenance.get("kept")
    return kept if isinstance(kept, int) and kept > 0 else None


def _demand_text(build: Build) -> str:
    kept = _kept_requests(build)
    return "fixed: the workload names no trace size" if kept is None else f"bootstrapped from {kept:,} requests"


def _spreads(build: Build) -> FloatArray:
    """(n_buckets, n_configs) log-scale standard deviation of each max rate."""
    spread = np.empty(build.max_rate_rps.shape)
    for c, config in enumerate(build.configs):
        table = build.profile.configs[config_key(config)]
        by_source = max((SPREAD_BY_SOURCE.get(source, 0.2) for source in table.sources), default=0.2)
        with np.errstate(divide="ignore", invalid="ignore"):
            band = np.log(table.high_rps / table.low_rps) / (2 * NORMAL_90)
        known = band[np.isfinite(band)]
        spread[:, c] = float(np.median(known)) if known.size else by_source
    return spread


def _drawn(build: Build, spread: FloatArray, rng: np.random.Generator) -> Problem:
    """The problem under one draw of rates and demand."""
    max_rate = build.max_rate_rps * np.exp(_errors(build, spread, rng))
    rate = build.rate_rps
    kept = _kept_requests(build)
    if kept is not None:
        total = rate.sum()
        rate = np.maximum(rng.multinomial(kept, rate / total) / kept, 1e-12) * total
    problem = with_figures(build, rate_rps=rate, max_rate_rps=max_rate).problem
    assert problem is not None
    return problem


def _errors(build: Build, spread: FloatArray, rng: np.random.Generator) -> FloatArray:
    n_buckets, n_configs = spread.shape
    gpus = [config.instance.gpu for config in build.configs]
    kinds = [config_key(config) for config in build.configs]
    by_gpu = {gpu: rng.standard_normal() for gpu in dict.fromkeys(gpus)}
    root = _size_root(build)
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


def _size_root(build: Build) -> FloatArray:
    """Square root of the squared-exponential correlation of buckets over log input and log output size."""
    sizes = np.log(build.load_tokens)
    distance2 = ((sizes[:, None, :] - sizes[None, :, :]) ** 2).sum(axis=2)
    correlation = np.exp(-distance2 / (2 * CORRELATION_LENGTH**2))
    values, vectors = np.linalg.eigh(correlation)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0.0, None)))


def _cheapest(problem: Problem) -> tuple[Fleet, float]:
    solution = solve(problem, gap=SOLVE_GAP)
    if solution.instances is None or solution.cost_usd_per_hour is None:
        raise InputError(
            "some draws have no fleet within the limits",
            fix="loosen the caps or the budget, or leave --uncertainty out",
        )
    return tuple(int(n) for n in solution.instances), solution.cost_usd_per_hour


def _with_recourse(problem: Problem, fleet: Fleet) -> float:
    """Cost of the fleet and the cheapest instances bought on top where it does not carry the problem."""
    floors = tuple(
        GroupLimit(name=f"bought {key}", weights={key: 1}, minimum=count)
        for key, count in zip(problem.instances, fleet, strict=True)
        if count
    )
    return _cheapest(replace(problem, limits=(*problem.limits, *floors)))[1]


def _odds(
    problem: Problem, fleet: Fleet, cost: float, share_optimal: float, costs: FloatArray, best: FloatArray
) -> FleetOdds:
    regret = costs - best
    return FleetOdds(
        instances={key: count for key, count in zip(problem.instances, fleet, strict=True) if count},
        cost_usd_per_hour=cost,
        share_optimal=share_optimal,
        mean_cost_usd_per_hour=float(costs.mean()),
        p5_cost_usd_per_hour=float(np.percentile(costs, 5)),
        p95_cost_usd_per_hour=float(np.percentile(costs, 95)),
        mean_regret_usd_per_hour=float(regret.mean()),
        p95_regret_usd_per_hour=float(np.percentile(regret, 95)),
        share_sufficient=float(np.mean(costs <= cost + 1e-9)),
    )
