"""Costs: what a fleet costs, what one GPU type alone would cost, and the limits that were set on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

HOURS_PER_MONTH = 730.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The fleet's cost per month (730 h) and per million tokens at the workload's true means.

    ``usd_per_million_input_tokens`` and ``..._output_tokens`` each divide the *whole* cost by that kind of token
    alone; ``usd_per_million_tokens`` divides it by both kinds together. None where sizes are unknown.
    """

    usd_per_hour: float
    usd_per_month: float
    usd_per_million_tokens: float | None = None
    usd_per_million_input_tokens: float | None = None
    usd_per_million_output_tokens: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The cheapest fleet of one GPU type alone, or why there is none. ``savings`` is the plan's share saved on it."""

    instances: Mapping[str, int] | None = None
    replicas: Mapping[str, int] | None = None
    cost_usd_per_hour: float | None = None
    savings: float | None = None
    proven: bool = True
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimit:
    """A limit that was asked for, how much of it the plan uses, and whether it binds."""

    name: str
    kind: Literal["max", "min", "max_cost"]
    value: float
    used: float
    binding: bool


def describe_instances(instances: Mapping[str, int]) -> str:
    """``1 x L4 + 2 x A10G``, zero counts left out."""
    return " + ".join(f"{count} x {name}" for name, count in instances.items() if count) or "nothing"
