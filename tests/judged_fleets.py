"""Searches in which a known function of the fleet says whether it keeps the promise, and no request is simulated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np

from melange.attainment.fleet_search import FleetSearch
from melange.attainment.surrogate import MissModel
from melange.attainment.trial import TrialResult
from melange.simulator.simulate import SimulationOptions
from melange.solver.problem import Problem

TARGET = 0.99
Score = Callable[[tuple[int, ...]], float]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Trials of fleets by their score: 1 passes a quick look, ``strict`` the confirming test."""

    target: float
    options: SimulationOptions
    score: Score
    strict: float = 1.0
    asked: list[tuple[int, ...]] = field(default_factory=list)

    def screen(self, plan):
        self.asked.append(plan)
        score = self.score(plan)
        attainment = 1 - (1 - self.target) * float(np.exp(np.clip(-4 * (score - 1), -4, 4)))
        return TrialResult(passed=score >= 1, attainment=attainment, replications=4)

    def confirm(self, plan, attempt):
        return replace(self.screen(plan), passed=self.score(plan) >= self.strict, replications=24, low=0.99)


def search_of(
    problem: Problem, least_load, score: Score, *, strict=1.0, requests=100, jobs=1, most_requests=10**9,
    most_fleets=10**6, gpus=None,
) -> FleetSearch:  # fmt: skip
    """A search over a problem's fleets; GPUs are named like the machines unless ``gpus`` says otherwise."""
    least = replace(problem, load=np.array(least_load, dtype=float))
    keys = problem.instances
    offers = [SimpleNamespace(gpu=gpu, key=key, owned=False) for gpu, key in zip(gpus or keys, keys, strict=True)]
    ground = SimpleNamespace(
        in_time=problem,
        least=least,
        plan=lambda counts, baselines=None, degree=None: counts if any(counts) else None,
        other_degrees=lambda counts: [],
        choices=SimpleNamespace(offers=offers),
        clocks={},
    )
    options = SimulationOptions(requests=requests, jobs=jobs)
    return FleetSearch(
        ground=ground,
        trials=Judge(target=TARGET, options=options, score=score, strict=strict),
        arrivals=None,
        model=MissModel(problem, least, TARGET),
        progress=lambda line: None,
        most_requests=most_requests,
        most_fleets=most_fleets,
    )
