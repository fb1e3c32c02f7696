"""Sweep: the cheapest fleet over a range of rates, TPOT limits or prices of one GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from melange.capacity.profile import Profile
from melange.catalog.hardware import load_catalog
from melange.catalog.offers import read_prices
from melange.errors import InputError
from melange.files.shown import html_table, number, share, short_repr
from melange.parallel import Progress, run
from melange.plan.costs import describe_instances
from melange.plan.plan import Plan
from melange.planning.options import SolveOptions
from melange.planning.planner import plan_fleet
from melange.planning.profile_source import load_profile
from melange.planning.spec import WorkloadSpec
from melange.solver.problem import Status

if TYPE_CHECKING:
    from pandas import DataFrame

Axis = Literal["rate_rps", "tpot_s", "price_usd_per_hour"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One value of the axis and its plan.

    ``plan`` is None, and ``reason`` says why, where sizes are not measured at that SLO; an infeasible plan or one
    that ran out of time has its reason too.
    """

    value: float
    plan: Plan | None
    reason: str | None = None

    @property
    def cost_usd_per_hour(self) -> float | None:
        return None if self.plan is None else self.plan.cost_usd_per_hour

    @property
    def status(self) -> Status | Literal["not_measured"]:
        """The plan's status, or ``not_measured``."""
        return "not_measured" if self.plan is None else self.plan.status

    def __repr__(self) -> str:
        if self.plan is None or not self.plan.solved:
            return short_repr("SweepPoint", f"{self.value:g}: {self.status}; {self.reason}")
        fleet = f"{describe_instances(self.plan.instances)} at ${self.plan.cost_usd_per_hour:.2f}/h"
        return short_repr("SweepPoint", f"{self.value:g}: {fleet}, {self.status}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Points along one axis, in the order asked. ``gpu`` is the one whose price varies, None otherwise."""

    workload: str
    axis: Axis
    points: tuple[SweepPoint, ...]
    gpu: str | None = None

    @property
    def gpus(self) -> tuple[str, ...]:
        """Every GPU type that some point has a single-type baseline for, in order of appearance."""
        plans = [point.plan for point in self.points if point.plan is not None]
        return tuple(dict.fromkeys(gpu for plan in plans for gpu in plan.baselines))

    def __repr__(self) -> str:
        of = "" if self.gpu is None else f" of {self.gpu}"
        values = ", ".join(f"{point.value:g}" for point in self.points)
        return short_repr("Sweep", f"{self.workload}: {len(self.points)} points, {self.axis}{of} {values}")

    def _repr_html_(self) -> str:
        rows = [
            (f"{point.value:g}", "none" if plan is None or not plan.solved else describe_instances(plan.instances),
             number(point.cost_usd_per_hour), share(None if plan is None else plan.savings),
             None if plan is None else plan.best_single_type, point.status, point.reason)
            for point, plan in ((point, point.plan) for point in self.points)
        ]  # fmt: skip
        axis = self.axis if self.gpu is None else f"{self.gpu} {self.axis}"
        columns = (axis, "cheapest fleet", "USD per hour", "saved", "against", "status", "reason")
        return html_table(f"{self.workload}: cheapest fleets", columns, rows)

    def to_frame(self) -> DataFrame:
        """One row a point.

        Index: the axis (``rate_rps``, ``tpot_s`` or ``price_usd_per_hour`` of one GPU). Columns: ``status``; ``fleet``
        in words; ``cost_usd_per_hour`` and the proven ``bound_usd_per_hour``; ``best_single_type`` and ``savings``, the
        fraction saved against it; ``usd_per_million_tokens``; ``<instance>_count`` for every instance type that some
        point rents; ``<GPU>_only_usd_per_hour`` for each type alone; ``reason``. NaN or None where there is no fleet.
        """
        import pandas as pd

        plans = [point.plan for point in self.points if point.plan is not None]
        rented = dict.fromkeys(name for plan in plans for name, count in plan.instances.items() if count)
        rows = [_frame_row(point, list(rented), self.gpus) for point in self.points]
        index = pd.Index([point.value for point in self.points], name=self.axis)
        frame = pd.DataFrame(rows, index=index)
        numbers = [name for name in frame.columns if name.endswith(("_usd_per_hour", "_million_tokens", "savings"))]
        return frame.astype(dict.fromkeys(numbers, float))


def _frame_row(point: SweepPoint, rented: Sequence[str], gpus: Sequence[str]) -> dict[str, object]:
    plan = point.plan
    alone = {} if plan is None else {gpu: row.cost_usd_per_hour for gpu, row in plan.baselines.items()}
    return {
        "status": point.status,
        "fleet": None if plan is None or not plan.solved else describe_instances(plan.instances),
        "cost_usd_per_hour": point.cost_usd_per_hour,
        "bound_usd_per_hour": None if plan is None else plan.bound_usd_per_hour,
        "best_single_type": None if plan is None else plan.best_single_type,
        "savings": None if plan is None else plan.savings,
        "usd_per_million_tokens": None if plan is None or plan.costs is None else plan.costs.usd_per_million_tokens,
        **{f"{name}_count": 0 if plan is None else plan.instances.get(name, 0) for name in rented},
        **{f"{gpu}_only_usd_per_hour": alone.get(gpu) for gpu in gpus},
        "reason": point.reason,
    }


def sweep_rates(
    spec: WorkloadSpec,
    rates_rps: Sequence[float],
    options: SolveOptions | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Sweep:
    """The workload solved at each total rate in requests/s.

    ``jobs`` points are solved at a time, in processes; ``progress`` is told (points done, points in all).
    """
    _check("rate", rates_rps)
    profile = load_profile(spec)
    rows = [(float(v), spec.with_rate(float(v)), options, profile) for v in rates_rps]
    points = run(_point, rows, jobs=jobs, progress=progress)
    return Sweep(workload=spec.workload.name, axis="rate_rps", points=tuple(points))


def sweep_tpot(
    spec: WorkloadSpec,
    tpot_s: Sequence[float],
    options: SolveOptions | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Sweep:
    """The workload solved at each TPOT limit in seconds, the rest of its SLO as it is.

    A limit at which a size is not measured is a point with a reason; if all of them are, InputError. So is a limit
    that the profile cannot be asked for (saturation throughputs assumed to keep another one).
    """
    _check("TPOT limit", tpot_s)
    rows = [(float(v), spec.with_slo(replace(spec.slo, tpot_s=float(v))), options) for v in tpot_s]
    points = run(_tpot_point, rows, jobs=jobs, progress=progress)
    if all(point.plan is None for point in points):
        raise InputError(str(points[0].reason))
    return Sweep(workload=spec.workload.name, axis="tpot_s", points=tuple(points))


def sweep_prices(
    spec: WorkloadSpec,
    gpu: str,
    prices_usd_per_hour: Sequence[float],
    options: SolveOptions | None = None,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Sweep:
    """The workload solved at each price of one GPU type, USD per hour and GPU, whoever rents it out."""
    _check("price", prices_usd_per_hour)
    name = load_catalog().gpu(gpu).name
    profile = load_profile(spec)
    known = {key.gpu for key in profile.configs}
    if name not in known:
        raise InputError(f"{name} is not in the profile", fix=f"it holds {', '.join(sorted(known))}")
    rows = [(float(v), repriced(spec, name, float(v)), options, profile) for v in prices_usd_per_hour]
    points = run(_point, rows, jobs=jobs, progress=progress)
    return Sweep(workload=spec.workload.name, axis="price_usd_per_hour", points=tuple(points), gpu=name)


def repriced(spec: WorkloadSpec, gpu: str, usd_per_hour: float) -> WorkloadSpec:
    """The spec with every offer of a GPU type at this price for each of its GPUs."""
    offers = read_prices(spec.prices.file) if spec.offers is None else spec.offers
    return spec.with_offers(
        replace(offer, price_usd_per_hour=usd_per_hour * offer.gpus, read_on=None, source="set by the user")
        if offer.gpu == gpu
        else offer
        for offer in offers
    )


def _check(what: str, values: Sequence[float]) -> None:
    if not values:
        raise InputError(f"there is no {what} to sweep over", fix="give at least one value")
    for value in values:
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"a {what} is {value}", fix="give positive, finite values")


def _tpot_point(value: float, spec: WorkloadSpec, options: SolveOptions | None) -> SweepPoint:
    profile = load_profile(spec)
    try:
        return _point(value, spec, options, profile)
    except InputError as error:
        return SweepPoint(value=value, plan=None, reason=str(error))


def _point(value: float, spec: WorkloadSpec, options: SolveOptions | None, profile: Profile) -> SweepPoint:
    plan = plan_fleet(spec, options, profile=profile)
    reason = "; ".join(plan.reasons) or None
    if plan.status == Status.UNKNOWN:
        reason = "the time limit passed before a fleet was found"
    return SweepPoint(value=value, plan=plan, reason=reason)
