"""RateTable: one configuration's highest rates by size, as a plan keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from melange.errors import InputError

Rates = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTable:
    """Highest sustainable rate of one replica by size; tables are [input][output], in requests/s.

    ``input_tokens`` and ``output_tokens``: the profiled sizes, ascending. ``max_rate_rps``: 0 cannot meet the SLO, None
    is not known. ``low_rps`` and ``high_rps``: band of an estimate, None where there is none. ``source``: ``measured``,
    ``estimated`` or ``published``, empty without a value. ``assumed_slo``: saturation throughputs that were measured
    without an SLO were taken for this one. InputError: sizes that are not positive and ascending, a table of another
    shape, a negative rate.
    """

    input_tokens: tuple[float, ...]
    output_tokens: tuple[float, ...]
    max_rate_rps: Rates
    low_rps: Rates = ()
    high_rps: Rates = ()
    source: tuple[tuple[str, ...], ...] = ()
    assumed_slo: bool = False

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens"):
            sizes = getattr(self, name)
            if not sizes or sizes[0] <= 0 or any(low >= high for low, high in pairwise(sizes)):
                raise InputError(f"rate table: {name} are not positive and ascending")
        shape = (len(self.input_tokens), len(self.output_tokens))
        for name in ("max_rate_rps", "low_rps", "high_rps", "source"):
            rows = getattr(self, name)
            if (rows or name == "max_rate_rps") and (len(rows), *{len(row) for row in rows}) != shape:
                raise InputError(f"rate table: {name} is not of {shape[0]} x {shape[1]} sizes")
            if name != "source" and any(rate is not None and rate < 0 for row in rows for rate in row):
                raise InputError(f"rate table: a rate in {name} is negative")
