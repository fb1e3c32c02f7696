"""Bucket: requests of like size, and the size that their load is taken at; the same from the workload to the router."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One size bucket with demand: its upper, inclusive edges, its rate, the true means of its requests.

    ``load_input_tokens`` and ``load_output_tokens`` are the sizes its load is taken at. Edges, means and sizes are None
    where a source tells throughputs without sizes.
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

    @property
    def label(self) -> str:
        """``input x output`` upper edges, in tokens."""
        return f"{self.input_tokens_max}x{self.output_tokens_max}"
