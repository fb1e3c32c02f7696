"""A fleet beside what a trial found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from routing.builders import two_config_plan

from melange.attainment.promise import sized_fleet
from melange.attainment.trial import TrialResult


def test_headroom_is_what_capacity_exceeds_the_mean_load_by():
    plan = replace(two_config_plan(), instances={"small": 2, "large": 1}, utilization={"small": 0.8, "large": 0.0})
    fleet = sized_fleet(plan, TrialResult(passed=True, attainment=0.995, replications=16, low=0.991))
    assert fleet.headroom == {"small": pytest.approx(0.25)}
    assert (fleet.attainment, fleet.attainment_low, fleet.cost_usd_per_hour) == (0.995, 0.991, 3.0)
    assert (fleet.instances, fleet.replicas) == ({"small": 2, "large": 1}, {"small": 2, "large": 1})
