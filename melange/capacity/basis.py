"""Basis: what rates rest on, as far as later commands compute with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from melange.measurements.curve import MeasuredCurve
from melange.serving.clocks import ClockKind
from melange.serving.efficiencies import Efficiencies
from melange.serving.engine_settings import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What the clocks of a profile's or plan's configurations are made from, where it is known.

    ``curves``: load points with latencies, one curve a measured configuration. ``efficiencies`` and
    ``engine_settings``: those of the calibration that estimated the rates, with the ``gpu_efficiencies`` of GPU types
    that were measured themselves; ``engine_settings`` None leaves each GPU its engine's defaults. ``engine_version``:
    the version that all measurements name, None where they differ or name none.
    ``clock``: what the times are taken from; files from before there was a choice say nothing, and mean the datasheet.
    """

    curves: tuple[MeasuredCurve, ...] = ()
    efficiencies: Efficiencies | None = None
    gpu_efficiencies: Mapping[str, Efficiencies] = field(default_factory=dict)
    engine_settings: EngineSettings | None = None
    engine_version: str | None = None
    clock: ClockKind = "datasheet"

    def efficiencies_of(self, gpu: str) -> Efficiencies | None:
        """A GPU type's own where it has them, else those common to all."""
        return self.gpu_efficiencies.get(gpu, self.efficiencies)
