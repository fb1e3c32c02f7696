"""Explanation: what explaining a solved problem gives, in values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CapValue:
    """What one cap is worth: the cheapest fleet's USD/h with the cap as it is, one higher, and one lower.

    None means that there is no such fleet: no plan, or nothing proven in time (``one_fewer`` also if the cap is 0).
    """

    name: str
    maximum: int
    used: int
    cost_usd_per_hour: float
    one_more_usd_per_hour: float | None
    one_fewer_usd_per_hour: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """The highest price at which an unused instance type joins a fleet as cheap as today's.

    None: not at any price (its limits forbid it, or it can save nothing). A type whose re-solve ran out of time is left
    out. ``tolerance_usd_per_hour`` is how far the
    true price may lie above, because re-solving stops at a gap.
    """

    instance: str
    price_usd_per_hour: float
    break_even_usd_per_hour: float | None
    tolerance_usd_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NextFleet:
    """Another fleet, what it costs, and how much that is above the cheapest: a fraction, None above one for nothing."""

    instances: Mapping[str, int]
    cost_usd_per_hour: float
    above_best: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Answers for one solved problem; every cost in it is proven to the relative ``gap``.

    ``next_best`` are the cheapest fleets, dearest last, of which none contains the plan's fleet or one another.
    ``reasons`` is empty unless the problem is infeasible, and then the only part that is filled.
    """

    gap: float
    capped: tuple[CapValue, ...] = ()
    break_even: tuple[BreakEven, ...] = ()
    next_best: tuple[NextFleet, ...] = ()
    reasons: tuple[str, ...] = ()
