"""Layout: which column of a file plays which role, told by the names it has or by the user's map."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from melange.errors import InputError

Role = Literal["input", "output", "time", "cached", "session", "hash_ids"]
TimeUnit = Literal["s", "ms", "us", "ns", "iso"]

ROLES: tuple[Role, ...] = get_args(Role)
TIME_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
NO_TIME = ("XXX", "")
# More seconds than since 1970 until the year 5000: the number is in a smaller unit.
MAX_PLAUSIBLE_S = 1e11


class Shape(NamedTuple):
    """A format's column names: those that must be there, those that may, and its unit of time."""

    required: Mapping[Role, str]
    optional: Mapping[Role, str]
    time_unit: TimeUnit


SHAPES: Mapping[str, Shape] = {
    "tokens": Shape(
        {"input": "input_tokens", "output": "output_tokens"},
        {"time": "arrival_s", "cached": "cached_tokens", "session": "session"},
        "s",
    ),
    "azure": Shape({"time": "TIMESTAMP", "input": "ContextTokens", "output": "GeneratedTokens"}, {}, "iso"),
    "mooncake": Shape(
        {"time": "timestamp", "input": "input_length", "output": "output_length"}, {"hash_ids": "hash_ids"}, "ms"
    ),
    "burstgpt": Shape(
        {"time": "Timestamp", "input": "Request tokens", "output": "Response tokens"}, {"session": "Session ID"}, "s"
    ),
}
FORMATS: tuple[str, ...] = ("auto", *SHAPES, "columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``roles`` maps each role to its column; ``time_unit`` is None where the trace tells no times.

    ``no_time`` is the marker that stands in the time column instead of times (``XXX`` in published traces).
    """

    format: str
    roles: Mapping[Role, str]
    time_unit: TimeUnit | None = None
    no_time: str | None = None

    @property
    def number_roles(self) -> tuple[Role, ...]:
        """Roles whose columns hold numbers, in the order in which they are checked."""
        numbers: tuple[Role, ...] = ("input", "output", "cached")
        timed = self.time_unit is not None and self.time_unit != "iso"
        return tuple(role for role in numbers if role in self.roles) + (("time",) if timed else ())


def find_layout(
    names: Sequence[str],
    first: Mapping[str, object],
    *,
    file: str | os.PathLike[str],
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    time_unit: TimeUnit | None = None,
) -> Layout:
    """The layout of a file with these column names, whose first row is ``first``.

    ``columns`` (role -> column name) goes before the known formats. InputError names what was found and the fix.
    """
    _check_choices(format, columns, time_unit)
    if columns is not None:
        found, roles, unit = "columns", _mapped_roles(names, columns, file), None
    else:
        found, roles, unit = _known_roles(names, format, file)
    if "time" not in roles:
        return Layout(format=found, roles=roles)
    value = first[roles["time"]]
    if isinstance(value, str) and value.strip() in NO_TIME:
        return Layout(format=found, roles=roles, no_time=value)
    return Layout(format=found, roles=roles, time_unit=_time_unit(time_unit or unit, value, file))


def _check_choices(format: str, columns: Mapping[str, str] | None, time_unit: str | None) -> None:
    if format not in FORMATS:
        raise InputError(f"unknown trace format {format!r}", fix=f"use one of {', '.join(FORMATS)}")
    if time_unit is not None and time_unit not in TIME_UNITS:
        raise InputError(f"unknown time unit {time_unit!r}", fix=f"use one of {', '.join(TIME_UNITS)}")
    if columns is None:
        if format == "columns":
            raise InputError("format columns without a column map", fix="say which columns: input=NAME,output=NAME")
        return
    if format not in ("auto", "columns"):
        raise InputError(f"both a column map and format {format}", fix="give one of the two")
    for role in columns:
        if role not in ROLES:
            raise InputError(f"unknown role {role!r} in the column map", fix=f"roles are {', '.join(ROLES)}")
    for role in ("input", "output"):
        if role not in columns:
            raise InputError(f"the column map has no {role}", fix=f"add {role}=NAME")


def _mapped_roles(names: Sequence[str], columns: Mapping[str, str], file: str | os.PathLike[str]) -> dict[Role, str]:
    roles: dict[Role, str] = {}
    for role in ROLES:
        if role not in columns:
            continue
        name = columns[role]
        if list(names).count(name) != 1:
            count = "no column" if name not in names else "more than one column"
            raise InputError(f"{count} {name!r} (for {role})", file=file, line=1, fix=_found(names))
        roles[role] = name
    return roles


def _known_roles(
    names: Sequence[str], format: str, file: str | os.PathLike[str]
) -> tuple[str, dict[Role, str], TimeUnit]:
    for name, shape in SHAPES.items():
        if format not in ("auto", name):
            continue
        missing = [column for column in shape.required.values() if column not in names]
        if not missing:
            present = {role: column for role, column in shape.optional.items() if column in names}
            return name, {**shape.required, **present}, shape.time_unit
        if format == name:
            raise InputError(f"no column {missing[0]!r}, which format {name} has", file=file, line=1, fix=_found(names))
    raise InputError(
        "the trace's format is not recognised",
        file=file,
        line=1,
        fix=f"{_found(names)}; say which are which: --columns input=NAME,output=NAME[,time=NAME]",
    )


def _found(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:most])
    return f"found {shown}" + (f" and {len(names) - most} more" if len(names) > most else "")


def _time_unit(unit: TimeUnit | None, value: object, file: str | os.PathLike[str]) -> TimeUnit:
    if unit is not None:
        return unit
    number = _number(value)
    if number is None:
        return "iso"
    if abs(number) > MAX_PLAUSIBLE_S:
        raise InputError(
            f"the first time is {number:.0f}, too much for seconds",
            file=file,
            fix="say its unit: --time-unit ms, us or ns",
        )
    return "s"


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
