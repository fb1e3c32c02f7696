"""A sweep as a table, JSON, CSV or a figure."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from melange.analysis.sweep import Sweep, SweepPoint
from melange.plan.costs import describe_instances
from melange.report.figures import check_format, figure_bytes, new_figure
from melange.report.tables import percent, rendered, table, usd
from melange.workload.load_scale import LoadScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCHEMA_VERSION = 1


def render_sweep(sweep: Sweep, output: str = "table", *, colour: bool | None = None) -> str:
    """The sweep as ``table``, ``json`` or ``csv``, one row a point; TPOT limits in ms."""
    if output == "json":
        head = {"schema_version": SCHEMA_VERSION, "workload": sweep.workload, "axis": _axis(sweep), "gpu": sweep.gpu}
        scale = _scale(sweep)
        rows = [_row(sweep, point) for point in sweep.points]
        document = head | {"load_scale": None if scale is None else asdict(scale), "points": rows}
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    if output == "csv":
        return _csv(sweep)
    return rendered(*_table(sweep), colour=colour)


def _axis(sweep: Sweep) -> str:
    return "slo_tpot_ms" if sweep.axis == "tpot_s" else sweep.axis


def _value(sweep: Sweep, point: SweepPoint) -> float:
    return round(1000 * point.value, 9) if sweep.axis == "tpot_s" else point.value


def _row(sweep: Sweep, point: SweepPoint) -> dict[str, Any]:
    plan = point.plan
    return {
        _axis(sweep): _value(sweep, point),
        "status": point.status,
        "instances": {} if plan is None else dict(plan.instances),
        "cost_usd_per_hour": point.cost_usd_per_hour,
        "bound_usd_per_hour": None if plan is None else plan.bound_usd_per_hour,
        "best_single_type": None if plan is None else plan.best_single_type,
        "savings": None if plan is None else plan.savings,
        "single_type_cost_usd_per_hour": {gpu: _alone(point, gpu) for gpu in sweep.gpus},
        "reason": point.reason,
    }


def _alone(point: SweepPoint, gpu: str) -> float | None:
    baseline = None if point.plan is None else point.plan.baselines.get(gpu)
    return None if baseline is None else baseline.cost_usd_per_hour


def _csv(sweep: Sweep) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    alone = "single_type_cost_usd_per_hour"
    plain = [key for key in _row(sweep, sweep.points[0]) if key != alone]
    writer.writerow([*plain, *(f"{gpu}_only_usd_per_hour" for gpu in sweep.gpus)])
    for point in sweep.points:
        row = _row(sweep, point)
        row["instances"] = " ".join(f"{name}={count}" for name, count in row["instances"].items())
        writer.writerow([*(row[key] for key in plain), *(row[alone][gpu] for gpu in sweep.gpus)])
    return out.getvalue().rstrip("\n")


def _table(sweep: Sweep) -> list[object]:
    title = {
        "rate_rps": "req/s",
        "tpot_s": "TPOT limit, ms",
        "price_usd_per_hour": f"{sweep.gpu}, $/h",
    }[sweep.axis]
    columns = (title, "cheapest fleet", "$/h", "savings", "against", *(f"{gpu} only" for gpu in sweep.gpus))
    rows = []
    for point in sweep.points:
        fleet = describe_instances(point.plan.instances) if point.plan is not None and point.plan.solved else "none"
        unproven = "" if point.status in ("optimal", "infeasible", "not_measured") else " *"
        rows.append(
            (
                f"{_value(sweep, point):g}",
                fleet + unproven,
                usd(point.cost_usd_per_hour),
                percent(None if point.plan is None else point.plan.savings),
                (point.plan.best_single_type if point.plan is not None else None) or "-",
                *(usd(_alone(point, gpu)) for gpu in sweep.gpus),
            )
        )
    scale = _scale(sweep)
    parts: list[object] = [
        f"{sweep.workload}: cheapest fleets, and each type alone in $/h",
        *([] if scale is None else [f"planned for {scale.describe_factor()}"]),
        "",
        table(None, columns, rows),
    ]
    if any(row[1].endswith(" *") for row in rows):
        parts.append("* not proven cheapest within the time limit")
    parts += [f"{title} {_value(sweep, p):g}: {p.reason}" for p in sweep.points if p.reason]
    plans = [point.plan for point in sweep.points if point.plan is not None]
    parts += [f"warning: {text}" for text in dict.fromkeys(text for plan in plans for text in plan.warnings)]
    return parts


def _scale(sweep: Sweep) -> LoadScale | None:
    """What every rate is multiplied by, where the fleets are for more than the mean load."""
    scales = (point.plan.workload.load_scale for point in sweep.points if point.plan is not None)
    return next((scale for scale in scales if scale is not None), None)


def sweep_figure(sweep: Sweep, image_format: str = "png") -> bytes:
    """Cost against the swept value, the optimum beside each type alone; needs matplotlib (extra ``notebooks``).

    Over rates with upper-edge representatives this is the Mélange paper's figure of cost against request rate.
    """
    check_format(image_format)
    figure = new_figure(7, 4.2)
    draw_sweep(sweep, figure.subplots())
    return figure_bytes(figure, image_format)


def draw_sweep(sweep: Sweep, axes: Axes) -> None:
    """Draw the curve on matplotlib axes, for notebooks."""
    values = [_value(sweep, point) for point in sweep.points]
    for gpu in sweep.gpus:
        costs = [_alone(point, gpu) for point in sweep.points]
        axes.plot(values, [float("nan") if c is None else c for c in costs], marker=".", alpha=0.7, label=f"{gpu} only")
    costs = [point.cost_usd_per_hour for point in sweep.points]
    line = [float("nan") if c is None else c for c in costs]
    axes.plot(values, line, color="black", marker="o", linewidth=2, label="cheapest fleet")
    labels = {"rate_rps": "requests per second", "tpot_s": "TPOT limit, ms"}
    axes.set_xlabel(labels.get(sweep.axis, f"price of one {sweep.gpu}, USD per hour"))
    axes.set_ylabel("fleet cost, USD per hour")
    if sweep.axis == "rate_rps" and min(values) > 0 and max(values) / min(values) >= 8:
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_title(sweep.workload)
    axes.legend(frameon=False)
