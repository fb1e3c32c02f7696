"""Sentences about a trace that became a workload."""

from __future__ import annotations

from melange.traces.report import TraceReport, describe_dropped


def render_trace_report(report: TraceReport) -> str:
    """What was read, kept and dropped, the rate, the mean sizes and the arrivals' unevenness, a line each."""
    sizes = [
        f"{report.mean_input_tokens:,.1f} input",
        *([] if report.mean_cached_tokens is None else [f"{report.mean_cached_tokens:,.1f} of them cached"]),
        f"{report.mean_output_tokens:,.1f} output tokens",
    ]
    lines = [
        f"requests: {report.rows:,} read, {report.kept:,} kept",
        f"dropped: {describe_dropped(report.dropped) or 'none'}",
        f"rate: {report.rate_rps:.6g} kept requests/s" + _span(report),
        f"mean sizes: {', '.join(sizes)}",
    ]
    uneven = []
    if report.interarrival_cv is not None:
        uneven.append(f"coefficient of variation of inter-arrival times {report.interarrival_cv:.2f} (Poisson: 1)")
    if report.peak_to_mean is not None:
        uneven.append(f"busiest minute {report.peak_to_mean:.2f} times the mean")
    if uneven:
        lines.append(f"arrivals: {', '.join(uneven)}")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in report.warnings)])


def _span(report: TraceReport) -> str:
    return "" if report.span_s is None else f" (the trace spans {report.span_s:,.0f} s)"
