"""PrecisionAdvice: what a workload would cost at another precision of the weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionAdvice:
    """What the cheapest fleet at another precision costs, which some of the GPU types in play compute natively.

    ``savings`` is the share of the plan's cost, None where the plan has no fleet. ``stored_only`` are the GPU types of
    the other fleet that only store the precision. ``skipped`` says why nothing was tried, the rest being None or empty
    then.
    """

    precision: str | None = None
    cost_usd_per_hour: float | None = None
    savings: float | None = None
    stored_only: tuple[str, ...] = ()
    skipped: str | None = None

    def describe(self) -> str:
        """``fp8 would cost $2.18/h, 39% less: --precision fp8``."""
        if self.skipped is not None:
            return f"no other precision was tried: {self.skipped}; see --precision"
        less = "where this has no fleet" if self.savings is None else f"{100 * self.savings:.0f}% less"
        stored = f" (only stored on {', '.join(self.stored_only)})" if self.stored_only else ""
        usd = f"${self.cost_usd_per_hour:.2f}/h"
        return f"{self.precision} would cost {usd}, {less}{stored}: --precision {self.precision}"
