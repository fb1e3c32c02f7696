"""What explaining a problem holds where nothing was asked or found."""

from __future__ import annotations

import dataclasses

import pytest

from melange.files.records import to_plain
from melange.solver.explanation import BreakEven, CapValue, Explanation, NextFleet


def test_parts_that_do_not_apply_are_empty():
    assert to_plain(Explanation(gap=1e-6, reasons=("no config serves b0",))) == {
        "gap": 1e-6,
        "capped": [],
        "break_even": [],
        "next_best": [],
        "reasons": ["no config serves b0"],
    }


def test_an_explanation_keeps_its_parts_and_cannot_be_changed():
    cap = CapValue(
        name="L4", maximum=2, used=2, cost_usd_per_hour=5.0, one_more_usd_per_hour=4.5, one_fewer_usd_per_hour=None
    )
    entry = BreakEven(instance="H100", price_usd_per_hour=7.5, break_even_usd_per_hour=3.0, tolerance_usd_per_hour=1e-3)
    other = NextFleet(instances={"L4": 3}, cost_usd_per_hour=5.5, above_best=0.1)
    found = Explanation(gap=0.0, capped=(cap,), break_even=(entry,), next_best=(other,))
    assert (found.capped, found.break_even, found.next_best, found.reasons) == ((cap,), (entry,), (other,), ())
    for part in (found, cap, entry, other):
        field = dataclasses.fields(part)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field, None)
