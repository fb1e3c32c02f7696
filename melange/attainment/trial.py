"""Trials: does a fleet keep its promise? First a quick look on common seeds, then a sequential test on fresh ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student_t

from melange.arrays import FloatArray
from melange.plan.plan import Plan
from melange.simulator.clocks import ConfigClock
from melange.simulator.metrics import attainment_of
from melange.simulator.simulate import Scenario, SimulationOptions, replications_of, scenario_of

if TYPE_CHECKING:
    from melange.traces import Trace

SCREENING = 4
LOOKS = (16, 32, 64)
"""Replications after which the confirming test may promise.

Not sooner: a fleet near its limit does well in most replications and breaks down in some, which the spread of a few
good ones does not show.
"""
BATCH = 4
"""Replications after which the confirming test may give up."""
ERROR = 0.05
"""Chance that the long-run mean is lower than any of a search's confirmations took it for."""
NOISE = 0.05
"""Chance that a re-check of a promise falls short by its own noise, if the long-run mean is what it was taken for.

It does not add up over a search: which fleet a search settles on says nothing of replications that nobody has played.
"""
SHORTFALL = 0.05
"""Chance that a fleet which the confirming test would promise in the end is given up at one of its batches."""
LONGER = 2
"""How many times as long as the replications that were asked for the confirming ones are."""
RECHECKED = 10
"""Replications, as long as was asked for, that a re-check of a promise averages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What a trial found: whether it passed, the mean attainment, and over how many replications.

    ``low`` is the bound that a confirming test compared with the target at its end: what a re-check reaches, but for
    chances of ERROR and NOISE. ``undecided``: neither passed nor ruled out. Of a quick look, the mean is below the
    target by less than its standard error; of a confirming test, it reached the target and the bound did not.
    """

    passed: bool
    attainment: float
    replications: int
    low: float | None = None
    undecided: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demand:
    """A rate and a mix over a plan's buckets, ``probability`` (n_buckets,), in place of the plan's own."""

    rate_rps: float
    probability: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trials:
    """Everything that trials of different fleets share: requests, clocks, policy, target.

    A fleet passes if it does at the plan's own demand and at each of the ``demands``; its attainment is then the least,
    and a promise holds for each of them at the error of one, as all have to pass. Screening uses the replications
    0, 1, ... for every fleet alike (common random numbers), the k-th confirmation replications of its own.
    """

    target: float
    options: SimulationOptions
    clocks: Mapping[str, ConfigClock]
    trace: Trace | None = None
    demands: tuple[Demand, ...] = ()

    def scenario(self, plan: Plan, demand: Demand | None = None) -> Scenario:
        """The plan made ready to be played, at its own demand by default."""
        own = scenario_of(plan, self.trace, self.options, clocks=self.clocks)
        if demand is None:
            return own
        scale = 1.0 if self.options.rate_rps is None else self.options.rate_rps / sum(b.rate_rps for b in plan.buckets)
        sizes = replace(own.sizes, probability=demand.probability)
        return replace(own, sizes=sizes, rate_rps=demand.rate_rps * scale)

    def scenarios(self, plan: Plan) -> list[Scenario]:
        """The plan at each demand that it must stand, its own first."""
        return [self.scenario(plan), *(self.scenario(plan, demand) for demand in self.demands)]

    def screen(self, plan: Plan) -> TrialResult:
        """A quick look: fails once three standard errors below the target, passes on the mean of four replications."""
        return self._each(plan, self._screened)

    def look_at(self, plan: Plan, demand: Demand) -> TrialResult:
        """A quick look at one demand alone."""
        return self._screened(self.scenario(plan, demand))

    def _each(self, plan: Plan, judge: Callable[[Scenario], TrialResult]) -> TrialResult:
        """The verdict over all demands, up to the first that fails: least figures, all replications."""
        found: list[TrialResult] = []
        for scenario in self.scenarios(plan):
            found.append(judge(scenario))
            if not found[-1].passed:
                break
        lows = [result.low for result in found if result.low is not None]
        return TrialResult(
            passed=found[-1].passed,
            attainment=min(result.attainment for result in found),
            replications=sum(result.replications for result in found),
            low=min(lows) if lows else None,
            undecided=found[-1].undecided,
        )

    def _screened(self, scenario: Scenario) -> TrialResult:
        values, hopeful = self._look(scenario)
        mean, passed = float(np.mean(values)), hopeful and float(np.mean(values)) >= self.target
        near = hopeful and mean + float(np.std(values, ddof=1) / np.sqrt(len(values))) >= self.target
        return TrialResult(passed=passed, attainment=mean, replications=len(values), undecided=near and not passed)

    def expects(self, plan: Plan) -> bool:
        """Whether a quick look, on the same seeds, expects the confirming test to pass at its last look."""
        values, hopeful = self._look(self.scenario(plan))
        if not hopeful:
            return False
        margin = _margin(values, LOOKS[-1], _error(1)) / float(np.sqrt(LONGER))
        return float(np.mean(values)) - margin >= self.target

    def _look(self, scenario: Scenario) -> tuple[list[float], bool]:
        """Attainments of one replication, or of SCREENING where it leaves hope, and whether they leave hope."""
        values = list[float]()
        for count in (1, SCREENING - 1):
            values += attainments_of(scenario, len(values), count)
            if len(values) > 1:
                margin = 3.0 * float(np.std(values, ddof=1)) / np.sqrt(len(values))
            else:
                margin = max(0.02, 2.0 * (1.0 - self.target))
            if np.mean(values) + margin < self.target:
                return values, False
        return values, True

    def confirm(self, plan: Plan, attempt: int) -> TrialResult:
        """Whether a re-check of the plan reaches the target, at an error of ERROR over all attempts (1, 2, ...).

        A group-sequential test on fresh seeds. At each look the target is compared with a one-sided bound for the mean
        of the RECHECKED replications that somebody else may play (see :func:`promised`): a confidence bound for the
        long-run mean alone would let a fleet just above the target promise what every second re-check denies. The
        errors of all looks and attempts add up to ERROR (see _error), so by the union bound no choice that the search
        makes among them exceeds it: the test is valid as far as replication means are normal. It gives up early where
        the mean is below the target and the bound is out of reach, which can only withhold promises.

        Replications are LONGER than asked: a fleet near its limit breaks down sooner or later, and what is promised
        must not hang on when.
        """
        asked = self.options.requests
        longer = replace(self.options, requests=None if asked is None else LONGER * asked)
        return replace(self, options=longer)._each(plan, lambda scenario: self._confirmed(scenario, attempt))

    def _confirmed(self, scenario: Scenario, attempt: int) -> TrialResult:
        """The sequential test at one demand."""
        error = _error(attempt)
        counted = scenario.requests * (1.0 - self.options.warmup_share)
        values: list[float] = []
        low = 0.0
        while len(values) < LOOKS[-1]:
            values += attainments_of(scenario, attempt * 1000 + len(values), BATCH)
            low = promised(values, error, counted)
            if len(values) in LOOKS and low >= self.target:
                return TrialResult(passed=True, attainment=float(np.mean(values)), replications=len(values), low=low)
            if np.mean(values) < self.target and _within_reach(values, error, counted) < self.target:
                break
        mean = float(np.mean(values))
        undecided = mean >= self.target
        return TrialResult(passed=False, attainment=mean, replications=len(values), low=low, undecided=undecided)


