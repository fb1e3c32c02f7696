"""Basis: what rates rest on, as far as later commands compute with it."""

from __future__ import annotations

from dataclasses import dataclass

from melange.measurements.curve import MeasuredCurve
from melange.serving.clocks import ClockKind
from melange.serving.efficiencies import Efficiencies
from melange.serving.engine_settings import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What the clocks of a profile's or plan's configurations are made from, where it is known.

    ``curves``: load points with latencies, one curve a measured configuration. ``efficiencies`` and
    ``engine_settings``: those of the calibration that estimated the rates; ``engine_settings`` None leaves each GPU its
    engine's defaults. ``engine_version``: the version that all measurements name, None where they differ or name none.
    ``clock``: what the times are taken from; files from before there was a choice say nothing, and mean the datasheet.
    """

    curves: tuple[MeasuredCurve, ...] = ()
    efficiencies: Efficiencies | None = None
    engine_settings: EngineSettings | None = None
    engine_version: str | None = None
    clock: ClockKind = "datasheet"
