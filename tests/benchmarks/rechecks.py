"""What somebody else finds who plays a promised plan again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.attainment.trial import RECHECKED, Trials
from melange.plan.plan import Plan
from melange.simulator.metrics import attainment_of
from melange.simulator.simulate import replications_of


def recheck(plan: Plan, trials: Trials, seed: int) -> float:
    """Mean attainment of a plan on seeds that no trial has used."""
    scenario = replace(trials, options=replace(trials.options, seed=seed)).scenario(plan)
    played = replications_of(scenario, 0, RECHECKED, causes=False)
    return float(np.mean([attainment_of(r.outcome, plan.slo) for r in played]))
