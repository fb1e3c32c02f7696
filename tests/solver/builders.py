"""Small problems for the solver's tests."""

from __future__ import annotations

import numpy as np

from melange.solver.problem import Problem


def problem_of(load: list[list[float]], prices: list[float], **changes: object) -> Problem:
    """Single-GPU types A, B, ... at these prices."""
    names = tuple("ABCDEFGH"[: len(prices)])
    values = {
        "buckets": tuple(f"b{b}" for b in range(len(load))),
        "configs": names,
        "instances": names,
        "load": np.array(load),
        "config_instance": np.arange(len(prices)),
        "gpus_per_replica": np.ones(len(prices), dtype=int),
        "gpus_per_instance": np.ones(len(prices), dtype=int),
        "price_usd_per_hour": np.array(prices),
    }
    return Problem(**{**values, **changes})
