"""Records: every kind of value goes out and comes back equal; what is wrong is refused by its path."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest

from melange.errors import InputError
from melange.files.records import from_plain, to_plain


class Colour(enum.StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    count: int
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.count < 0:
            raise InputError(f"count is {self.count}")


class Row(NamedTuple):
    size: float
    name: str | None
    part: Part | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    name: str
    part: Part | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    many: tuple[Part, ...] = ()
    rows: tuple[Row, ...] = ()
    table: tuple[tuple[float | None, ...], ...] = ()
    pair: tuple[int, Part] | None = None
    kind: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    facts: Mapping[str, Any] = field(default_factory=dict)


WHOLE = Whole(
    name="w",
    part=Part(count=1),
    parts={"x": Part(count=2, rate=0.5)},
    many=(Part(count=3),),
    rows=(Row(1.5, None), Row(2.0, "b")),
    table=((1.0, None), (2.0, 3.0)),
    kind="b",
    facts={"deep": {"list": [1, "two"]}},
)


def test_a_value_comes_back_equal_through_json():
    record = json.loads(json.dumps(to_plain(WHOLE), allow_nan=False))
    assert record["rows"] == [[1.5, None, None], [2.0, "b", None]]
    assert record["colour"] == "red"
    assert from_plain(Whole, record, "whole") == WHOLE


def test_absent_keys_take_defaults_and_none_may_be_left_out():
    assert from_plain(Whole, {"name": "w"}, "whole") == Whole(name="w")
    assert "part" not in to_plain(Whole(name="w"), keep_none=False)
    assert to_plain(Whole(name="w"))["part"] is None


def test_whole_numbers_are_numbers_and_stay_equal():
    part = from_plain(Part, {"count": 1, "rate": 2}, "part")
    assert (part.rate, type(part.rate)) == (2.0, float)


def test_read_only_mappings_and_numpys_numbers_are_written():
    facts = MappingProxyType({"a": np.float64(0.5), "b": np.int64(2), "c": MappingProxyType({"d": 1})})
    assert to_plain(Whole(name="w", facts=facts))["facts"] == {"a": 0.5, "b": 2, "c": {"d": 1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": {"count": 1, "rat": 2}}, "whole: unknown key 'part.rat'; did you mean 'rate'?"),
        ({"many": [{"count": 1}, {"count": 1, "zzz": 2}]}, "whole: unknown key 'many[1].zzz'; do it right"),
        ({"parts": {"x": {"count": 1, "other": 2}}}, "whole: unknown key 'parts.x.other'; do it right"),
        ({"many": [{"rate": 1.0}]}, "whole: many[0].count is missing; do it right"),
        ({"part": {"count": "1"}}, "whole: part.count: expected `int`, got `str`; do it right"),
        ({"part": {"count": 1.5}}, "whole: part.count: expected `int`, got `float`; do it right"),
        ({"part": {"count": True}}, "whole: part.count: expected `int`, got `bool`; do it right"),
        ({"name": None}, "whole: name: expected `str`, got `null`; do it right"),
        ({"kind": "c"}, "whole: kind: invalid enum value 'c'; do it right"),
        ({"colour": "blue"}, "whole: colour: invalid enum value 'blue'; do it right"),
        ({"rows": [[1.0]]}, "whole: rows[0]: expected `array` of length 2 to 3, got 1; do it right"),
        ({"rows": [[1.0, "a", {"count": 1, "zzz": 2}]]}, "whole: unknown key 'rows[0][2].zzz'; do it right"),
        ({"pair": [1, {"count": 1, "zzz": 2}]}, "whole: unknown key 'pair[1].zzz'; do it right"),
        ({"zzz": 1}, "whole: unknown key 'zzz'; do it right"),
        ({"part": {"count": -1}}, "whole: part: count is -1; do it right"),
    ],
)
def test_what_is_wrong_is_refused_by_its_path(change, message):
    with pytest.raises(InputError) as caught:
        from_plain(Whole, {"name": "w", **change}, "whole", fix="do it right")
    assert str(caught.value) == message


def test_a_record_that_is_no_mapping_is_refused():
    with pytest.raises(InputError, match="whole: expected `object`, got `array`"):
        from_plain(Whole, [], "whole")
    with pytest.raises(InputError, match="whole: name is missing"):
        from_plain(Whole, {}, "whole")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), np.float64("-inf")])
def test_what_json_cannot_hold_is_not_written(number):
    with pytest.raises(InputError, match=r"table\[0\]\[1\] is -?(nan|inf), which JSON cannot hold"):
        to_plain(Whole(name="w", table=((1.0, number),)))


def test_a_strange_value_is_not_written():
    with pytest.raises(TypeError, match="complex has no place"):
        to_plain(Whole(name="w", facts={"z": 1j}))
