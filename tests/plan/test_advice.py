from __future__ import annotations

from melange.plan.advice import PrecisionAdvice


def test_what_is_saved_and_how_to_get_it():
    advice = PrecisionAdvice(precision="fp8", cost_usd_per_hour=2.18, savings=0.394)
    assert advice.describe() == "fp8 would cost $2.18/h, 39% less: --precision fp8"


def test_a_precision_that_is_only_stored_and_one_without_which_there_is_no_fleet():
    advice = PrecisionAdvice(precision="fp8", cost_usd_per_hour=3.0, stored_only=("A10G", "T4"))
    assert advice.describe() == (
        "fp8 would cost $3.00/h, where this has no fleet (only stored on A10G, T4): --precision fp8"
    )


def test_why_nothing_was_tried():
    assert PrecisionAdvice(skipped="900 shares are too many").describe() == (
        "no other precision was tried: 900 shares are too many; see --precision"
    )
