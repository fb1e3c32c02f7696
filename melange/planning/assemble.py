"""Plan assembly: what a solved problem says, in the fields of plan.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.files.version import __version__
from melange.plan.bucket import PlanBucket
from melange.plan.config import LeftOutOffer, PlanConfig
from melange.plan.costs import HOURS_PER_MONTH, Baseline, Costs, PlanLimit
from melange.plan.demand import PlanDemand
from melange.plan.plan import Plan
from melange.planning.case import Case
from melange.planning.choices import Choices
from melange.planning.spec import WorkloadSpec
from melange.slo import Slo
from melange.solver.problem import Problem, Solution, Status
from melange.workload.workload import Workload


def with_fleet(
    plan: Plan,
    problem: Problem,
    solution: Solution,
    *,
    baselines: Mapping[str, Baseline],
    utilization: Mapping[str, float],
    costs: Costs | None,
) -> Plan:
    """The plan with what solving gave: fleet, cost, proof, utilisation, baselines and the limits that bind.

    A solution without a fleet adds its status, bound and baselines alone.
    """
    costed = {name: b.cost_usd_per_hour for name, b in baselines.items() if b.cost_usd_per_hour is not None}
    plan = replace(
        plan,
        status=solution.status,
        cost_usd_per_hour=solution.cost_usd_per_hour,
        bound_usd_per_hour=solution.bound_usd_per_hour,
        gap=solution.gap,
        baselines=baselines,
        best_single_type=min(costed, key=lambda name: costed[name]) if costed else None,
    )
    if solution.instances is None or solution.replicas is None:
        return plan
    return replace(
        plan,
        instances=counts(problem.instances, solution.instances),
        replicas=counts(problem.configs, solution.replicas),
        utilization=utilization,
        limits=_limits(problem, solution),
        costs=costs,
    )


def plan_of(case: Case, solution: Solution, baselines: Mapping[str, Baseline]) -> Plan:
    """The plan of a solved case; ``baselines`` as single_type_baselines gives them."""
    served, used = _carried(case, solution)
    return _solved(_plan(case.choices, served), case, solution, baselines, used)


# Shares in time and late, each (n_buckets, n_configs).
_Served = tuple[FloatArray, FloatArray]


def _carried(case: Case, solution: Solution) -> tuple[_Served | None, dict[str, float]]:
    """Who serves the buckets, None without a fleet, and the utilisation of configs in use."""
    if solution.shares is None or solution.replicas is None:
        return None, {}
    in_time, late = case.expand(solution.shares, solution.late_shares)
    choices = case.choices
    load = utilised(in_time, choices.rate_rps, choices.max_rate_rps)
    load += utilised(late, choices.rate_rps, choices.late_rate_rps)
    return (in_time, late), per_replica(case.problem.configs, load, solution)


def _solved(
    plan: Plan, case: Case, solution: Solution, baselines: Mapping[str, Baseline], used: Mapping[str, float]
) -> Plan:
    cost = solution.cost_usd_per_hour
    costs = None if cost is None else costs_of(cost, case.choices.spec.workload)
    return with_fleet(plan, case.problem, solution, baselines=baselines, utilization=used, costs=costs)


def with_shares(plan: Plan, case: Case, solution: Solution, baselines: Mapping[str, Baseline]) -> Plan:
    """Another solution of the case that a plan is of: :func:`plan_of`, without looking the rates up again."""
    choices, (served, used) = case.choices, _carried(case, solution)
    buckets = plan.buckets
    if served is not None:
        buckets = tuple(
            replace(bucket, shares=_named(choices, in_time), late_shares=_named(choices, late))
            for bucket, in_time, late in zip(plan.buckets, *served, strict=True)
        )
    return _solved(replace(plan, buckets=buckets), case, solution, baselines, used)


def plan_without_fleet(choices: Choices) -> Plan:
    """The infeasible plan of choices among which nothing serves some bucket."""
    return _plan(choices, None)


def _named(choices: Choices, shares: FloatArray) -> dict[str, float]:
    """(n_configs,) shares by config, zeros left out."""
    return {config.name: float(share) for config, share in zip(choices.configs, shares, strict=True) if share > 0}


def _plan(choices: Choices, served: _Served | None) -> Plan:
    """The plan's inputs and shares, before a fleet is filled in."""
    spec, options = choices.spec, choices.options
    return Plan(
        status=Status.INFEASIBLE,
        slo=spec.slo,
        workload=_demand(spec),
        configs={config.name: _config(choices, c) for c, config in enumerate(choices.configs)},
        buckets=tuple(_bucket(choices, b, served) for b in range(len(choices.buckets))),
        headroom=spec.headroom,
        slice_factor=options.slice_factor,
        warnings=(*choices.warnings, *pooled_warning(spec.slo), *additivity_warning(spec.slo)),
        dropped_offers=tuple(
            LeftOutOffer(instance=d.offer.name, gpu=d.offer.gpu, provider=d.offer.provider, reason=d.reason)
            for d in choices.dropped
        ),
        considered=choices.considered,
        routing="input-only" if options.tie_outputs else None,
        basis=choices.profile.basis,
        provenance=_provenance(choices),
    )


