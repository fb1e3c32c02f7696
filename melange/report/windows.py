"""A workload's windows as a table with bars, JSON, CSV or a figure."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from melange.errors import InputError
from melange.files.shown import clock_text
from melange.report.figures import check_format, figure_bytes, new_figure
from melange.report.tables import percent, rendered, table
from melange.workload.drift import Drift
from melange.workload.workload import Workload

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
BAR_CELLS = 20
EIGHTHS = " ▏▎▍▌▋▊▉"


def render_drift(
    workload: Workload, drift: Drift, measure: str, output: str = "table", *, colour: bool | None = None
) -> str:
    """The windows as ``table``, ``json`` or ``csv``, one row each; ``measure`` says what load was measured by."""
    if output == "json":
        return json.dumps(_document(workload, drift, measure), indent=2, ensure_ascii=False, allow_nan=False)
    if output == "csv":
        return _csv(drift)
    return rendered(*_parts(workload, drift, measure), colour=colour)


def _row(drift: Drift, n: int) -> dict[str, float | None]:
    names = (
        "start_s", "length_s", "rate_rps", "mean_input_tokens", "mean_output_tokens", "load", "load_per_request",
        "variation", "variation_by_chance",
    )  # fmt: skip
    figures = {name: float(getattr(drift, name)[n]) for name in names}
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _document(workload: Workload, drift: Drift, measure: str) -> dict[str, Any]:
    inputs, outputs = workload.input_tokens_per_s, workload.output_tokens_per_s
    rate = workload.total_rate_rps
    return {
        "schema_version": SCHEMA_VERSION,
        "workload": workload.name,
        "model": workload.model,
        "rate_rps": rate,
        "mean_input_tokens": inputs / rate,
        "mean_output_tokens": outputs / rate,
        "load_measure": measure,
        "summary": _summary(drift),
        "windows": [_row(drift, n) for n in range(len(drift))],
    }


def _summary(drift: Drift) -> dict[str, float] | None:
    """Figures of all windows together; those per request and of the mix over the windows that hold any."""
    if not len(drift):
        return None
    busy = drift.rate_rps > 0
    time = drift.length_s
    return {
        "peak_rate_to_mean": float(drift.rate_rps.max() / (drift.rate_rps @ time / time.sum())),
        "peak_load_to_mean": drift.load_at("peak"),
        "p95_load_to_mean": drift.load_at("p95"),
        "busiest_start_s": float(drift.start_s[drift.busiest]),
        "least_load_per_request": float(drift.load_per_request[busy].min()),
        "most_load_per_request": float(drift.load_per_request[busy].max()),
        "mean_variation": float(drift.variation[busy].mean()),
        "mean_variation_by_chance": float(drift.variation_by_chance[busy].mean()),
        "worst_variation": float(drift.variation[busy].max()),
        "worst_start_s": float(drift.start_s[busy][np.argmax(drift.variation[busy])]),
    }


def _csv(drift: Drift) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    rows = [_row(drift, n) for n in range(len(drift))]
    writer.writerow(rows[0] if rows else ["start_s"])
    writer.writerows(["" if value is None else value for value in row.values()] for row in rows)
    return out.getvalue().rstrip("\n")


def _parts(workload: Workload, drift: Drift, measure: str) -> list[object]:
    rate = workload.total_rate_rps
    sizes = workload.input_tokens_per_s / rate, workload.output_tokens_per_s / rate
    model = f" of {escape(workload.model)}" if workload.model else ""
    head = (
        f"[bold]{escape(workload.name)}[/bold]: {rate:g} req/s{model}, in the mean {sizes[0]:,.1f} input and "
        f"{sizes[1]:,.1f} output tokens"
    )
    summary = _summary(drift)
    if summary is None:
        return [head, "no windows: it comes from no trace with times, or from one of under 2,000 requests"]
    columns = ("start", "load", "", "a request", "req/s", "input", "output", "mix off", "by chance")
    top = max(summary["peak_load_to_mean"], 1.0)
    rows = [_cells(drift, n, top) for n in range(len(drift))]
    title = f"Windows of {clock_text(float(np.median(drift.length_s)))}"
    return [head, "", table(title, columns, rows, left=2), "", *_said(summary, measure)]


def _cells(drift: Drift, n: int, top: float) -> tuple[str, ...]:
    row = _row(drift, n)

    def number(name: str, text: str) -> str:
        value = row[name]
        return "-" if value is None else text.format(value)

    return (
        clock_text(float(drift.start_s[n])),
        bar(float(drift.load[n]) / top),
        number("load", "{:.2f}"),
        number("load_per_request", "{:.2f}"),
        number("rate_rps", "{:.4g}"),
        number("mean_input_tokens", "{:,.0f}"),
        number("mean_output_tokens", "{:,.0f}"),
        percent(row["variation"]),
        percent(row["variation_by_chance"]),
    )


def _said(summary: dict[str, float], measure: str) -> list[str]:
    return [
        f"busiest window at {clock_text(summary['busiest_start_s'])}: {summary['peak_load_to_mean']:.2f} times the "
        f"mean load; 95% of the time at most {summary['p95_load_to_mean']:.2f} times; most requests "
        f"{summary['peak_rate_to_mean']:.2f} times the mean rate",
        f"a request's load runs from {summary['least_load_per_request']:.2f} to "
        f"{summary['most_load_per_request']:.2f} times the mean one's",
        f"the mix of sizes is {percent(summary['mean_variation'])} off the whole's in the mean, "
        f"{percent(summary['worst_variation'])} in the worst window, at {clock_text(summary['worst_start_s'])} "
        f"(total variation; chance alone: {percent(summary['mean_variation_by_chance'])})",
        f"load: {escape(measure)}, over the mean's",
    ]


def bar(share: float) -> str:
    """A bar of blocks for a share from 0 to 1, padded to its whole width."""
    eighths = round(max(0.0, min(share, 1.0)) * BAR_CELLS * 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()).ljust(BAR_CELLS)


def drift_figure(workload: Workload, drift: Drift, measure: str, image_format: str = "png") -> bytes:
    """Load, rate, mean sizes and distance of the mix over time; needs matplotlib. InputError without windows."""
    check_format(image_format)
    if not len(drift):
        raise InputError(f"workload {workload.name} has no windows to draw", fix="make it from a trace with times")
    figure = new_figure(8, 6.5)
    draw_drift(figure, workload, drift, measure)
    return figure_bytes(figure, image_format)


def draw_drift(figure: Figure, workload: Workload, drift: Drift, measure: str) -> None:
    """Draw the windows as steps over hours on a figure, for notebooks."""
    upper, middle, lower = figure.subplots(3, sharex=True)
    edges = np.append(drift.start_s, drift.start_s[-1] + drift.length_s[-1]) / 3600
    time = drift.length_s
    relative = drift.rate_rps / (drift.rate_rps @ time / time.sum())
    series = (
        (upper, drift.load, "load"), (upper, relative, "requests"), (middle, drift.mean_input_tokens, "input"),
        (middle, drift.mean_output_tokens, "output"), (lower, 100 * drift.variation, "mix off the whole's"),
        (lower, 100 * drift.variation_by_chance, "by chance alone"),
    )  # fmt: skip
    for axes, values, label in series:
        axes.stairs(values, edges, label=label, linewidth=1.5, baseline=None)
    upper.axhline(1.0, color="gray", linewidth=0.8)
    upper.set_ylabel("over the mean's")
    middle.set_yscale("log")
    middle.set_ylabel("mean tokens")
    lower.set_ylabel("total variation, %")
    lower.set_xlabel("hours after the first request")
    figure.suptitle(f"{workload.name}; load: {measure}", fontsize=10)
    for axes, least in ((upper, 0.0), (middle, None), (lower, 0.0)):
        axes.set_ylim(bottom=least)
        axes.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
