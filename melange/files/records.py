"""Records: values to the plain dictionaries, lists and numbers that JSON and YAML hold, and back.

The fields of a frozen dataclass are the keys of its record, whatever it nests: other dataclasses,
enumerations, literals, mappings and tuples. A NamedTuple is written as a list, one row of a table.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import repeat
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from melange.errors import InputError

T = TypeVar("T")

_PLACE = re.compile(r"(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")
_REFUSALS = (msgspec.ValidationError, UnicodeEncodeError, InputError)  # a value's own constructor raises the last


def to_plain(value: object, *, keep_none: bool = True) -> Any:
    """The record of a value; ``keep_none`` False leaves out keys that hold None.

    A number that JSON cannot hold (NaN, infinite) raises InputError with its path.
    """
    return _plain(msgspec.to_builtins(value, enc_hook=_encoded), "", keep_none)


def from_plain(kind: type[T], record: object, what: str, *, fix: str | None = None) -> T:
    """The value that :func:`to_plain` wrote as ``record``.

    A missing or unknown key, and a value of the wrong type, raise InputError that starts with ``what``, names the path
    and advises ``fix``. Whole numbers are taken for numbers. Keys that have defaults may be absent.
    """
    # msgspec passes over keys that a dataclass does not have; a mistyped one must not pass for a default.
    unknown = _unknown_keys(kind)  # type: ignore[arg-type]  # types are hashable
    if unknown is not None:
        for path, key, known in unknown(record, ""):
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            advice = f"did you mean {near[0]!r}?" if near else fix
            raise InputError(f"{what}: unknown key {_below(path, key)!r}", fix=advice)
    try:
        return msgspec.convert(record, kind)
    except _REFUSALS as error:
        found, path = _innermost(kind, record, "", error)
        if isinstance(found, InputError) and not path:
            raise found from error  # it names what it is itself
        place, problem, advice = _told(found, path)
        raise InputError(f"{what}: {f'{place}: ' if place else ''}{problem}", fix=advice or fix) from error


def _innermost(kind: Any, record: Any, path: str, error: Exception) -> tuple[Exception, str]:
    """Error and path of the first part of a record that its own kind refuses, the record itself where none is."""
    for part_kind, part, below in _parts(kind, record, path):
        try:
            msgspec.convert(part, part_kind)
        except _REFUSALS as inner:
            return _innermost(part_kind, part, below, inner)
    return error, path


def _parts(kind: Any, record: Any, path: str) -> Iterable[tuple[Any, Any, str]]:
    """What a record of this kind is made of: kind, value and path of each part."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        rest = [argument for argument in arguments if argument is not type(None)]
        return _parts(rest[0], record, path) if len(rest) == 1 and record is not None else ()
    if is_dataclass(kind) and isinstance(record, Mapping):
        hints = get_type_hints(kind)
        return [(hints[key], value, _below(path, key)) for key, value in record.items() if key in hints]
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(record, Mapping):
        return [(arguments[1], value, _below(path, key)) for key, value in record.items()]
    if (origin is list or arguments[1:] == (Ellipsis,)) and isinstance(record, list | tuple):
        return [(arguments[0], value, f"{path}[{i}]") for i, value in enumerate(record)]
    return ()


def _encoded(value: object) -> Any:
    """What msgspec does not know: read-only mappings and numpy's numbers."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a record")


def _plain(value: Any, path: str, keep_none: bool) -> Any:
    if isinstance(value, dict):
        return {
            key: _plain(item, _below(path, key), keep_none)
            for key, item in value.items()
            if keep_none or item is not None
        }
    if isinstance(value, tuple | list):
        if _all_finite(value):
            return list(value)
        return [_plain(item, f"{path}[{i}]", keep_none) for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{path or 'the value'} is {value}, which JSON cannot hold")
    return value


def _all_finite(values: tuple[Any, ...] | list[Any]) -> bool:
    """Whether it holds finite numbers alone, as long columns do: they are then written as they stand."""
    try:
        return all(map(math.isfinite, values))
    except (TypeError, OverflowError):
        return False


# Of a record: path, key and the known keys of every key that its dataclass does not have. What has not even the form
# of its kind is passed over.
_Unknown = Callable[[Any, str], Iterable[tuple[str, str, list[str]]]]


@cache
def _unknown_keys(kind: Any) -> _Unknown | None:
    """How to find unknown keys in a record of this kind; None for one that nests no dataclass."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return _unknown_in_dataclass({item.name: _unknown_keys(hints[item.name]) for item in fields(kind)})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        inner = [found for argument in arguments if (found := _unknown_keys(argument)) is not None]
        return inner[0] if inner else None  # of several dataclasses msgspec could not tell the right one either
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _unknown_in_values(_unknown_keys(arguments[1]))
    if origin is list or arguments[1:] == (Ellipsis,):
        return _unknown_in_items(repeat(_unknown_keys(arguments[0])))
    if origin is tuple:
        return _unknown_in_items([_unknown_keys(argument) for argument in arguments])
    if isinstance(kind, type) and issubclass(kind, tuple):  # a NamedTuple
        return _unknown_in_items([_unknown_keys(hint) for hint in get_type_hints(kind).values()])
    return None


def _unknown_in_dataclass(known: Mapping[str, _Unknown | None]) -> _Unknown:
    nested = {name: unknown for name, unknown in known.items() if unknown is not None}

    def find(record: Any, path: str) -> Iterable[tuple[str, str, list[str]]]:
        if not isinstance(record, Mapping):
            return
        if not record.keys() <= known.keys():
            for key in record:
                if key not in known:
                    yield path, str(key), list(known)
        for name, unknown in nested.items():
            if name in record:
                yield from unknown(record[name], _below(path, name))

    return find


def _unknown_in_values(unknown: _Unknown | None) -> _Unknown | None:
    if unknown is None:
        return None
    return lambda record, path: (
        found
        for key, item in (record.items() if isinstance(record, Mapping) else ())
        for found in unknown(item, _below(path, key))
    )


def _unknown_in_items(each: Iterable[_Unknown | None]) -> _Unknown | None:
    """By position; ``each`` is a list, or a repetition of one without end."""
    if not any(each) if isinstance(each, list) else next(iter(each)) is None:
        return None
    return lambda record, path: (
        found
        for i, (item, unknown) in enumerate(zip(record if isinstance(record, list | tuple) else (), each, strict=False))
        if unknown is not None
        for found in unknown(item, f"{path}[{i}]")
    )


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _told(error: Exception, path: str) -> tuple[str, str, str | None]:
    """Where it is, what is wrong there in our words, and what to do where the error itself knows."""
    if isinstance(error, InputError):
        return path, error.problem, error.fix
    if isinstance(error, UnicodeEncodeError):  # half of a surrogate pair, which JSON can spell
        return path, "a text in it is not Unicode", None
    found = _PLACE.fullmatch(str(error))
    assert found is not None
    within, problem = found["path"] or "", found["problem"]
    place = path + within if not path or within[:1] in ("", "[") else f"{path}.{within}"
    missing = _MISSING.fullmatch(problem)
    if missing is not None:
        return "", f"{_below(place, missing['name'])} is missing", None
    return place, problem[:1].lower() + problem[1:], None
