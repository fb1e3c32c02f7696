"""What a trace held and what of it was dropped, in figures and in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.errors import InputError
from melange.traces import TraceReport
from melange.traces.report import REASONS, describe_dropped, dropped_warning

NONE = dict.fromkeys(REASONS, 0)
REPORT = TraceReport(
    rows=10,
    kept=4,
    dropped={**NONE, "outside_window": 4, "zero_output": 1, "input_above_grid": 1},
    rate_rps=2.0,
    mean_input_tokens=30.0,
    mean_output_tokens=5.0,
)


def test_report_counts_every_row_once() -> None:
    with pytest.raises(InputError, match="do not make 5 rows"):
        TraceReport(
            rows=5,
            kept=3,
            dropped=dict.fromkeys(REASONS, 0),
            rate_rps=1,
            mean_input_tokens=1,
            mean_output_tokens=1,
        )


def test_every_reason_is_counted_and_no_other() -> None:
    for dropped in ({}, {**NONE, "too dear": 0}):
        with pytest.raises(InputError, match="count every row once, under outside_window"):
            replace(REPORT, rows=4, dropped=dropped)


def test_what_lies_outside_the_window_is_not_lost_to_the_grid() -> None:
    assert REPORT.dropped_share == pytest.approx(2 / 6)


def test_the_record_leaves_out_what_the_trace_does_not_tell() -> None:
    record = REPORT.to_dict()
    assert record["dropped"] == {"outside_window": 4, "zero_output": 1, "input_above_grid": 1}
    assert not {"span_s", "interarrival_cv", "peak_to_mean", "mean_cached_tokens"} & set(record)
    told = replace(REPORT, span_s=3.0, mean_cached_tokens=0.0, warnings=("short",)).to_dict()
    assert (told["span_s"], told["mean_cached_tokens"], told["warnings"]) == (3.0, 0.0, ["short"])


def test_dropped_requests_in_words() -> None:
    assert describe_dropped({**NONE, "zero_output": 3, "output_above_grid": 1200}) == (
        "3 with zero output tokens, 1,200 above the grid's last output edge"
    )


def test_a_warning_from_more_than_one_percent_on() -> None:
    assert dropped_warning(990, {**NONE, "zero_input": 10, "outside_window": 500}) is None
    assert dropped_warning(989, {**NONE, "zero_input": 11}) == (
        "1.1% of the requests are dropped: 11 with zero input tokens"
    )


def test_a_reports_counts_cannot_be_changed() -> None:
    given = {**NONE, "zero_input": 6}
    report = replace(REPORT, dropped=given)
    given["zero_input"] = 0
    assert report.dropped["zero_input"] == 6
