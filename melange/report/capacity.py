"""What given machines carry, as a table or JSON."""

from __future__ import annotations

import json

from rich.console import RenderableType
from rich.markup import escape

from melange.attainment.given_machines import MachineRates, WayRate
from melange.plan.costs import describe_instances
from melange.report.tables import percent, rendered, table, usd


def render_capacity(rates: MachineRates, output: str = "table", *, colour: bool | None = None) -> str:
    """The highest rates of machines as ``table`` or ``json``."""
    if output == "json":
        return json.dumps(rates.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    parts: list[RenderableType] = [_headline(rates), "", _ways(rates), "", _how(rates)]
    parts += [escape(text) for text in _notes(rates)]
    parts += [f"warning: {escape(text)}" for text in rates.warnings]
    return rendered(*parts, colour=colour)


def _headline(rates: MachineRates) -> str:
    machines, of = escape(describe_instances(rates.machines)), escape(rates.model or "the model")
    best = rates.best
    if best is None:
        carried = "no rate at the precision that the workload leaves open"
    else:
        how = "" if best.simulated_rps is None else f" ({percent(best.attainment, 2)} simulated)"
        carried = f"{_rate(best.rate_rps)} req/s as {escape(best.label)}, {best.precision}{how}"
    head = f"[bold]{machines}[/bold] at {usd(rates.cost_usd_per_hour)}/h, {of}, {escape(rates.slo_text)}:"
    return f"{head}\n[bold]{carried}[/bold]"


def _ways(rates: MachineRates) -> RenderableType:
    rows = [
        (
            way.label + (" (best)" if way is rates.best else ""),
            way.precision + ("" if way.is_open else " (not asked for)"),
            describe_instances(way.replicas),
            _rate(way.program_rps),
            _simulated(way),
            percent(way.attainment, 2),
        )
        for way in rates.ways
    ]
    columns = ("way", "precision", "replicas", "program", "simulated", "keep the SLO")
    return table("Highest rates of the workload's mix, req/s", columns, rows, left=3)


def _rate(rate_rps: float) -> str:
    return f"{rate_rps:.3g}" if rate_rps else "0"


def _simulated(way: WayRate) -> str:
    return "-" if way.simulated_rps is None else _rate(way.simulated_rps)


def _how(rates: MachineRates) -> str:
    text = "program: as in a plan, mean loads added up; 0 where more is late at any rate than may be by design"
    if all(way.simulated_rps is None for way in rates.ways):
        return text
    return (
        f"{text}\nsimulated: {rates.replications} x {rates.requests} requests, {escape(rates.arrivals)}, policy "
        f"{escape(rates.policy)}, seed {rates.seed}, the same requests at every rate, no queue "
        f"growing; found to {percent(rates.resolution, 0)}"
    )


def _notes(rates: MachineRates) -> list[str]:
    notes = [] if rates.advice is None else [rates.advice]
    return notes + ([f"left out: {'; '.join(rates.left_out)}"] if rates.left_out else [])
