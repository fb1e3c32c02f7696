"""Trace: arrival times and lengths of requests, without any text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from melange.arrays import FloatArray, IntArray
from melange.errors import InputError
from melange.files.shown import short_repr

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests of a trace, or of a stretch of one. Every array has shape (requests,) and is read-only.

    ``arrival_s``: seconds after the first row of the file, None where the trace tells no times.
    ``input_tokens``, ``output_tokens``: lengths, >= 0; zero-token requests occur and are kept.
    ``cached_tokens``: prefix-hit input tokens, at most the input; None where not told.
    ``cached_upper_bound``: whether they are those of an infinite cache rather than told by the trace.
    ``session``: a number per request, equal for requests of one session; None where not told.
    """

    input_tokens: IntArray
    output_tokens: IntArray
    arrival_s: FloatArray | None = None
    cached_tokens: IntArray | None = None
    session: IntArray | None = None
    cached_upper_bound: bool = False

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens", "cached_tokens", "session"):
            if getattr(self, name) is not None:
                self._freeze(name, np.int64)
        if self.arrival_s is not None:
            self._freeze("arrival_s", np.float64)
            if not np.isfinite(self.arrival_s).all():
                raise InputError("trace: an arrival time is not finite", fix="give every request a time, or none")
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            values = getattr(self, name)
            if values is not None and (values < 0).any():
                raise InputError(f"trace: {name} holds {values.min()}", fix="token counts are >= 0")
        if self.cached_tokens is not None and (self.cached_tokens > self.input_tokens).any():
            raise InputError("trace: a request has more cached than input tokens", fix="check the cached tokens")

    def _freeze(self, name: str, dtype: type[np.generic]) -> None:
        given = np.asarray(getattr(self, name))
        array = given.astype(dtype)
        if array.shape != (len(self.input_tokens),):
            raise InputError(
                f"trace: {name} has shape {array.shape} for {len(self.input_tokens)} requests",
                fix="give one value per request",
            )
        if dtype is np.int64 and not np.array_equal(array, given):
            raise InputError(f"trace: {name} holds values that are not whole numbers", fix="check the values")
        array.setflags(write=False)
        object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.input_tokens)

    @property
    def span_s(self) -> float | None:
        """Seconds between the first and the last arrival; None without times."""
        return None if self.arrival_s is None else float(np.ptp(self.arrival_s)) if len(self) else 0.0

    def in_order(self) -> Trace:
        """The same requests by arrival time; requests of one instant, and traces without times, keep their order."""
        if self.arrival_s is None or (np.diff(self.arrival_s) >= 0).all():
            return self
        return self._rows(np.argsort(self.arrival_s, kind="stable"))

    def _rows(self, index: IntArray) -> Trace:
        return Trace(
            input_tokens=self.input_tokens[index],
            output_tokens=self.output_tokens[index],
            arrival_s=None if self.arrival_s is None else self.arrival_s[index],
            cached_tokens=None if self.cached_tokens is None else self.cached_tokens[index],
            session=None if self.session is None else self.session[index],
            cached_upper_bound=self.cached_upper_bound,
        )

    @classmethod
    def joined(cls, parts: Sequence[Trace]) -> Trace:
        """Stretches put one after the other; what one of them does not tell, the whole does not either."""
        if not parts:
            raise InputError("trace: no parts to join", fix="give at least one")

        def column(name: str) -> NDArray[np.generic] | None:
            arrays = [getattr(part, name) for part in parts]
            return None if any(array is None for array in arrays) else np.concatenate(arrays)

        names = ("input_tokens", "output_tokens", "arrival_s", "cached_tokens", "session")
        bound = any(part.cached_upper_bound for part in parts)
        return cls(**{name: column(name) for name in names}, cached_upper_bound=bound)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        if not len(self):
            return "Trace(no requests)"
        told = [name for name in ("cached_tokens", "session") if getattr(self, name) is not None]
        span = "no times" if self.span_s is None else f"{self.span_s:.4g} s"
        means = f"mean {self.input_tokens.mean():.4g} -> {self.output_tokens.mean():.4g} tokens"
        return short_repr("Trace", ", ".join([f"{len(self):,} requests", span, means, *told]))

    def to_frame(self) -> DataFrame:
        """One row a request, in the trace's order (index 0, 1, ...).

        Columns: ``arrival_s``, ``input_tokens``, ``output_tokens``, ``cached_tokens``, ``session``; those that the
        trace does not tell are left out.
        """
        import pandas as pd

        names = ("arrival_s", "input_tokens", "output_tokens", "cached_tokens", "session")
        return pd.DataFrame({name: getattr(self, name) for name in names if getattr(self, name) is not None})
