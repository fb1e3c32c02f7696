"""PlanBucket: one size bucket's demand, and who serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBucket:
    """One size bucket: its edges (None when unknown), demand, true means, and who serves it.

    ``load_input_tokens`` and ``load_output_tokens`` are the sizes its load was taken at. ``shares`` maps a config to
    its share of the bucket (absent = 0, sums to 1; empty where an attainment SLO lets it be late), ``max_rate_rps``
    maps a config to its highest rate on this bucket alone (0 = cannot meet the SLO, None = not measured), ``sources``
    to what that rate rests on (``measured``, ``published``, ``estimated``).
    """

    input_tokens_max: int | None
    output_tokens_max: int | None
    rate_rps: float
    mean_input_tokens: float | None = None
    mean_output_tokens: float | None = None
    mean_product_tokens2: float | None = None
    mean_cached_tokens: float | None = None
    load_input_tokens: float | None = None
    load_output_tokens: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    max_rate_rps: Mapping[str, float | None] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.input_tokens_max}x{self.output_tokens_max}"
