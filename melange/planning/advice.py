"""What another precision of the weights would cost: a decision about quality, so it is told and not taken."""

from __future__ import annotations

from dataclasses import replace

from melange.catalog.hardware import Catalog
from melange.errors import InputError
from melange.plan.advice import PrecisionAdvice
from melange.plan.plan import Plan
from melange.planning.options import SolveOptions
from melange.planning.planner import prepare, solve_checked
from melange.planning.profile_source import ESTIMATED
from melange.planning.spec import WorkloadSpec

PRECISIONS = ("fp8", "int8")
MOST_SHARES = 20_000  # sizes x configs of a problem up to which solving it again takes seconds at most


def with_precision_advice(plan: Plan, spec: WorkloadSpec, options: SolveOptions | None = None) -> Plan:
    """The plan of a workload with what it would cost at another precision, where that is cheaper.

    Tried are fp8 and int8 where some GPU type in play computes them natively, each by solving with it alone. Nothing is
    said of measured profiles, nor where the workload names its precisions. Problems too large to be solved again in
    seconds are passed over with the reason.
    """
    if not (spec.profiles.set or "").startswith(ESTIMATED) or spec.serving.precisions or plan.considered is None:
        return plan
    others = _native(plan, spec.catalog())
    shares = len(plan.buckets) * len(plan.configs)
    if others and shares > MOST_SHARES:
        return replace(plan, advice=PrecisionAdvice(skipped=f"{shares} shares are too many to solve again for it"))
    found = [_advice(plan, spec, options, precision) for precision in others]
    cheaper = [advice for advice in found if advice is not None]
    return replace(plan, advice=min(cheaper, key=lambda row: row.cost_usd_per_hour or 0.0)) if cheaper else plan


def _native(plan: Plan, catalog: Catalog) -> list[str]:
    assert plan.considered is not None
    gpus = [catalog.gpu(gpu) for gpu in plan.considered.gpus]
    return [
        precision
        for precision in PRECISIONS
        if precision not in plan.considered.precisions and any(gpu.is_native(precision) for gpu in gpus)
    ]


def _advice(plan: Plan, spec: WorkloadSpec, options: SolveOptions | None, precision: str) -> PrecisionAdvice | None:
    """What the precision alone costs; None where it is no cheaper."""
    try:
        case = prepare(spec.with_serving(precisions=(precision,)), options)
    except InputError:  # it fits nowhere, is not fast enough, or what the limits name is not there
        return None
    solution, _ = solve_checked(case.problem, case.choices.options)
    old, new = plan.cost_usd_per_hour, solution.cost_usd_per_hour
    if new is None or solution.replicas is None or (old is not None and new >= old * (1 - 1e-6)):
        return None
    used = {config.instance.gpu for config, count in zip(case.choices.configs, solution.replicas, strict=True) if count}
    catalog = spec.catalog()
    return PrecisionAdvice(
        precision=precision,
        cost_usd_per_hour=new,
        savings=None if old is None else 1 - new / old,
        stored_only=tuple(sorted(gpu for gpu in used if not catalog.gpu(gpu).is_native(precision))),
    )
