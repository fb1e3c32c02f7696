"""Budget: how much engine time a profile run may take, and what it costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from melange.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of one run, counted from ``began_s`` by ``clock``: seconds, dollars, or neither.

    ``usd_per_hour`` is the price of what is being measured, None where unknown; a dollar limit needs it.
    """

    limit_s: float | None = None
    limit_usd: float | None = None
    usd_per_hour: float | None = None
    clock: Callable[[], float] = time.monotonic
    began_s: float = field(default=math.nan)

    def __post_init__(self) -> None:
        for name in ("limit_s", "limit_usd", "usd_per_hour"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"budget: {name} is {value}", fix="give a positive figure or leave it out")
        if self.limit_usd is not None and self.usd_per_hour is None:
            raise InputError("a budget in dollars needs a price", fix="add --usd-per-hour")
        if math.isnan(self.began_s):
            object.__setattr__(self, "began_s", self.clock())

    @property
    def spent_s(self) -> float:
        return self.clock() - self.began_s

    @property
    def spent_usd(self) -> float | None:
        """Dollars so far; None where the price is unknown."""
        return None if self.usd_per_hour is None else self.spent_s / 3600 * self.usd_per_hour

    @property
    def left_s(self) -> float:
        """Seconds that may still be spent; infinite without a limit."""
        left = math.inf if self.limit_s is None else self.limit_s - self.spent_s
        if self.limit_usd is not None and self.usd_per_hour is not None:
            left = min(left, self.limit_usd / self.usd_per_hour * 3600 - self.spent_s)
        return left

    @property
    def limited(self) -> bool:
        return self.limit_s is not None or self.limit_usd is not None
