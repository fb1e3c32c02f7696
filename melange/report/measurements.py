"""Measurements and what follows from them: heatmaps, capacities, checks, estimates of a run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from melange.arrays import FloatArray
from melange.capacity.profile import WIDE, ConfigProfile, Profile, nested, profile_from
from melange.files.records import to_plain
from melange.measurements.file import MeasurementFile
from melange.profiler.check import CheckResult
from melange.profiler.runner import Estimate, RunRequest
from melange.profiler.search import Capacity
from melange.report.tables import rendered
from melange.serving.config import ConfigKey
from melange.slo import Slo

SCHEMA_VERSION = 1
SHADES = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")


def file_slo(measured: MeasurementFile) -> Slo:
    """The SLO that a file was last measured for; none where its headers do not say."""
    told = (header.slo for header in reversed(measured.headers) if header.slo is not None)
    return next(told, Slo())


def render_profile(
    measured: MeasurementFile,
    slo: Slo,
    *,
    usd_per_hour: float | None = None,
    output: str = "table",
    colour: bool | None = None,
) -> str:
    """Highest sustainable rates of a file under an SLO: ``table`` (heatmaps), ``json`` or ``csv``, each ending a line.

    With a price, tokens (input and output) per dollar are added.
    """
    profile = profile_from(measured.points, slo)
    if output == "json":
        return json.dumps(_json(profile, usd_per_hour), indent=2, allow_nan=False) + "\n"
    if output == "csv":
        return _csv(profile, usd_per_hour)
    parts: list[RenderableType] = [f"Highest sustainable rate under {escape(slo.describe())}", ""]
    for config in profile.configs.values():
        parts += [_heatmap(config, "req/s", config.max_rate_rps, failing=config.next_failing_rps), ""]
        if usd_per_hour is not None:
            parts += [_heatmap(config, "thousand tokens per $", _tokens_per_usd(config, usd_per_hour) / 1000), ""]
    parts.append("0: the SLO cannot be met; -: not measured. Rates are of one replica.")
    parts.append(
        "a..b: holds at a, fails at b, and the highest rate that holds is not known more closely; ?: no such load"
    )
    parts += [f"warning: {escape(warning)}" for warning in profile.warnings]
    return rendered(*parts, colour=colour).rstrip("\n") + "\n"


def _tokens_per_usd(config: ConfigProfile, usd_per_hour: float) -> FloatArray:
    tokens = config.input_tokens[:, None] + config.output_tokens[None, :]
    return np.asarray(config.max_rate_rps * tokens * 3600 / usd_per_hour)


def _heatmap(config: ConfigProfile, what: str, values: FloatArray, *, failing: FloatArray | None = None) -> Group:
    """A shaded table; with ``failing``, (n, m) like ``values``, measured cells show their interval where it is wide."""
    grid = Table(box=None, padding=(0, 1))
    grid.add_column("input \\ output", justify="right")
    for tokens in config.output_tokens:
        grid.add_column(f"{tokens:g}", justify="right")
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    low = float(np.nanmin(np.where(values > 0, values, np.nan))) if (values > 0).any() else top
    for i, tokens in enumerate(config.input_tokens):
        texts = [_cell_text(config, (i, j), values, failing) for j in range(len(config.output_tokens))]
        grid.add_row(
            f"{tokens:g}", *(_shaded(text, float(v), low, top) for text, v in zip(texts, values[i], strict=True))
        )
    return Group(escape(f"{config.key.describe()}: {what}"), grid)


def _cell_text(config: ConfigProfile, cell: tuple[int, int], values: FloatArray, failing: FloatArray | None) -> str:
    rate, fails = float(values[cell]), math.nan if failing is None else float(failing[cell])
    if math.isnan(rate):
        return "-" if math.isnan(fails) else f"?..{_number(fails)}"
    measured = failing is not None and config.source[cell] == "measured" and rate > 0
    if not measured or fails / rate <= WIDE:
        return _number(rate)
    return f"{_number(rate)}..{'?' if math.isnan(fails) else _number(fails)}"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _shaded(text: str, value: float, low: float, top: float) -> Text:
    if math.isnan(value) or value <= 0:
        return Text(text)
    share = 1.0 if top <= low else math.log(value / low) / math.log(top / low)
    shade = SHADES[min(len(SHADES) - 1, int(share * len(SHADES)))]
    return Text(f" {text} ", style=f"{'white' if share < 0.5 else 'black'} on {shade}")


def _json(profile: Profile, usd_per_hour: float | None) -> dict[str, object]:
    rows = []
    for config in profile.configs.values():
        table = to_plain(config.table())
        row = {**config.key.row(), **table, "next_failing_rps": nested(config.next_failing_rps)}
        if usd_per_hour is not None:
            per_usd = _tokens_per_usd(config, usd_per_hour)
            row["tokens_per_usd"] = nested(per_usd)
        rows.append(row)
    return {
        "schema_version": SCHEMA_VERSION,
        "slo": profile.slo.to_dict(),
        "usd_per_hour": usd_per_hour,
        "configs": rows,
        "warnings": list(profile.warnings),
    }


def _csv(profile: Profile, usd_per_hour: float | None) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [*ConfigKey._fields, "input_tokens", "output_tokens", "next_failing_rps", "max_rate_rps"]
    writer.writerow([*columns, *(["tokens_per_usd"] if usd_per_hour is not None else [])])
    for config in profile.configs.values():
        per_usd = None if usd_per_hour is None else _tokens_per_usd(config, usd_per_hour)
        for (i, j), rate in np.ndenumerate(config.max_rate_rps):
            figures = [config.next_failing_rps[i, j], rate, *([] if per_usd is None else [per_usd[i, j]])]
            row = [*config.key, config.input_tokens[i], config.output_tokens[j]]
            writer.writerow([*row, *("" if math.isnan(figure) else figure for figure in figures)])
    return out.getvalue()


def render_capacities(
    capacities: Sequence[Capacity], slo: Slo, usd_per_hour: float | None = None, *, colour: bool | None = None
) -> str:
    """What a run found: the interval of every size and how it ended."""
    grid = Table(box=None, padding=(0, 1))
    for name in ("input", "output", "holds at req/s", "fails at req/s", "status"):
        grid.add_column(name, justify="left" if name == "status" else "right")
    if usd_per_hour is not None:
        grid.add_column("tokens per $", justify="right")
    for found in capacities:
        high = "?" if found.high_rps is None else f"{found.high_rps:.3g}"
        status: str = "budget spent" if found.status == "open" else found.status
        status += ", closed loops only" if found.interval.basis == "closed loops" else ""
        unknown = found.low_rps == 0 and found.high_rps != 0  # a capacity of 0 is known only where not even 0 holds
        low = "?" if unknown else f"{found.low_rps:.3g}"
        status += "" if found.reason is None else f": {found.reason}"
        row = [str(found.size.input_tokens), str(found.size.output_tokens), low, high, escape(status)]
        if usd_per_hour is not None:
            tokens = found.size.input_tokens + found.size.output_tokens
            row.append("?" if unknown else f"{found.low_rps * tokens * 3600 / usd_per_hour:,.0f}")
        grid.add_row(*row)
    return rendered(escape(f"Sustainable rate under {slo.describe()}"), grid, colour=colour).rstrip("\n")


def render_check(result: CheckResult, *, colour: bool | None = None) -> str:
    """Every comparison, and the verdict in a sentence."""
    grid = Table(box=None, padding=(0, 1))
    for name in ("size", "load", "latency", "then ms", "now ms", "change", "holds"):
        grid.add_column(name, justify="right" if name in ("then ms", "now ms", "change") else "left")
    for c in result.comparisons:
        change = f"{100 * (c.ratio - 1):+.1f}%"
        then, now = f"{1000 * c.then_s:.3g}", f"{1000 * c.now_s:.3g}"
        grid.add_row(c.size.describe(), c.load, c.quantity, then, now, change, "yes" if c.holds else "no")
    versions = f"engine {result.version_then or 'unknown'} then, {result.version_now or 'unknown'} now"
    verdict = "The profile still holds" if result.holds else "The profile no longer holds: measure it again"
    return rendered(grid, "", f"{verdict} ({escape(versions)}).", colour=colour).rstrip("\n")


def render_estimate(plan: Estimate, request: RunRequest) -> str:
    """Plan, time and cost of a run that has not begun."""
    lines = [f"SLO: {request.slo.describe()}", f"sizes ({len(plan.sizes)}):"]
    done = {found.size: found for found in plan.finished}
    for size in plan.sizes:
        state = f"finished: {done[size].describe()}" if size in done else _to_measure(plan.expected_rps.get(size))
        lines.append(f"  {size.describe()}: {state}")
    cost = "" if plan.usd is None else f", ${plan.usd:.2f}"
    why = {
        "budget": "the budget's limit",
        "model": "at the rates that the performance model expects",
        "longest": "if every size takes its longest: the performance model does not know this model or GPU",
    }[plan.basis]
    limit = f"each load point at most {request.point_seconds:g} s and {request.settings.samples_needed} requests"
    lines.append(f"about {plan.seconds / 60:.0f} min{cost} ({why}), {limit}")
    return "\n".join(lines)


def _to_measure(expected_rps: float | None) -> str:
    if expected_rps is None:
        return "to measure"
    if expected_rps <= 0:
        return "to measure; no load is expected to keep the SLO"
    return f"to measure; {expected_rps:.3g} req/s expected"