def counts(names: Sequence[str], numbers: np.ndarray[Any, Any]) -> dict[str, int]:
    """Whole numbers by name, zeros left out."""
    return {name: int(number) for name, number in zip(names, numbers, strict=True) if number}


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


def utilised(shares: FloatArray, rate_rps: FloatArray, max_rate_rps: FloatArray) -> FloatArray:
    """(n_configs,) replicas kept busy: shares and max rates (n_buckets, n_configs), rates (n_buckets,) w/o headroom.

    Requests whose rate is 0 count as nothing: it does not say how busy they keep a replica.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        load = np.where((shares > 0) & (max_rate_rps > 0), shares * rate_rps[:, None] / max_rate_rps, 0.0)
    return np.asarray(load.sum(axis=0), dtype=np.float64)


def per_replica(configs: Sequence[str], load: FloatArray, solution: Solution) -> dict[str, float]:
    """Load / replicas by config in use."""
    assert solution.replicas is not None
    return {name: float(load[c] / solution.replicas[c]) for c, name in enumerate(configs) if solution.replicas[c]}


def _bucket(choices: Choices, b: int, served: _Served | None) -> PlanBucket:
    """A bucket with who serves it, nobody without a solution."""
    bucket, names = choices.buckets[b], [config.name for config in choices.configs]
    may_be_late = choices.spec.slo.may_miss > 0
    rates = zip(names, choices.max_rate_rps[b], strict=True)
    tables = ((config.name, choices.profile.configs[config.key]) for config in choices.configs)
    size = choices.load_tokens[b]
    sources = ((name, table.source_at(size[0], size[1])) for name, table in tables)
    return PlanBucket(
        **asdict(bucket),
        shares={} if served is None else _named(choices, served[0][b]),
        late_shares={} if served is None else _named(choices, served[1][b]),
        max_rate_rps={name: None if np.isnan(rate) else float(rate) for name, rate in rates},
        late_rate_rps=_named(choices, choices.late_rate_rps[b]) if may_be_late else {},
        sources={name: source for name, source in sources if source},
    )


def pooled_warning(slo: Slo) -> tuple[str, ...]:
    """Percentiles that differ: the program lets as many miss every limit as the strictest allows (docs/design.md)."""
    if len(set(slo.quantiles.values())) < 2:
        return ()
    return (
        "the percentiles differ, and by mean loads no more requests may miss the looser limits than the strictest one: "
        "a cheaper fleet may do, or one where none is found; --attain judges each limit by its own",
    )


def additivity_warning(slo: Slo) -> tuple[str, ...]:
    """Loads of different sizes are added up, which is optimistic for limits that include waiting (docs/design.md)."""
    waiting = [name for name, limit in (("TTFT", slo.ttft_s), ("E2E", slo.e2e_s)) if limit is not None]
    if slo.tpot_s is not None and slo.tpot_definition == "e2e_per_token":
        waiting.append("TPOT (e2e_per_token)")
    if not waiting:
        return ()
    return (
        f"loads of different sizes are added up, which is optimistic where the limit includes waiting "
        f"({', '.join(waiting)}): see 'melange simulate --additivity', or solve with --attain",
    )


def _config(choices: Choices, c: int) -> PlanConfig:
    config, catalog = choices.configs[c], choices.spec.catalog()
    offer, table = config.instance, choices.profile.configs[config.key]
    try:
        shape = replace(catalog.model(config.model), aliases=(), source="")
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
        kv_dtype=config.kv_dtype,
        max_batched_tokens=config.max_batched_tokens,
        max_num_seqs=config.max_num_seqs,
        price_set=offer.price_set or None,
        price_read_on=offer.read_on,
        headroom=float(choices.headroom[c]),
        sources=table.sources,
        hardware=replace(catalog.gpu(offer.gpu), aliases=(), source=""),
        model_shape=shape,
        profile=table.table(),
        owned=offer.owned,
    )


def _limits(problem: Problem, solution: Solution) -> tuple[PlanLimit, ...]:
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
        cheapest = problem.least_price_usd_per_hour
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


def _demand(spec: WorkloadSpec) -> PlanDemand:
    w = spec.workload
    return PlanDemand(
        name=w.name,
        model=w.model,
        rate_rps=w.total_rate_rps,
        representative=w.representative,
        input_edges_tokens=w.grid.input_edges_tokens,
        output_edges_tokens=w.grid.output_edges_tokens,
        input_tokens_per_s=w.input_tokens_per_s,
        output_tokens_per_s=w.output_tokens_per_s,
        burstiness_cv=w.burstiness_cv,
        load_scale=spec.load_scale,
        provenance=dict(w.provenance),
    )


def _provenance(choices: Choices) -> dict[str, Any]:
    spec, options = choices.spec, choices.options
    return {
        "melange_version": __version__,
        "workload_file": spec.file,
        "profile": dict(choices.profile.provenance),
        "prices": {
            "set": None if spec.prices.file else spec.prices.price_set,
            "file": spec.prices.file,
            "spot": spec.prices.spot,
            "read_on": {offer.key: offer.read_on for offer in choices.offers},
            "source": {offer.key: offer.source for offer in choices.offers},
        },
        "gap_asked": options.gap,
        "time_limit_s": options.time_limit_s,
    }
