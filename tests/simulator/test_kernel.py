"""Failures in the middle of an iteration, and what the router knows at the end."""

from __future__ import annotations

import numpy as np
import pytest
from routing.builders import CLOCKS, two_config_plan
from simulator.builders import arrivals, poisson, server

from melange.routing import policy_by_name, routing_table
from melange.simulator.failures import Outage
from melange.simulator.kernel import play
from melange.simulator.run import new_run, play_fleet


def test_an_iteration_that_a_failure_cuts_short_is_busy_until_then():
    # One request of one second; its replica fails after a quarter of it, and serves it whole a second later.
    plan = two_config_plan(replicas={"large": 1})
    table = routing_table(plan, {"large": server(1.0)})
    down = [Outage(replica=0, at_s=0.25, down_s=1.0)]
    played = play_fleet(table, [server(1.0)], policy_by_name("random"), arrivals([0.0], 10, 1), outages=down)
    assert played.requests.end_s[0] == pytest.approx(2.25)
    assert played.replicas.busy_s[0] == pytest.approx(0.25 + 1.0)


@pytest.mark.parametrize("down_s", [3.0, None])
def test_the_router_counts_nothing_in_flight_at_the_end(down_s):
    draw = np.random.default_rng(0)
    coming = arrivals(poisson(9.0, 200, 1), draw.integers(1, 101, 200), draw.integers(1, 501, 200))
    table = routing_table(two_config_plan(), CLOCKS)
    down = [Outage(replica=2, at_s=5.0, down_s=3.0), Outage(replica=0, at_s=6.0, down_s=down_s)]
    run = new_run(table, list(CLOCKS.values()), coming, outages=down)
    play(run, policy_by_name("shares:oracle").codes())
    assert run.machines.requests.restarts.sum() > 0
    assert not np.isnan(run.machines.requests.end_s).any()
    for counted in (
        run.routing.requests,
        run.routing.input_tokens,
        run.routing.output_tokens,
        run.routing.prompt_tokens,
    ):
        np.testing.assert_allclose(counted, 0.0, atol=1e-9)
