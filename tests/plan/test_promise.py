from __future__ import annotations

from dataclasses import replace

import numpy as np
from plan.builders import ATTAIN, FLEET

from melange.plan.promise import SizedFleet, WindowAttainment

REPORT = replace(
    ATTAIN,
    fleet=replace(FLEET, attainment_low=0.96),
    paper=SizedFleet(instances={"L4": 1}, cost_usd_per_hour=0.7, attainment=0.8),
)


def test_one_line_says_what_the_promise_takes_beyond_the_mean_load():
    text = repr(REPORT)
    assert "2 x L4 at $1.40/h keeps the promise for 95.0% (simulated 99.00%)" in text
    assert "the mean load alone takes $0.70/h" in text


def test_one_row_a_fleet():
    frame = REPORT.to_frame()
    assert frame.index.name == "choice"
    assert list(frame.index) == ["cheapest", "mean load only", "L4 only", "H100 only"]
    assert list(frame.fleet.dropna()) == ["2 x L4", "1 x L4", "2 x L4"]
    np.testing.assert_array_equal(frame.cost_usd_per_hour, [1.4, 0.7, 1.4, np.nan])
    np.testing.assert_array_equal(frame.attainment, [0.99, 0.8, 0.99, np.nan])
    np.testing.assert_array_equal(frame.attainment_low, [0.96, np.nan, np.nan, np.nan])
    assert frame.reason["H100 only"] == "too dear"


def test_a_notebook_shows_why_a_type_has_no_fleet():
    html = REPORT._repr_html_()
    assert "<td>H100 only</td><td>too dear</td><td></td><td></td><td></td>" in html
    assert "<td>cheapest</td><td>2 x L4</td><td>1.40</td><td>99.00%</td><td>96.00%</td>" in html


def test_a_fleet_that_was_not_found_has_no_headroom_to_tell():
    empty = SizedFleet(reason="too dear")
    assert (empty.instances, empty.replicas, empty.attainment, empty.attainment_low) == (None, None, None, None)
    assert empty.headroom == {}


def test_a_standing_says_how_far_and_the_worst_window():
    standing = REPORT.standing
    assert standing.describe() == (
        "kept up to +21% rate, +6% input tokens, +100% output tokens (or more); worst window 0:10:00 to 0:20:00: 92.0%"
    )
    assert replace(standing, windows=()).describe().endswith("output tokens (or more)")
    assert standing.worst_window is standing.windows[1]


def test_a_promise_broken_within_its_own_windows_is_told():
    text = REPORT.standing.shortfall(0.95)
    assert "the promise of 95% is not kept in 1 of the 2 windows" in text
    assert "0:10:00 to 0:20:00, 92.0% of the requests keep the SLO" in text
    assert REPORT.standing.shortfall(0.92) is None
    assert replace(REPORT.standing, windows=()).shortfall(0.95) is None
    assert REPORT.shortfall == f"{text}; --for-every-window plans for them all"
    assert replace(REPORT, windows=REPORT.standing.windows).shortfall == text
    assert replace(REPORT, standing=None).shortfall is None


def test_a_fleet_for_every_window_is_compared_with_the_programs():
    report = replace(REPORT, windows=REPORT.standing.windows)
    assert "the windows' loads alone takes $0.70/h" in repr(report)
    assert list(report.to_frame().index)[1] == "windows' loads only"


def test_a_share_that_would_round_to_the_target_is_told_to_more_digits():
    worst = WindowAttainment(start_s=0, length_s=60, rate_rps=1, attainment=0.98996)
    text = replace(REPORT.standing, windows=(worst,)).shortfall(0.99)
    assert "98.996% of the requests" in text
