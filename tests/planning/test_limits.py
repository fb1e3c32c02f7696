from __future__ import annotations

import pytest

from melange import InputError, Limits, TypeLimit
from melange.catalog.hardware import load_catalog

CATALOG = load_catalog()
FILE = Limits(fleet=("H100", "L4"), types={"L4": TypeLimit(minimum=2, maximum=5)})


def test_a_type_is_one_however_it_is_written_and_keeps_its_place():
    asked = FILE.narrowed(maximum={"l4": 3, "A10G": 1}, minimum={"h100": 1})
    assert asked.resolved(CATALOG).types == {
        "H100": TypeLimit(minimum=1),
        "L4": TypeLimit(minimum=2, maximum=3),
        "A10G": TypeLimit(maximum=1),
    }
    assert list(asked.resolved(CATALOG).types) == ["H100", "L4", "A10G"]
    assert asked.required == ("h100",)


def test_names_are_resolved_everywhere():
    written = Limits(fleet=("h100", "l4"), only=("l4",), exclude=("a10g", "p5.48xlarge"), required=("l4",))
    resolved = written.resolved(CATALOG)
    assert (resolved.fleet, resolved.only, resolved.exclude) == (("H100", "L4"), ("L4",), ("A10G", "p5.48xlarge"))
    assert resolved.required == ("L4",)
    assert dict(resolved.types) == {"H100": TypeLimit(), "L4": TypeLimit()}
    assert resolved.resolved(CATALOG) == resolved


def test_a_new_maximum_lowers_the_minimum_and_a_new_minimum_keeps_the_maximum():
    assert FILE.narrowed(maximum={"L4": 1}).resolved(CATALOG).types["L4"] == TypeLimit(minimum=1, maximum=1)
    assert FILE.narrowed(minimum={"L4": 4}).resolved(CATALOG).types["L4"] == TypeLimit(minimum=4, maximum=5)


def test_of_two_limits_in_a_file_the_tighter_holds():
    twice = Limits(types={"H100": TypeLimit(minimum=1, maximum=9), "h100": TypeLimit(minimum=3, maximum=7)})
    assert twice.resolved(CATALOG).types == {"H100": TypeLimit(minimum=3, maximum=7)}


def test_only_stands_in_place_of_the_fleet():
    assert Limits().allowed is None
    assert FILE.allowed == ("H100", "L4")
    asked = FILE.narrowed(only=("A10G",), exclude=("p5.48xlarge",), max_cost_usd_per_hour=4.0)
    assert asked.allowed == ("A10G",)
    assert asked.names == ("H100", "L4", "A10G", "p5.48xlarge")
    assert asked.max_cost_usd_per_hour == asked.narrowed(exclude=("L4",)).max_cost_usd_per_hour == 4.0
    assert Limits(fleet=()).allowed == ()


@pytest.mark.parametrize("kind", ["maximum", "minimum"])
def test_negative_counts_are_refused(kind):
    with pytest.raises(InputError, match=f"the {kind} of L4 is -1"):
        Limits().narrowed(**{kind: {"L4": -1}})
