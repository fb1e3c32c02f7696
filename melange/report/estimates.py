"""Estimates, calibrations and physical limits as tables, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from melange.arrays import five_digits
from melange.capacity.profile import ConfigProfile
from melange.files.records import to_plain
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimates import Estimates
from melange.perfmodel.limits import PhysicalLimit
from melange.report.tables import rendered, table
from melange.serving.efficiencies import PRIORS


def render_estimates(estimates: Estimates, output: str = "table") -> str:
    """Highest rates per size with their band; JSON also holds the load points, CSV is the load points."""
    slo, calibration, points = estimates.profile.slo, estimates.calibration, estimates.points
    tables = list(estimates.profile.configs.values())
    if output == "json":
        return json.dumps(
            {
                "schema_version": 1,
                "slo": slo.to_dict(),
                "calibration": calibration.describe(),
                "rates": [{**config.key.row(), **to_plain(config.table())} for config in tables],
                "points": [point.to_dict() for point in points],
                "notes": list(estimates.notes),
            },
            indent=2,
        )
    if output == "csv":
        return _points_csv(points)
    parts: list[Any] = []
    for config in tables:
        columns = ("input \\ output", *(f"{size:g}" for size in config.output_tokens))
        rows = [
            (f"{size:g}", *(_rate(config, i, o) for o in range(len(config.output_tokens))))
            for i, size in enumerate(config.input_tokens)
        ]
        parts += [
            table(f"{config.key.describe()}: highest requests/s of a replica, {slo.describe()}", columns, rows),
            "",
        ]
    parts += estimates.notes
    parts.append(
        f"Estimated, {calibration.describe()}; in brackets an 80% band. 0: it does not fit or cannot keep the SLO."
    )
    return rendered(*parts)


def _rate(config: ConfigProfile, i: int, o: int) -> str:
    rate = float(config.max_rate_rps[i, o])
    if not rate:
        return "0"
    return f"{rate:.3g} [{config.low_rps[i, o]:.2g}-{config.high_rps[i, o]:.2g}]"


def _points_csv(points: Sequence[Measurement]) -> str:
    rows = []
    for point in points:
        row: dict[str, object] = {}
        for key, value in point.to_dict().items():
            if isinstance(value, Mapping):
                row |= {f"{key.removesuffix('_s')}_{name}_s": v for name, v in value.items()}
            else:
                row[key] = value
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


_ERRORS = (
    ("by_gpu", "GPU"),
    ("by_model", "model"),
    ("by_precision", "precision"),
    ("by_engine", "engine"),
    ("by_region", "bound by"),
)
_ALWAYS = ("by_gpu", "by_region")  # the others only where there are several


def render_calibration(calibration: Calibration, output: str) -> str:
    """Efficiencies, where each comes from, and the held-out errors."""
    if output == "json":
        return json.dumps({"schema_version": 1, **calibration.to_dict()}, indent=2)
    rows = [
        (
            name,
            f"{value:.4g}",
            f"x{2.71828 ** calibration.spreads[name]:.2f}",
            "data" if name in calibration.fitted else "prior",
            PRIORS[name].meaning,
        )
        for name, value in to_plain(calibration.efficiencies).items()
    ]
    parts: list[Any] = [
        table(f"Calibration {calibration.name} ({calibration.label})", ("", "value", "1 sd", "from", "meaning"), rows)
    ]
    for key, title in _ERRORS:
        found = calibration.errors.get(key)
        if isinstance(found, Mapping) and (len(found) > 1 or key in _ALWAYS):
            lines = [(name, f"{100 * row['median']:.1f}%", str(row["points"])) for name, row in found.items()]
            parts += ["", table("Error on held-out points", (title, "median", "points"), lines)]
    parts += ["", f"Median error on held-out points: {_percent(calibration.errors.get('held_out_median'))}"]
    if calibration.label == "throughput-only":
        parts.append("Throughput only: how latency limits a rate rests on priors until latencies are measured.")
    return rendered(*parts)


def _percent(value: object) -> str:
    return f"{100 * value:.1f}%" if isinstance(value, float | int) else "unknown"


def render_limits(limits: Sequence[PhysicalLimit], output: str) -> str:
    """Each measured throughput beside its physical optimum; impossible ones are marked."""
    rows = [
        {
            **limit.point.key.row(),
            "input_tokens": limit.point.input_tokens,
            "output_tokens": limit.point.output_tokens,
            "achieved_rps": limit.point.achieved_rps,
            "optimum_rps": five_digits(limit.optimum_rps),
            "share": float(f"{limit.share:.4g}"),
            "binding": limit.binding,
            "impossible": limit.is_impossible,
        }
        for limit in limits
    ]
    if output == "json":
        return json.dumps({"schema_version": 1, "limits": rows}, indent=2)
    if output == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    lines = [
        (
            limit.point.key.describe(),
            f"{limit.point.input_tokens:g}",
            f"{limit.point.output_tokens:g}",
            f"{limit.point.achieved_rps:.4g}",
            f"{limit.optimum_rps:.4g}",
            f"{100 * limit.share:.0f}%" + (" IMPOSSIBLE" if limit.is_impossible else ""),
            limit.binding,
        )
        for limit in limits
    ]
    columns = ("configuration", "input", "output", "req/s", "optimum", "share", "bound by")
    return rendered(table("Share of the physical optimum", columns, lines))
