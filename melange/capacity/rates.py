"""RateTable: one configuration's highest rates by size, as a plan keeps them."""

from __future__ import annotations

from dataclasses import dataclass

Rates = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTable:
    """Highest sustainable rate of one replica by size; tables are [input][output], in requests/s.

    ``input_tokens`` and ``output_tokens``: the profiled sizes, ascending. ``max_rate_rps``: 0 cannot meet the SLO, None
    is not known. ``low_rps`` and ``high_rps``: band of an estimate, None where there is none. ``source``: ``measured``,
    ``estimated`` or ``published``, empty without a value. ``assumed_slo``: saturation throughputs that were measured
    without an SLO were taken for this one.
    """

    input_tokens: tuple[float, ...]
    output_tokens: tuple[float, ...]
    max_rate_rps: Rates
    low_rps: Rates = ()
    high_rps: Rates = ()
    source: tuple[tuple[str, ...], ...] = ()
    assumed_slo: bool = False
