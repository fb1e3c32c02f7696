"""PlanBucket: one size bucket's demand, and who serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from melange.workload.bucket import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBucket(Bucket):
    """A size bucket, and who serves it.

    ``shares`` maps a config to its share of the bucket (absent = 0), ``late_shares`` to what it serves of it late by
    design, without the SLO's limit; together they sum to 1. ``max_rate_rps`` maps a config to its highest rate on this
    bucket alone (0 = cannot meet the SLO, None = not measured), ``late_rate_rps`` to that without the limit where
    requests may be late by design, ``sources`` to what the rate rests on (``measured``, ``published``, ``estimated``).
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    late_shares: Mapping[str, float] = field(default_factory=dict)
    max_rate_rps: Mapping[str, float | None] = field(default_factory=dict)
    late_rate_rps: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def share_of(self, config: str) -> float:
        """What a config serves of the bucket, in time and late."""
        return self.shares.get(config, 0.0) + self.late_shares.get(config, 0.0)
