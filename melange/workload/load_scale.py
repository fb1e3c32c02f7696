"""LoadScale: which load of a workload is planned for, and the margin above it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from melange.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadScale:
    """What a workload's mean rate is multiplied by to plan for more than its mean.

    ``statistic`` is ``mean``, ``peak`` or ``p95`` of the ``windows`` windows' loads, None where the rate itself was
    given. ``load_ratio`` is that load over the mean's, measured by ``measure``. ``margin`` is a share on top.
    """

    statistic: str | None = None
    load_ratio: float = 1.0
    windows: int = 0
    measure: str | None = None
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise InputError(f"margin is {self.margin}", fix="give a share from 0, for example 0.15 or 15%")
        if not (math.isfinite(self.load_ratio) and self.load_ratio > 0):
            raise InputError(f"load ratio is {self.load_ratio}", fix="give a positive number")

    @property
    def factor(self) -> float:
        """Planned rate over the mean rate."""
        return self.load_ratio * (1 + self.margin)

    def describe(self, rate_rps: float) -> str:
        """``1.44 times 2.567 req/s (p95 of 8 windows' load: 1.25; margin 15%)``, of the rate planned for."""
        return self._of(f"{rate_rps / self.factor:.4g} req/s")

    def describe_factor(self) -> str:
        """The same without a rate."""
        return self._of("the rate")

    def _of(self, rate: str) -> str:
        parts = [f"margin {100 * self.margin:.3g}%"] if self.margin else []
        if self.statistic not in (None, "mean"):
            parts = [f"{self.statistic} of {self.windows} windows' load: {self.load_ratio:.3g}", *parts]
        return f"{self.factor:.3g} times {rate} ({'; '.join(parts)})" if parts else f"the mean load, {rate}"
