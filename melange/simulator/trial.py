"""Trials: does a fleet keep its promise? First a quick look on common seeds, then a sequential test on fresh ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student_t

from melange.plan import Plan
from melange.simulator.clocks import ConfigClock
from melange.simulator.metrics import attainment_of
from melange.simulator.simulate import Scenario, SimulationOptions, prepare, replications_of

if TYPE_CHECKING:
    from melange.traces import Trace

SCREENING = 4
LOOKS = (16, 24, 40)
"""Replications after which the confirming test looks at the data.

Not sooner: a fleet near its limit does well in most replications and breaks down in some, which the spread of a few
good ones does not show.
"""
ERROR = 0.05
"""Chance that any of a search's confirmations is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a trial found: whether it passed, the mean attainment, and over how many replications.

    ``low`` is the one-sided confidence bound that a confirming test compared with the target at its last look.
    """

    passed: bool
    attainment: float
    replications: int
    low: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trials:
    """Everything that trials of different fleets share: requests, clocks, policy, target.

    Screening uses the replications 0, 1, ... for every fleet alike (common random numbers), the k-th confirmation
    replications of its own.
    """

    target: float
    options: SimulationOptions
    clocks: Mapping[str, ConfigClock]
    trace: Trace | None = None

    def scenario(self, plan: Plan) -> Scenario:
        return prepare(plan, self.trace, self.options, clocks=self.clocks)

    def screen(self, plan: Plan) -> Verdict:
        """A quick look: fails once three standard errors below the target, passes on the mean of four replications."""
        scenario, values = self.scenario(plan), list[float]()
        for index in range(SCREENING):
            values += _attainments(scenario, index, 1)
            if len(values) > 1:
                margin = 3.0 * float(np.std(values, ddof=1)) / np.sqrt(len(values))
            else:
                margin = max(0.02, 2.0 * (1.0 - self.target))
            if np.mean(values) + margin < self.target:
                return Verdict(passed=False, attainment=float(np.mean(values)), replications=len(values))
        mean = float(np.mean(values))
        return Verdict(passed=mean >= self.target, attainment=mean, replications=len(values))

    def confirm(self, plan: Plan, attempt: int) -> Verdict:
        """Whether the attainment reaches the target, at an error of ERROR over all attempts (1, 2, ...) of a search.

        A group-sequential t test on fresh seeds: at each look the one-sided bound at ERROR / (attempt (attempt + 1)) /
        number of looks is compared with the target; undecided at the last look counts as failed. Replications are
        twice as long as asked: a fleet near its limit breaks down sooner or later, and what is promised must not hang
        on when.
        """
        error = ERROR / (attempt * (attempt + 1)) / len(LOOKS)
        asked = self.options.requests
        longer = replace(self.options, requests=None if asked is None else 2 * asked)
        scenario = replace(self, options=longer).scenario(plan)
        values: list[float] = []
        low = 0.0
        for look in LOOKS:
            values += _attainments(scenario, attempt * 1000 + len(values), look - len(values))
            mean, half = float(np.mean(values)), _half_width(values, error)
            low = mean - half
            if low >= self.target or mean + half < self.target:
                break
        return Verdict(passed=low >= self.target, attainment=mean, replications=len(values), low=low)


def _half_width(values: Sequence[float], error: float) -> float:
    deviation = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return float(student_t.ppf(1.0 - error, len(values) - 1)) * deviation


def _attainments(scenario: Scenario, first: int, count: int) -> list[float]:
    slo = scenario.plan.slo
    return [attainment_of(r.outcome, slo) for r in replications_of(scenario, first, count)]


def recheck(plan: Plan, trials: Trials, seed: int, replications: int = 10) -> float:
    """Mean attainment of a plan on seeds that no trial has used."""
    other = replace(trials, options=replace(trials.options, seed=seed))
    return float(np.mean(_attainments(other.scenario(plan), 0, replications)))
