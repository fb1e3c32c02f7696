"""Records: values to the plain dictionaries, lists and numbers that JSON and YAML hold, and back.

The fields of a frozen dataclass are the keys of its record, whatever it nests: other dataclasses,
enumerations, literals, mappings and tuples. A NamedTuple is written as a list, one row of a table.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from melange.errors import InputError

T = TypeVar("T")

_PLACE = re.compile(r"(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")


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
    try:
        value = msgspec.convert(record, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{what}: {_told(str(error))}", fix=fix) from error
    # msgspec passes over keys that a dataclass does not have; a mistyped one must not pass for a default.
    _refuse_unknown(record, msgspec.to_builtins(value, enc_hook=_encoded), "", what, fix)
    return value


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
        return [_plain(item, f"{path}[{i}]", keep_none) for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{path or 'the value'} is {value}, which JSON cannot hold")
    return value


def _refuse_unknown(given: object, known: object, path: str, what: str, fix: str | None) -> None:
    if isinstance(given, Mapping) and isinstance(known, dict):
        for key, item in given.items():
            if key not in known:
                near = difflib.get_close_matches(str(key), [str(name) for name in known], n=1, cutoff=0.5)
                raise InputError(
                    f"{what}: unknown key {_below(path, key)!r}", fix=f"did you mean {near[0]!r}?" if near else fix
                )
            _refuse_unknown(item, known[key], _below(path, key), what, fix)
    elif isinstance(given, list | tuple) and isinstance(known, list | tuple):
        for i, (item, counterpart) in enumerate(zip(given, known, strict=False)):
            _refuse_unknown(item, counterpart, f"{path}[{i}]", what, fix)


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _told(message: str) -> str:
    """msgspec's message in our words: the path first, then what is wrong there."""
    found = _PLACE.fullmatch(message)
    assert found is not None
    path, problem = found["path"] or "", found["problem"]
    missing = _MISSING.fullmatch(problem)
    if missing is not None:
        return f"{_below(path, missing['name'])} is missing"
    problem = problem[:1].lower() + problem[1:]
    return f"{path}: {problem}" if path else problem
