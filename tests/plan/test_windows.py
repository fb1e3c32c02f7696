"""What a plan says of the windows that it was made for."""

from __future__ import annotations

from dataclasses import replace

from melange.plan.windows import PlanWindow, PlanWindows

QUIET = PlanWindow(start_s=0, length_s=100, rate_rps=1, kept=True, binding=False, utilization=0.45)
BUSY = PlanWindow(start_s=100, length_s=84, rate_rps=3, kept=True, binding=True, utilization=0.98)
WORST = PlanWindow(start_s=184, length_s=100, rate_rps=9, kept=False, binding=False, utilization=2.5)


def test_every_window_and_those_that_decide():
    windows = PlanWindows(share=1.0, mean_usd_per_hour=1.79, windows=(QUIET, BUSY))
    assert windows.binding == (BUSY,)
    assert windows.left_out == ()
    assert windows.describe() == (
        "planned for every one of 2 windows; decided by 0:01:40 to 0:03:04: the others ask for nothing more"
    )
    assert windows.describe_use(2.18) == (
        "the windows keep it 45% to 98% utilized; the mean load alone takes $1.79/h (+21.8% for the windows)"
    )


def test_windows_left_out_are_named_and_their_use_is_not_counted():
    windows = PlanWindows(share=0.66, mean_usd_per_hour=None, windows=(QUIET, BUSY, WORST))
    assert "2 of 3 windows, without those of the most load: 0:03:04 to 0:04:44" in windows.describe()
    assert windows.describe_use(2.18) == "the windows keep it 45% to 98% utilized"


def test_without_a_fleet_nothing_is_said_of_its_use():
    unserved = replace(BUSY, utilization=None, binding=False)
    assert PlanWindows(share=1.0, mean_usd_per_hour=None, windows=(unserved,)).describe_use(None) == ""
