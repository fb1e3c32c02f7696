"""Simulations, policy comparisons and additivity tests as tables or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.markup import escape

from melange.report.tables import percent, rendered, table, usd

if TYPE_CHECKING:
    from melange.analysis.additivity import Additivity
    from melange.simulator.lengths import LengthPrice
    from melange.simulator.metrics import Estimate, Latency
    from melange.simulator.report import SimulationReport


def render_simulation(report: SimulationReport, output: str = "table", *, colour: bool | None = None) -> str:
    """One report as ``table`` or ``json``."""
    if output == "json":
        return _json(report.to_dict())
    parts: list[RenderableType] = [_headline(report), "", _latencies(report), "", _configs(report), ""]
    parts += [_misses(report), ""] if any(report.missed_share.values()) else []
    parts += [_worst_buckets(report), "", _rates(report)]
    parts += [f"warning: {escape(text)}" for text in report.warnings]
    return rendered(*parts, colour=colour)


def render_comparison(
    reports: Mapping[str, SimulationReport], output: str = "table", *, colour: bool | None = None
) -> str:
    """Reports of several policies over the same requests, side by side."""
    if output == "json":
        return _json({name: report.to_dict() for name, report in reports.items()})
    rows = [
        [
            name,
            percent(report.attainment.mean, 2),
            _interval(report.attainment),
            _ms(report.tpot.p50_s),
            _ms(report.tpot.p99_s),
            _ms(report.ttft.p99_s),
            f"{report.means.goodput_rps:.2f}",
        ]
        for name, report in reports.items()
    ]
    columns = ("policy", "attainment", "95% interval", "TPOT p50", "TPOT p99", "TTFT p99", "goodput req/s")
    first = next(iter(reports.values()))
    warnings = [f"warning: {escape(text)}" for text in first.warnings]
    return rendered(_setting(first), "", table(None, columns, rows), *warnings, colour=colour)


def render_additivity(rows: Mapping[str, Additivity], output: str = "table", *, colour: bool | None = None) -> str:
    """The additivity test of each config."""
    if output == "json":
        return _json({name: row.to_dict() for name, row in rows.items()})
    body = [
        [
            name,
            row.limit,
            str(len(row.mixes)),
            f"{100 * row.mean_error:+.1f}%",
            f"{100 * row.worst_error:+.1f}%",
            row.verdict,
        ]
        for name, row in rows.items()
    ]
    columns = ("config", "limit", "mixes", "mean error", "most optimistic", "verdict")
    text = "error: load at which a mix reaches the limit, as the sum of its sizes' loads, less 1; below 0 is optimistic"
    return rendered(table("Do loads of different sizes add up?", columns, body, left=2), text, colour=colour)


def render_length_price(price: LengthPrice, output: str = "table", *, colour: bool | None = None) -> str:
    """The price of not knowing output lengths."""
    if output == "json":
        return _json(price.to_dict())
    rows = []
    for name, cost, replicas in (
        ("by-size", price.by_size_usd_per_hour, price.by_size_replicas),
        ("input-only", price.input_only_usd_per_hour, price.input_only_replicas),
    ):
        fleet = " + ".join(f"{count} x {config}" for config, count in replicas.items())
        known, unknown = (price.attainment[f"{name}/{router}"] for router in ("oracle", "input-only"))
        cells = [f"{percent(e.mean, 2)} ({_interval(e)})" for e in (known, unknown)]
        rows.append([name, fleet, usd(cost), *cells])
    columns = ("shares", "fleet", "cost/h", "attainment, lengths known", "attainment, lengths unknown")
    more = percent(price.price_share)
    text = f"on the mean, shares that a router can follow without knowing output lengths cost {more} more"
    return rendered(table("The price of unknown output lengths", columns, rows, left=2), text, colour=colour)


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, indent=2, ensure_ascii=False, allow_nan=False)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:,.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.2f} ms"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "none"
    return f"{100 * estimate.low:.2f} .. {100 * estimate.high:.2f}%"


def _setting(report: SimulationReport) -> str:
    fleet = " + ".join(f"{c.replicas} x {name}" for name, c in report.configs.items())
    return (
        f"[bold]{escape(fleet)}[/bold] at {usd(report.cost_usd_per_hour)}/h: {escape(report.slo_text)}\n"
        f"{report.replications} x {report.requests} requests ({report.warmup_requests} to warm up), "
        f"{escape(report.arrivals)}; sizes: {escape(report.sizes)}; seed {report.seed}"
    )


def _headline(report: SimulationReport) -> str:
    attained = f"[bold]{percent(report.attainment.mean, 2)}[/bold] of the requests"
    interval = f"(95% interval {_interval(report.attainment)})"
    policy = f"{_setting(report)}\npolicy {escape(report.policy)}: "
    if report.percentiles:
        found = "\n".join(f"[bold]{escape(kept.describe())}[/bold]" for kept in report.percentiles)
        scaled = len({kept.quantile for kept in report.percentiles}) > 1
        text = "within each limit" + (", misses scaled to the highest percentile" if scaled else "")
        return f"{policy}at least {attained} {text} {interval}\n{found}"
    text = f"{policy}{attained} meet the limits jointly {interval}"
    if report.mean_kept is not None:
        text += f"; the means {'keep' if report.mean_kept else 'do not keep'} the SLO"
    return text


def _latency_row(name: str, latency: Latency) -> list[str]:
    values = (latency.mean_s, latency.p50_s, latency.p90_s, latency.p95_s, latency.p99_s)
    return [name, *(_ms(value) for value in values)]


def _latencies(report: SimulationReport) -> RenderableType:
    definition = "latency / tokens" if report.slo["tpot_definition"] == "e2e_per_token" else "decode"
    rows = [
        _latency_row("TTFT", report.ttft),
        _latency_row(f"TPOT ({definition})", report.tpot),
        _latency_row("E2E", report.e2e),
    ]
    return table("Latency", ("", "mean", "p50", "p90", "p95", "p99"), rows)


def _configs(report: SimulationReport) -> RenderableType:
    rows = [
        [
            name,
            str(c.replicas),
            percent(c.planned_share),
            percent(c.share),
            percent(c.attainment, 2),
            _ms(c.tpot.p99_s),
            f"{c.running:.1f}",
            percent(c.kv_use, 0),
            percent(c.busy, 0),
        ]
        for name, c in report.configs.items()
    ]
    columns = ("config", "replicas", "planned", "served", "attainment", "TPOT p99", "running", "KV use", "busy")
    return table("Configs", columns, rows)


def _misses(report: SimulationReport) -> RenderableType:
    from melange.simulator.metrics import CAUSES

    rows = [[name, percent(share, 2), CAUSES[name]] for name, share in report.missed_share.items() if share]
    return table("Requests that missed", ("cause", "share", ""), rows, left=3)


def _worst_buckets(report: SimulationReport) -> RenderableType:
    worst = sorted(report.buckets, key=lambda b: (b.attainment, -b.share))[:5]
    rows = [
        [
            f"{b.input_tokens_max}x{b.output_tokens_max}",
            percent(b.share),
            percent(b.attainment, 2),
            _ms(b.ttft.p99_s),
            _ms(b.tpot.p99_s),
        ]
        for b in worst
    ]
    return table("Worst size buckets", ("bucket", "share", "attainment", "TTFT p99", "TPOT p99"), rows)


def _rates(report: SimulationReport) -> str:
    m = report.means
    text = f"goodput {m.goodput_rps:.2f} of {m.offered_rps:.2f} req/s; "
    text += f"{usd(m.usd_per_million_tokens, 3)} per million tokens served"
    if m.preemptions_per_request:
        text += f"; {m.preemptions_per_request:.3g} preemptions a request"
    if report.outages:
        text += f"; {report.outages} outages restarted {percent(m.restarted_share, 2)} of the requests and lost "
        text += f"{report.tokens_lost:,} tokens"
    if m.unserved_share:
        text += f"; {percent(m.unserved_share, 2)} never served"
    return text
