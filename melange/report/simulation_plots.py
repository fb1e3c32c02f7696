"""Plots of a simulation: the distribution of TPOT, and the load over time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from melange.errors import InputError
from melange.report.figures import new_figure
from melange.simulator.report import SimulationReport

FORMATS = ("svg", "png")


def write_plots(
    report: SimulationReport, folder: str | os.PathLike[str], *, formats: tuple[str, ...] = FORMATS
) -> tuple[Path, ...]:
    """Write ``tpot_cdf`` and ``load_over_time`` in each format to a folder, made if missing; the files written.

    MissingExtraError without matplotlib; InputError where the folder cannot be made.
    """
    figures = {"tpot_cdf": _tpot_cdf(new_figure(6, 4), report)}
    if report.queue is not None:
        figures["load_over_time"] = _load(new_figure(7, 5), report)
    from matplotlib import rc_context

    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write plots: {error.strerror}", file=folder, fix="name another folder") from error
    written = []
    for name, figure in figures.items():
        for kind in formats:
            path = target / f"{name}.{kind}"
            # Without a date and with a fixed salt the same report gives the same bytes.
            with rc_context({"svg.hashsalt": "melange"}):
                figure.savefig(path, metadata={"Date": None} if kind == "svg" else {}, dpi=150)
            written.append(path)
    return tuple(written)


def _tpot_cdf(figure: Any, report: SimulationReport) -> Any:
    axes = figure.subplots()
    quantiles = 1000 * np.array(report.tpot_quantiles_s)
    axes.plot(quantiles, np.linspace(0, 1, len(quantiles)), color="#1f4e79")
    limit = report.slo["tpot_s"]
    if limit is not None:
        axes.axvline(1000 * float(limit), color="#c0392b", linestyle="--", label=f"limit {1000 * float(limit):g} ms")
        axes.legend(frameon=False)
    axes.set(
        xlabel=f"TPOT ({report.slo['tpot_definition']}), ms",
        ylabel="share of requests",
        ylim=(0, 1),
        title=f"{100 * report.attainment.mean:.2f}% keep the SLO jointly (policy {report.policy})",
    )
    axes.set_xlim(0, max(quantiles[-2] if len(quantiles) > 1 else 1.0, 1200 * float(limit or 0.0)))
    return figure


def _load(figure: Any, report: SimulationReport) -> Any:
    assert report.queue is not None
    upper, lower = figure.subplots(2, sharex=True)
    for name, running in report.queue.running.items():
        upper.plot(report.queue.at_s, running, label=name)
        lower.plot(report.queue.at_s, report.queue.waiting[name], label=name)
    upper.set(ylabel="running requests", title="Load over time (first replication)")
    lower.set(ylabel="waiting requests", xlabel="time, s")
    upper.legend(frameon=False)
    return figure