def _error(attempt: int) -> float:
    """The error of one look of an attempt (1, 2, ...); over all looks and attempts they add up to ERROR."""
    return ERROR / (attempt * (attempt + 1)) / len(LOOKS)


def promised(values: Sequence[float], error: float, counted: float) -> float:
    """What the mean of RECHECKED further replications, each 1/LONGER as long, reaches.

    The t bound for the long-run mean at ``error``, less what the re-check itself varies by at NOISE, a replication
    1/LONGER as long varying LONGER times as much: both hold but for a chance of at most their sum (Bonferroni). Where
    no request missed there is no spread to go by: then at most -ln(error) / n of them do (Hanley and Lippman-Hand, JAMA
    249, 1983), n being ``counted`` requests a replication. No bound is above that one.
    """
    count = len(values)
    return min(float(np.mean(values)) - _margin(values, count, error), _ceiling(count, error, counted))


def _within_reach(values: Sequence[float], error: float, counted: float) -> float:
    """The bound at the last look if the mean turns out as high as it may be but for a chance of SHORTFALL."""
    count, last = len(values), LOOKS[-1]
    higher = float(student_t.ppf(1.0 - SHORTFALL, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return min(float(np.mean(values)) + higher - _margin(values, last, error), _ceiling(last, error, counted))


def _margin(values: Sequence[float], count: int, error: float) -> float:
    """Mean less bound for ``count`` replications that spread as these do."""
    of_mean = float(student_t.ppf(1.0 - error, count - 1)) / np.sqrt(count)
    of_recheck = float(student_t.ppf(1.0 - NOISE, count - 1)) * np.sqrt(LONGER / RECHECKED)
    return float(np.std(values, ddof=1) * (of_mean + of_recheck))


def _ceiling(count: int, error: float, counted: float) -> float:
    return 1.0 + float(np.log(error)) / (counted * count)


def attainments_of(scenario: Scenario, first: int, count: int) -> list[float]:
    """The attainments of replications ``first`` to ``first + count - 1``."""
    slo = scenario.plan.slo
    return [attainment_of(r.outcome, slo) for r in replications_of(scenario, first, count, causes=False)]
