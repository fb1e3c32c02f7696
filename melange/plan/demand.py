"""PlanDemand: what a plan serves, in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from melange.workload.load_scale import LoadScale


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDemand:
    """The workload's totals. What its source does not state is None.

    ``rate_rps``: of all requests, without headroom. ``representative``: the size that a bucket's load is taken at, its
    ``mean`` sizes or its ``upper_edge``. The edges are the upper, inclusive ones of the size buckets.
    ``input_tokens_per_s`` and ``output_tokens_per_s``: tokens that arrive and that are generated. ``burstiness_cv``:
    coefficient of variation of the times between arrivals. ``load_scale``: what of the rate is above the mean's, None
    where it is the mean's. ``provenance``: where it came from, for reading only.
    """

    name: str
    model: str | None = None
    rate_rps: float
    representative: str | None = None
    input_edges_tokens: tuple[int, ...] | None = None
    output_edges_tokens: tuple[int, ...] | None = None
    input_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None
    burstiness_cv: float | None = None
    load_scale: LoadScale | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
