"""One run over given requests."""

from __future__ import annotations

from dataclasses import replace

from melange.simulator.failures import FailureRule
from melange.simulator.run import play_fleet
from melange.simulator.simulate import (
    SimulationOptions,
    scenario_of,
)

QUICK = SimulationOptions(requests=1500, replications=3)


def test_replicas_end_empty_and_the_router_knows_it(plan, clocks):
    scenario = scenario_of(plan, None, replace(QUICK, failures=(FailureRule.parse("*~30+10"),)), clocks=clocks)
    played = play_fleet(
        scenario.table, [c.clock for c in scenario.clocks], scenario.policy, scenario.arrivals(0), seed=3, samples=50
    )
    assert (played.replicas.n_running == 0).all()
    assert (played.replicas.kv_tokens == 0).all()
    assert played.sampled[:, :, 2].min() >= 0
    assert played.sampled[:, :, 1].max() > 0
