"""A closed-loop search as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan.builders import ATTAIN

from melange.plan.promise import AttainReport, SizedFleet
from melange.report.attain import attain_parts, promise_warning
from melange.report.tables import rendered

KEPT = SizedFleet(
    instances={"L4": 2},
    replicas={"L4": 2},
    cost_usd_per_hour=3.0,
    attainment=0.9912,
    attainment_low=0.9901,
    headroom={"L4": 0.42},
)
REPORT = AttainReport(
    target=0.9905,
    fleet=KEPT,
    bound_usd_per_hour=2.0,
    paper=SizedFleet(instances={"L4": 1}, replicas={"L4": 1}, cost_usd_per_hour=2.0, attainment=0.81),
    promise_usd_per_hour=1.0,
    promise_share=0.5,
    single_type={"L4": KEPT, "H100": SizedFleet(reason="it is [not] on sale")},
    savings=0.125,
    policy="shares",
    arrivals="poisson",
    sizes="bucket means",
    requests=5000,
    simulated=17,
    cut_off=3,
    overloaded=4,
    spot_checked=0,
    spot_check_passed=0,
    confirmations=2,
    complete=True,
    lone_share=0.9999,
)


def text(report: AttainReport) -> str:
    return " ".join(rendered(*attain_parts(report), colour=False).split())


def test_it_says_the_fleet_its_price_and_what_was_confirmed():
    said = text(REPORT)
    for words in (
        "2 x L4 at $3.00/h: confirmed at 99.12% of simulated requests",
        "at least 99.01% with 90% confidence (target 99.05%)",
        "that is $1.00 (50.0%) more than the plan for the mean load, whose fleet attains 81.00%",
        "savings on the best single type that keeps the same promise: 12.5%",
        "L4 42%",
        "17 fleets simulated (5000 requests a replication, poisson, policy shares; sizes: bucket means)",
        "2 of them put to the sequential test; 4 cannot carry the load",
        "99.99% of the requests keep the SLO on the best idle GPU",
        "H100 alone it is [not] on sale",
    ):
        assert words in said
    assert "warning" not in said
    assert "left out" not in said
    assert "cut off" not in said


def test_a_promise_that_costs_less():
    less = replace(REPORT, promise_usd_per_hour=-0.5, promise_share=-0.25)
    assert "that is $0.50 (25.0%) less than the plan for the mean load" in text(less)


@pytest.mark.parametrize("named", [("1 x L4 + 1 x H100",), ()])
def test_what_is_not_ruled_out_is_a_warning(named):
    said = text(replace(REPORT, complete=False, not_ruled_out=named))
    words = named[0] if named else "fleets of other machines"
    assert f"warning: not every cheaper fleet is ruled out, among them {words}" in said


def test_spot_checks_and_what_is_left_out():
    said = text(replace(REPORT, spot_checked=5, spot_check_passed=1, left_out=("A10G", "T4"), savings=None))
    assert "of the fleets cut off, 5 were simulated after all: 1 pass" in said
    assert "left out, as they serve no size in time: A10G, T4" in said
    assert "savings" not in said


def test_it_says_what_the_promise_stands_and_warns_first_where_its_own_windows_break_it():
    report = replace(REPORT, standing=ATTAIN.standing)
    assert "kept up to +21% rate, +6% input tokens" in text(report)
    assert "simulated one at a time to 1%, 4 replications each; 3 windows one after another" in text(report)
    assert promise_warning(report).startswith("the promise of 99.05% is not kept in 2 of the 2 windows")
    assert promise_warning(replace(report, target=0.9)) is None
    assert promise_warning(REPORT) is None
    assert promise_warning(None) is None


def test_it_says_in_how_many_windows_the_promise_is_kept():
    said = text(replace(REPORT, windows=ATTAIN.standing.windows))
    assert "kept in 0 of 2 windows played as if they lasted, 92.00% in the hardest" in said
    assert "than the plan for the windows' loads" in said


def test_percentiles_are_kept_limit_by_limit():
    said = text(replace(REPORT, target=0.95, percentiles=True))
    assert "confirmed with at least 99.12% of simulated requests within each limit of the SLO;" in said
    assert "99.99% of the requests keep each limit of the SLO on the best idle GPU" in said
    assert "jointly" not in said
    assert "keeps the promise for p95" in repr(replace(REPORT, target=0.95, percentiles=True))
