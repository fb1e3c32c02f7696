"""plan_fleet: a workload's cheapest fleet as a Plan, with its baselines, binding limits and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from melange import __version__
from melange.build import Build, Limits, build_problem
from melange.catalog import load_catalog
from melange.checker import violations
from melange.errors import InfeasibleError, InputError, MelangeError
from melange.offers import PriceChoice
from melange.plan import HOURS_PER_MONTH, Baseline, Costs, Plan, PlanBucket, PlanConfig, PlanLimit
from melange.problem import GroupLimit, Problem, Solution
from melange.profile_source import load_profile
from melange.profiles import Profile
from melange.slo import Slo
from melange.solver import solve
from melange.workload import Workload
from melange.workload_file import WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """How to solve a workload, over what its file says. None keeps the file's value.

    ``slice_factor`` N restricts shares to multiples of 1/N (the paper's slices). ``gap`` is the relative gap to
    prove, ``time_limit_s`` bounds each solve. ``headroom_by_config`` and ``tie_outputs`` as in build_problem.
    """

    rate_rps: float | None = None
    slo: Slo | None = None
    prices: PriceChoice | None = None
    headroom: float | None = None
    fill: str | None = None
    limits: Limits = field(default_factory=Limits)
    slice_factor: int | None = None
    gap: float | None = None
    time_limit_s: float | None = None
    headroom_by_config: Mapping[str, float] | None = None
    tie_outputs: bool = False
    explain: bool = False

    def applied(self, spec: WorkloadSpec) -> WorkloadSpec:
        """The spec with these options in place of its own values."""
        workload = spec.workload
        if self.slo is not None:
            workload = replace(workload, slo=self.slo)
        if self.rate_rps is not None:
            workload = workload.at_rate(self.rate_rps)
        return replace(
            spec,
            workload=workload,
            prices=self.prices or spec.prices,
            headroom=spec.headroom if self.headroom is None else self.headroom,
            profiles=spec.profiles if self.fill is None else replace(spec.profiles, fill=self.fill),
        )


def prepare(spec: WorkloadSpec, options: PlanOptions | None = None, profile: Profile | None = None) -> Build:
    """The problem of a workload under these options; ``profile`` saves reading it again."""
    options = options or PlanOptions()
    asked = options.applied(spec)
    profile = profile or load_profile(asked, asked_slo=spec.workload.slo)
    return build_problem(
        asked,
        profile,
        limits=options.limits,
        slice_factor=options.slice_factor,
        headroom_by_config=options.headroom_by_config,
        tie_outputs=options.tie_outputs,
    )


def plan_fleet(spec: WorkloadSpec, options: PlanOptions | None = None, *, profile: Profile | None = None) -> Plan:
    """The cheapest fleet for a workload.

    The plan's ``status`` tells what was proven; an infeasible one carries its ``reasons``. Raises InputError for bad
    input and sizes that nobody measured.
    """
    options = options or PlanOptions()
    build = prepare(spec, options, profile)
    if build.problem is None:
        return _plan(build, Solution(status="infeasible"), options, reasons=_unservable_reasons(spec, build, options))
    solution = solve(build.problem, gap=options.gap, time_limit_s=options.time_limit_s)
    faults = violations(build.problem, solution)
    if faults:
        raise MelangeError(f"the solver's plan fails its check: {faults[0]}")
    reasons: tuple[str, ...] = ()
    if solution.status == "infeasible":
        from melange.explain import infeasibility_reasons

        reasons = infeasibility_reasons(build.problem, time_limit_s=options.time_limit_s)
    return _plan(build, solution, options, reasons=reasons)


def solved_fleet(spec: WorkloadSpec, options: PlanOptions | None = None) -> Plan:
    """:func:`plan_fleet`, but no fleet is an InfeasibleError."""
    plan = plan_fleet(spec, options)
    if plan.status == "infeasible":
        raise InfeasibleError("no fleet serves the workload: " + "; ".join(plan.reasons))
    return plan


def _unservable_reasons(spec: WorkloadSpec, build: Build, options: PlanOptions) -> tuple[str, ...]:
    names = ", ".join(build.unservable[:6]) + (" ..." if len(build.unservable) > 6 else "")
    slo = build.spec.workload.slo
    reasons = [f"no config meets {slo.describe()} for requests of size {names}, whatever their rate"]
    factor = nearest_slo_factor(spec, build, options)
    if factor is not None:
        relaxed = scaled_slo(slo, factor)
        reasons.append(f"the nearest SLO that the same GPUs can meet is {relaxed.describe()}")
    else:
        reasons.append("even a hundredfold looser SLO is not met there: leave these sizes out or allow other GPUs")
    return tuple(reasons)


def scaled_slo(slo: Slo, factor: float) -> Slo:
    """The SLO with every threshold multiplied."""
    values = {f"{name}_s": value * factor for name, value in slo.thresholds_s.items()}
    return replace(slo, **values)  # type: ignore[arg-type]


def nearest_slo_factor(spec: WorkloadSpec, build: Build, options: PlanOptions) -> float | None:
    """The least factor (to 1%) by which all thresholds must grow until every bucket can be served; None above 100."""
    slo = build.spec.workload.slo

    def serves(factor: float) -> bool:
        try:
            relaxed = prepare(spec, replace(options, slo=scaled_slo(slo, factor)))
        except InputError:
            return False
        return relaxed.problem is not None

    low, high = 1.0, 100.0
    if not slo.thresholds_s or not serves(high):
        return None
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if serves(middle) else (middle, high)
    return float(np.ceil(high * 100) / 100)


def _plan(build: Build, solution: Solution, options: PlanOptions, *, reasons: tuple[str, ...]) -> Plan:
    problem = build.problem
    baselines = {} if problem is None else _baselines(build, problem, solution, options)
    costed = {name: b.cost_usd_per_hour for name, b in baselines.items() if b.cost_usd_per_hour is not None}
    workload = build.spec.workload
    plan = Plan(
        status=solution.status,  # type: ignore[arg-type]
        slo=workload.slo,
        workload=_workload_row(workload),
        configs={config.name: _config(build, c) for c, config in enumerate(build.configs)},
        buckets=_buckets(build, solution),
        cost_usd_per_hour=solution.cost_usd_per_hour,
        bound_usd_per_hour=solution.bound_usd_per_hour,
        gap=solution.gap,
        baselines=baselines,
        best_single_type=min(costed, key=lambda name: costed[name]) if costed else None,
        headroom=build.spec.headroom,
        slice_factor=options.slice_factor,
        reasons=reasons,
        warnings=build.warnings,
        dropped_offers=tuple(
            {"instance": d.offer.name, "gpu": d.offer.gpu, "provider": d.offer.provider, "reason": d.reason}
            for d in build.dropped
        ),
        extra={"routing": "input-only"} if options.tie_outputs else {},
        provenance=_provenance(build, options),
    )
    if problem is None or solution.instances is None or solution.replicas is None or solution.shares is None:
        return plan
    plan = replace(
        plan,
        instances=_counts(problem.instances, solution.instances),
        replicas=_counts(problem.configs, solution.replicas),
        utilization=_utilization(build, solution),
        limits=_limits(build, problem, solution),
        costs=costs_of(float(solution.cost_usd_per_hour or 0.0), workload),
    )
    if options.slice_factor is not None:
        free = solve(replace(problem, slice_factor=None), gap=options.gap, time_limit_s=options.time_limit_s)
        plan = replace(plan, continuous_cost_usd_per_hour=free.cost_usd_per_hour)
    if options.explain:
        from melange.explain import explain

        plan = replace(plan, explanation=explain(problem, solution, gap=options.gap).to_dict())
    return plan


def _counts(names: Sequence[str], counts: np.ndarray[Any, Any]) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def costs_of(usd_per_hour: float, workload: Workload) -> Costs:
    """A fleet's cost per month and per million tokens, at the workload's true means."""
    hourly_inputs = workload.input_tokens_per_s * 3600 / 1e6
    hourly_outputs = workload.output_tokens_per_s * 3600 / 1e6
    return Costs(
        usd_per_hour=usd_per_hour,
        usd_per_month=usd_per_hour * HOURS_PER_MONTH,
        usd_per_million_tokens=usd_per_hour / (hourly_inputs + hourly_outputs),
        usd_per_million_input_tokens=usd_per_hour / hourly_inputs,
        usd_per_million_output_tokens=usd_per_hour / hourly_outputs,
    )


def _utilization(build: Build, solution: Solution) -> dict[str, float]:
    """Load / replicas per config in use, at the workload's rate without headroom."""
    assert solution.shares is not None
    assert solution.replicas is not None
    shares = build.expand(solution.shares)
    with np.errstate(divide="ignore", invalid="ignore"):
        load = np.where(shares > 0, shares * build.rate_rps[:, None] / build.max_rate_rps, 0.0).sum(axis=0)
    return {
        config.name: float(load[c] / solution.replicas[c])
        for c, config in enumerate(build.configs)
        if solution.replicas[c]
    }


def _buckets(build: Build, solution: Solution) -> tuple[PlanBucket, ...]:
    w = build.spec.workload
    shares = None if solution.shares is None else build.expand(solution.shares)
    rows = []
    for b, (i, j) in enumerate(build.cells):
        rates = build.max_rate_rps[b]
        rows.append(
            PlanBucket(
                input_tokens_max=w.grid.input_edges_tokens[i],
                output_tokens_max=w.grid.output_edges_tokens[j],
                rate_rps=float(build.rate_rps[b]),
                mean_input_tokens=float(w.mean_input_tokens[i, j]),
                mean_output_tokens=float(w.mean_output_tokens[i, j]),
                mean_product_tokens2=float(w.mean_product_tokens2[i, j]),
                mean_cached_tokens=float(w.mean_cached_tokens[i, j]),
                load_input_tokens=float(build.load_tokens[b, 0]),
                load_output_tokens=float(build.load_tokens[b, 1]),
                shares={}
                if shares is None
                else {c.name: float(s) for c, s in zip(build.configs, shares[b], strict=True) if s > 0},
                max_rate_rps={
                    c.name: None if np.isnan(r) else float(r) for c, r in zip(build.configs, rates, strict=True)
                },
            )
        )
    return tuple(rows)


def _config(build: Build, c: int) -> PlanConfig:
    from melange.build import config_key

    config, catalog = build.configs[c], load_catalog()
    offer, table = config.instance, build.profile.configs[config_key(config)]
    try:
        shape = _figures(catalog.model(config.model))
    except InputError:
        shape = None
    return PlanConfig(
        gpu=offer.gpu,
        instance=offer.name,
        instance_key=offer.key,
        gpus_per_instance=offer.gpus,
        tp=config.tp,
        precision=config.precision,
        engine=config.engine,
        model=config.model,
        price_usd_per_hour=offer.price_usd_per_hour,
        provider=offer.provider or None,
        region=offer.region,
        spot=offer.spot,
        price_set=offer.price_set or None,
        price_read_on=offer.read_on,
        headroom=float(build.headroom[c]),
        sources=table.sources,
        hardware=_figures(catalog.gpu(offer.gpu)),
        model_shape=shape,
        profile=table.to_dict(),
    )


def _figures(value: Any) -> dict[str, Any]:
    row = {item.name: getattr(value, item.name) for item in fields(value) if item.name not in ("aliases", "source")}
    return {key: dict(item) if isinstance(item, Mapping) else item for key, item in row.items()}


def _baselines(build: Build, problem: Problem, solution: Solution, options: PlanOptions) -> dict[str, Baseline]:
    """The cheapest fleet of each GPU type alone, within that type's own limits; budget and other floors left out."""
    result = {}
    for gpu in dict.fromkeys(offer.gpu for offer in build.offers):
        keys = {offer.key for offer in build.offers if offer.gpu == gpu}
        own = tuple(limit for limit in problem.limits if set(limit.weights) & keys)
        alone = replace(problem, limits=own, max_cost_usd_per_hour=None).only_instances(keys)
        result[gpu] = (
            Baseline(reason=f"no {gpu} config is profiled for this model")
            if alone is None
            else _baseline(build, alone, solution, options)
        )
    return result


def _baseline(build: Build, alone: Problem, solution: Solution, options: PlanOptions) -> Baseline:
    stuck = [alone.buckets[b] for b in np.flatnonzero(~np.isfinite(alone.load).any(axis=1))]
    if stuck:
        return Baseline(reason=_stuck_reason(build, alone, stuck))
    best = solve(alone, gap=options.gap, time_limit_s=options.time_limit_s)
    if best.instances is None or best.replicas is None or best.cost_usd_per_hour is None:
        if best.status == "unknown":
            return Baseline(reason="the time limit passed before a fleet was found", proven=False)
        caps = ", ".join(_limit_text(limit) for limit in alone.limits)
        return Baseline(reason=f"the limits do not allow enough of it ({caps})")
    savings = None
    if solution.cost_usd_per_hour is not None:
        savings = 1 - solution.cost_usd_per_hour / best.cost_usd_per_hour
    return Baseline(
        instances=_counts(alone.instances, best.instances),
        replicas=_counts(alone.configs, best.replicas),
        cost_usd_per_hour=best.cost_usd_per_hour,
        savings=savings,
        proven=best.status == "optimal",
    )


def _stuck_reason(build: Build, alone: Problem, stuck: list[str]) -> str:
    columns = [c for c, config in enumerate(build.configs) if config.name in alone.configs]
    names = ", ".join(stuck[:4]) + (" ..." if len(stuck) > 4 else "")
    rows = [b for b in range(len(build.rate_rps)) if build.label(b) in stuck]
    unmeasured = bool(rows) and bool(np.isnan(build.max_rate_rps[np.ix_(rows, columns)]).any())
    return f"sizes not measured on it: {names}" if unmeasured else f"it cannot meet the SLO for sizes {names}"


def _limit_text(limit: GroupLimit) -> str:
    parts = [f"{limit.name} >= {limit.minimum}"] if limit.minimum else []
    parts += [f"{limit.name} <= {limit.maximum}"] if limit.maximum is not None else []
    return " and ".join(parts)


def _limits(build: Build, problem: Problem, solution: Solution) -> tuple[PlanLimit, ...]:
    """Every limit asked for; a cap binds when one more unit would exceed it, a floor when the fleet sits on it."""
    assert solution.instances is not None
    counts = dict(zip(problem.instances, solution.instances, strict=True))
    rows: list[PlanLimit] = []
    for limit in problem.limits:
        used = float(sum(weight * counts[key] for key, weight in limit.weights.items()))
        step = min(limit.weights.values(), default=1)
        if limit.maximum is not None:
            binding = used + step > limit.maximum
            rows.append(PlanLimit(name=limit.name, kind="max", value=limit.maximum, used=used, binding=binding))
        if limit.minimum:
            rows.append(
                PlanLimit(
                    name=limit.name, kind="min", value=limit.minimum, used=used, binding=used - step < limit.minimum
                )
            )
    if problem.max_cost_usd_per_hour is not None:
        cost = float(solution.cost_usd_per_hour or 0.0)
        cheapest = float(problem.price_usd_per_hour.min())
        rows.append(
            PlanLimit(
                name="cost_usd_per_hour",
                kind="max_cost",
                value=problem.max_cost_usd_per_hour,
                used=cost,
                binding=cost + cheapest > problem.max_cost_usd_per_hour,
            )
        )
    return tuple(rows)


def _workload_row(w: Workload) -> dict[str, Any]:
    return {
        "name": w.name,
        "model": w.model,
        "rate_rps": w.total_rate_rps,
        "representative": w.representative,
        "input_edges_tokens": list(w.grid.input_edges_tokens),
        "output_edges_tokens": list(w.grid.output_edges_tokens),
        "input_tokens_per_s": w.input_tokens_per_s,
        "output_tokens_per_s": w.output_tokens_per_s,
        "burstiness_cv": w.burstiness_cv,
        "provenance": dict(w.provenance),
    }


def _provenance(build: Build, options: PlanOptions) -> dict[str, Any]:
    spec = build.spec
    return {
        "melange_version": __version__,
        "workload_file": spec.file,
        "profile": dict(build.profile.provenance),
        "prices": {
            "set": None if spec.prices.file else spec.prices.price_set,
            "file": spec.prices.file,
            "spot": spec.prices.spot,
            "read_on": {offer.key: offer.read_on for offer in build.offers},
            "source": {offer.key: offer.source for offer in build.offers},
        },
        "gap_asked": options.gap,
        "time_limit_s": options.time_limit_s,
    }
