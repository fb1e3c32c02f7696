"""NanoBatchingEffect: what allowing nano-batching configurations changes in a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoBatchingEffect:
    """A plan against the one without ``engine: nanoflow`` configurations; the gain is a prediction.

    ``without_usd_per_hour``: cost of the other, None without a fleet. ``saving_usd_per_hour``: that less this one's,
    None unless both have a fleet. ``fleet_change`` maps an instance to (count without, count with) where the two
    differ. ``summary``: one line for people.
    """

    without_usd_per_hour: float | None
    saving_usd_per_hour: float | None
    fleet_change: Mapping[str, tuple[int, int]]
    summary: str
