"""PlanBucket: one size bucket's demand, and who serves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from melange.workload.bucket import Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanBucket(Bucket):
    """A size bucket, and who serves it.

    ``shares`` maps a config to its share of the bucket (absent = 0, sums to 1; empty where an attainment SLO lets it be
    late), ``max_rate_rps`` maps a config to its highest rate on this bucket alone (0 = cannot meet the SLO, None = not
    measured), ``sources`` to what that rate rests on (``measured``, ``published``, ``estimated``).
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    max_rate_rps: Mapping[str, float | None] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
