"""MissModel: which fleets are likely to keep the promise, learned from those already simulated.

It only says in which order fleets are simulated, never whether one passes. A fleet's features are how many times over
it carries the demand: at the rates under the latency limit (what the integer program believes, too strict where limits
include waiting), at the least time that requests take (no limit at all), and half-way between in logarithms. The log of
its miss ratio, misses over allowed misses, is taken as linear in their logarithms, with a prior that a fleet which
carries the demand just once under the limit passes just so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.attainment.capacity import CarryingCapacity
from melange.solver.problem import Problem

# Prior of constant and slopes, and how sure it is, in standard deviations; one simulated fleet is as sure as NOISE.
PRIOR = np.array([0.0, -6.0, -2.0, -2.0])
SPREAD = np.array([1.5, 5.0, 5.0, 5.0])
NOISE = 0.5
FAR = 3.0
"""Miss ratios beyond e to this power, either way, are all alike."""
UNSERVED = 30.0
"""Load of a size that nobody serves in time, over its least load: so that one such size does not hide all others."""


class MissModel:
    """Predicts the log miss ratio of fleets: below 0 the promise is kept."""

    def __init__(self, in_time: Problem, least: Problem, target: float) -> None:
        strict = np.minimum(in_time.load, UNSERVED * least.load)
        middle = np.sqrt(strict * least.load)
        self.capacities = tuple(CarryingCapacity(replace(in_time, load=load)) for load in (strict, middle, least.load))
        self.target = target
        self._seen: list[FloatArray] = []
        self._ratios: list[float] = []

    @property
    def least(self) -> CarryingCapacity:
        """What fleets carry at the least time that requests take; less than once is a queue that grows for ever."""
        return self.capacities[2]

    def observe(self, counts: IntArray, attainment: float) -> None:
        """Learn from a fleet that was simulated."""
        exact = np.array([capacity.exact(counts) for capacity in self.capacities])
        self._seen.append(_features(exact[None, :])[0])
        ratio = np.log(max(1.0 - attainment, 1e-6) / (1.0 - self.target))
        self._ratios.append(float(np.clip(ratio, -FAR, FAR)))

    def predict(self, fleets: IntArray) -> FloatArray:
        """(n_fleets,) log miss ratios of the fleets (n_fleets, n_instances)."""
        bounds = np.stack([capacity.bound(fleets) for capacity in self.capacities], axis=1)
        return np.asarray(_features(bounds) @ self._weights())

    def _weights(self) -> FloatArray:
        """The posterior mean of a linear model with a Gaussian prior (ridge regression towards the prior)."""
        precision = np.diag(1.0 / SPREAD**2)
        if not self._seen:
            return PRIOR
        rows, ratios = np.array(self._seen), np.array(self._ratios)
        left = precision + rows.T @ rows / NOISE**2
        right = precision @ PRIOR + rows.T @ ratios / NOISE**2
        return np.asarray(np.linalg.solve(left, right))


def _features(scales: FloatArray) -> FloatArray:
    """(n, 4) a constant and the logarithms of how many times over the demand is carried, each way."""
    logs = np.log(np.clip(scales, 1e-3, 1e3))
    return np.concatenate([np.ones((len(scales), 1)), logs], axis=1)
