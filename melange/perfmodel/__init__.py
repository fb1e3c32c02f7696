"""The performance model: how long an engine iteration takes, what follows from it, and how it is calibrated.

``StepClock`` is the iteration-time formula, ``step_clock`` derives it from catalog figures and ``Efficiencies``,
``SteadyState`` solves it for a load, ``estimated_profile`` and ``filled_profile`` turn it into profiles,
``calibrate`` fits it to load points. Names are imported when they are first used: the clock alone needs no scipy.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "Calibration": "calibration",
    "Deployment": "hardware",
    "Efficiencies": "efficiencies",
    "EngineSettings": "engine",
    "LoadPoint": "loadpoint",
    "PhysicalLimit": "limits",
    "SteadyState": "steady",
    "StepClock": "clock",
    "calibrate": "calibrate",
    "default_settings": "engine",
    "estimated_profile": "profile",
    "filled_profile": "fill",
    "load_points": "estimate",
    "max_rates_rps": "estimate",
    "physical_limits": "limits",
    "points_of": "calibrate",
    "rates_with_band": "estimate",
    "read_calibration": "calibration",
    "step_clock": "hardware",
    "write_calibration": "calibration",
}

__all__ = sorted(_WHERE)  # noqa: PLE0605 - a list of strings, which ruff cannot see


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'melange.perfmodel' has no attribute {name!r}")
    return getattr(importlib.import_module(f"melange.perfmodel.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
