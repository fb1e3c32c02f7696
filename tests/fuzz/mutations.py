"""Mutations of good samples: what a broken disk, another tool, a hasty hand or an attacker makes of a file."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

NUMBERS = ("NaN", "Infinity", "-Infinity", "nan", "inf", ".inf", ".nan", "1e308", "1e400", "-1", "-0.0", "0", "1e-320")
NUMBERS += (
    "9223372036854775808",
    "1" + "0" * 400,
    "1" + "0" * 5000,
    "1e9",
    "0.5",
    "1_000",
    "0x10",
    "1,5",
    "\u0661\u0662",
    "+3",
)
WORDS = (
    "",
    '""',
    "null",
    "~",
    "true",
    "[]",
    "{}",
    "[[[]]]",
    "x",
    "None",
    "''",
    "a: b",
    "*a",
    "&a [*a]",
    "!!python/object:os.x {}",
)
WORDS += (
    "=",
    "#",
    "- -",
    "\u00e9\U0001f642",
    "\ufeff",
    "\u2028",
    "x" * 3000,
    "[" * 3000,
    '"',
    "'",
    "%s",
    "\x1b[31m",
    "../..",
    "\\",
)
VALUES: tuple[Any, ...] = (float("nan"), float("inf"), -float("inf"), 1e308, 10**400, 2**63, -1, -0.0, 0, 5e-324, 10**9)
VALUES += (
    "",
    None,
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    True,
    "x",
    "1",
    "\u0661\u0662",
    "nan",
    "\x00",
    "\ud800",
    "x" * 3000,
    0.5,
)

Mutate = Callable[[bytes, random.Random], bytes]
TOKEN = re.compile(rb'"[^"\n]*"|[-+]?\d[\d.eE+-]*|[A-Za-z_][\w./-]*')


def mutate(sample: bytes, rng: random.Random, *, structured: bool) -> bytes:
    """One to three mutations; ``structured`` samples are JSON, or a JSON object a line, and are changed as such too."""
    kinds = [*BYTES, *TEXT, *TEXT, *(JSON * 3 if structured else ())]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        sample = rng.choice(kinds)(sample, rng)
    return sample


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data or b"x")
    for _ in range(rng.choice((1, 1, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(data: bytes, rng: random.Random) -> bytes:
    piece = rng.choice(
        (
            b"\0",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"\r",
            b"\n\n",
            b"\t",
            b"\xc3",
            b"\xed\xa0\x80",
            b" " * 70000,
            b"\n" * 5000,
        )
    )
    at = rng.choice((0, len(data), rng.randrange(len(data) + 1)))
    return data[:at] + piece + data[at:]


def _drop(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 1, 40)) :]


def _line(data: bytes, rng: random.Random) -> bytes:
    """A line twice, left out, moved, or joined with the next."""
    lines = data.splitlines(keepends=True) or [b""]
    at = rng.randrange(len(lines))
    what = rng.randrange(4)
    if what == 0:
        lines.insert(at, lines[at])
    elif what == 1:
        del lines[at]
    elif what == 2:
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    else:
        lines[at] = lines[at].rstrip(b"\r\n")
    return b"".join(lines)


def _crlf(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n")))


def _utf16(data: bytes, rng: random.Random) -> bytes:
    return data.decode("latin-1").encode(rng.choice(("utf-16", "utf-16-le", "utf-32")))


def _empty(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\n", b"\0" * 100, b"{}", b"[]", b"null", b"\x1f\x8b\x08", b"PAR1"))


def _token(data: bytes, rng: random.Random) -> bytes:
    """A number, name or quoted text becomes something else."""
    found = list(TOKEN.finditer(data))
    if not found:
        return data
    hit = rng.choice(found)
    other = rng.choice((rng.choice(NUMBERS).encode(), rng.choice(WORDS).encode(), rng.choice(found).group()))
    return data[: hit.start()] + other + data[hit.end() :]


BYTES: tuple[Mutate, ...] = (_flip, _cut, _insert, _drop, _line, _crlf, _utf16, _empty)
TEXT: tuple[Mutate, ...] = (_token, _token, _token, _line)


def _value(data: bytes, rng: random.Random) -> bytes:
    """A value anywhere in a document becomes another, goes, or comes twice."""
    lines = data.splitlines()
    whole, at = data, None
    if len(lines) > 1:
        at = rng.randrange(len(lines))
        whole = lines[at]
        if not _readable(whole):
            whole, at = data, None
    if not _readable(whole):
        return data
    document = json.loads(whole)
    places = list(_places(document))
    if not places:
        return data
    holder, key = rng.choice(places)
    what = rng.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif what == 1:
        holder[str(key) + "_"] = holder[key]
    elif what == 2:
        holder[key] = [holder[key]]
    elif what == 3:
        other_holder, other = rng.choice(places)
        try:
            holder[key] = json.loads(json.dumps(other_holder[other]))
        except (KeyError, IndexError):
            return data
    else:
        holder[key] = rng.choice(VALUES)
    text = json.dumps(document).encode()
    if rng.randrange(10) == 0:
        text = text.replace(b"{", b'{"x": 1, "x": 2, ', 1)
    return text if at is None else b"\n".join([*lines[:at], text, *lines[at + 1 :], b""])


def _readable(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key or index) of a document."""
    found: list[tuple[Any, Any]] = []
    open_ = [document]
    while open_:
        holder = open_.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, value in items:
            found.append((holder, key))
            open_.append(value)
    return found


JSON: tuple[Mutate, ...] = (_value,)
