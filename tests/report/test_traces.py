"""Sentences about a trace that became a workload."""

from __future__ import annotations

from dataclasses import replace

from melange.report.traces import render_trace_report
from melange.traces.report import REASONS, TraceReport

BARE = TraceReport(
    rows=1200,
    kept=1200,
    dropped=dict.fromkeys(REASONS, 0),
    rate_rps=2.5,
    mean_input_tokens=1234.56,
    mean_output_tokens=78.9,
)


def test_what_a_trace_does_not_tell_is_left_out():
    assert render_trace_report(BARE).splitlines() == [
        "requests: 1,200 read, 1,200 kept",
        "dropped: none",
        "rate: 2.5 kept requests/s",
        "mean sizes: 1,234.6 input, 78.9 output tokens",
    ]


def test_everything_is_told():
    report = replace(
        BARE,
        kept=1190,
        dropped={**BARE.dropped, "zero_output": 4, "input_above_grid": 6},
        mean_cached_tokens=50.04,
        span_s=3600.4,
        interarrival_cv=1.234,
        peak_to_mean=2.0,
        warnings=("few requests", "no names"),
    )
    assert render_trace_report(report).splitlines() == [
        "requests: 1,200 read, 1,190 kept",
        "dropped: 4 with zero output tokens, 6 above the grid's last input edge",
        "rate: 2.5 kept requests/s (the trace spans 3,600 s)",
        "mean sizes: 1,234.6 input, 50.0 of them cached, 78.9 output tokens",
        "arrivals: coefficient of variation of inter-arrival times 1.23 (Poisson: 1), "
        "busiest minute 2.00 times the mean",
        "warning: few requests",
        "warning: no names",
    ]
    assert "arrivals: busiest minute 2.00" in render_trace_report(replace(report, interarrival_cv=None))
