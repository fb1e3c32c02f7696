"""OperationTimes: how long each operation of one decoder layer takes alone, by the tokens that it works on.

Times are measured, or modelled by :mod:`melange.nanoflow.modelled_times`, at a few token counts; between them they are
linear, and beyond the ends the outer lines go on, never below zero. No tokens take no time.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_args

import yaml

from melange.errors import InputError
from melange.files.documents import Document, read_document
from melange.files.text import write_atomic
from melange.perfmodel.operations import OperationKind, layer_kinds

Points = tuple[tuple[float, float], ...]
KEYS = ("version", "model", "gpu", "tp", "precision", "context_tokens", "source", "operations")
VERSION = 1


MOST_SECONDS = 1e4  # for one operation of one layer


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTimes:
    """Seconds per operation kind of one layer, on one GPU type at one tensor-parallel degree.

    ``points`` maps each kind of :func:`~melange.perfmodel.operations.layer_kinds` to ascending (tokens, seconds) pairs;
    tokens are the operation's own: decode requests for ``decode_attention``, prefill tokens for ``prefill_attention``.
    ``context_tokens`` is the mean context of the decode requests; ``source`` says who measured or modelled them.
    """

    model: str
    gpu: str
    tp: int = 1
    precision: str = "fp16"
    context_tokens: float
    points: Mapping[OperationKind, Points]
    source: str

    def __post_init__(self) -> None:
        if self.tp < 1:
            raise InputError(f"operation times: tp is {self.tp}", fix="give at least 1")
        if not (math.isfinite(self.context_tokens) and self.context_tokens > 0):
            raise InputError(f"operation times: context_tokens is {self.context_tokens}", fix="give a positive context")
        needed = layer_kinds(self.tp)
        for kind in needed:
            if kind not in self.points:
                raise InputError(f"operation times: {kind} is missing", fix=f"give {', '.join(needed)}")
        for kind in self.points:
            if kind not in needed:
                raise InputError(
                    f"operation times: {kind!r} is no operation at tp {self.tp}", fix=f"give {', '.join(needed)}"
                )
        checked = {kind: _checked_points(kind, self.points[kind]) for kind in needed}
        object.__setattr__(self, "points", MappingProxyType(checked))

    def seconds(self, kind: OperationKind, tokens: float) -> float:
        """Time of the operation alone on the whole device, for this many of its own tokens."""
        if tokens <= 0:
            return 0.0
        points = self.points[kind]
        if len(points) == 1:
            return points[0][1] * tokens / points[0][0]
        pairs = list(itertools.pairwise(points))
        left, right = next((pair for pair in pairs if tokens <= pair[1][0]), pairs[-1])
        slope = (right[1] - left[1]) / (right[0] - left[0])
        return max(left[1] + slope * (tokens - left[0]), 0.0)

    def layer_seconds(self, decode_tokens: int, prefill_tokens: int) -> dict[OperationKind, float]:
        """Each operation's time over one unsplit batch; the sum is the layer's sequential time."""
        own = {"decode_attention": decode_tokens, "prefill_attention": prefill_tokens}
        batch = decode_tokens + prefill_tokens
        return {kind: self.seconds(kind, own.get(kind, batch)) for kind in self.points}

    def at_context(self, context_tokens: float) -> OperationTimes:
        """The same times at another mean context of the decode requests, whose attention is proportional to it."""
        scale = context_tokens / self.context_tokens
        decode = tuple((tokens, scale * seconds) for tokens, seconds in self.points["decode_attention"])
        return replace(self, context_tokens=context_tokens, points={**self.points, "decode_attention": decode})

    def to_dict(self) -> dict[str, Any]:
        """Plain values as the YAML file holds them; times in milliseconds."""
        return {
            "version": VERSION,
            "model": self.model,
            "gpu": self.gpu,
            "tp": self.tp,
            "precision": self.precision,
            "context_tokens": self.context_tokens,
            "source": self.source,
            "operations": {
                kind: [[tokens, float(f"{1000 * seconds:.6g}")] for tokens, seconds in points]
                for kind, points in self.points.items()
            },
        }


def read_operation_times(file: str | os.PathLike[str]) -> OperationTimes:
    """Operation times of a YAML file: ``operations`` maps kinds to lists of [tokens, milliseconds].

    Raises InputError with file, line and column for unknown or missing keys and figures that cannot be.
    """
    document = read_document(file)
    _check_keys(document, KEYS, optional=("tp", "precision"))
    data = document.data
    if data["version"] != VERSION:
        raise document.error(("version",), f"version is {data['version']}", f"this reads version {VERSION}")
    for name in ("model", "gpu", "precision", "source"):
        if not isinstance(data.get(name, ""), str):
            raise document.error((name,), f"{name} is {data[name]!r}", "give it as text")
    if not isinstance(data["operations"], dict):
        raise document.error(("operations",), "operations is not a mapping", "map each kind to [tokens, ms] pairs")
    for kind in data["operations"]:
        if kind not in get_args(OperationKind):
            raise document.error(
                ("operations", kind, "#key"), f"unknown operation {kind!r}", f"use {', '.join(get_args(OperationKind))}"
            )
    try:
        return OperationTimes(
            model=data["model"],
            gpu=data["gpu"],
            tp=int(data.get("tp", 1)),
            precision=data.get("precision", "fp16"),
            context_tokens=float(data["context_tokens"]),
            points={kind: _points(document, kind) for kind in data["operations"]},
            source=data["source"],
        )
    except InputError as error:
        raise error.located(document.file) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"operation times: {error}", file=document.file, fix="check the types of its values") from None


def write_operation_times(file: str | os.PathLike[str], times: OperationTimes) -> None:
    """Write the YAML file that :func:`read_operation_times` reads."""
    write_atomic(file, yaml.safe_dump(times.to_dict(), sort_keys=False, default_flow_style=None))


def _points(document: Document, kind: str) -> Points:
    rows = document.data["operations"][kind]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise document.error(
            ("operations", kind), f"{kind} is not a list of pairs", "give [[tokens, milliseconds], ...]"
        )
    try:
        return tuple((float(tokens), float(ms) / 1000) for tokens, ms in rows)
    except (TypeError, ValueError, OverflowError):
        raise document.error(("operations", kind), f"{kind} holds what is no number", "give [tokens, ms]") from None


def _checked_points(kind: str, points: Points) -> Points:
    if not points:
        raise InputError(f"operation times: {kind} has no points", fix="give at least one [tokens, milliseconds]")
    for tokens, seconds in points:
        if not (math.isfinite(tokens) and tokens > 0 and 0 <= seconds <= MOST_SECONDS):
            raise InputError(
                f"operation times: {kind} takes {seconds} s at {tokens} tokens",
                fix=f"give positive figures, and no more than {MOST_SECONDS:g} s",
            )
    for (low, _), (high, _) in itertools.pairwise(points):
        if high <= low:
            raise InputError(f"operation times: {kind}'s token counts do not ascend at {high:g}", fix="sort its points")
    return tuple((float(tokens), float(seconds)) for tokens, seconds in points)


def _check_keys(document: Document, known: tuple[str, ...], optional: tuple[str, ...]) -> None:
    for key in document.data:
        if key not in known:
            raise document.error((key, "#key"), f"unknown key {key!r}", f"known keys: {', '.join(known)}")
    for key in known:
        if key not in document.data and key not in optional:
            raise document.error((), f"the key {key!r} is missing", f"give {', '.join(known)}")
