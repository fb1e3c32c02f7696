"""Routing decisions one by one, through the router of live requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from routing.builders import CLOCKS, two_config_plan

from melange.errors import InputError
from melange.routing import Router, policy_by_name
from melange.slo import Slo


def routed(router: Router, count: int, output: int | None = None) -> Counter[str]:
    """Configs of requests that end at once, so that load never matters."""
    found: Counter[str] = Counter()
    for _ in range(count):
        route = router.route(60, output)
        assert route is not None
        found[route.config] += 1
        router.first_token(route)
        router.finished(route, output or 30)
    return found


def test_shares_are_followed_to_the_request():
    router = Router(two_config_plan(), CLOCKS, policy_by_name("shares:oracle"))
    assert routed(router, 400, 40) == {"small": 300, "large": 100}
    assert routed(router, 40, 300) == {"large": 40}


def test_without_output_lengths_a_config_serves_only_inputs_whose_every_output_it_can():
    # 'small' cannot serve the longer outputs, which nobody can rule out on arrival.
    assert routed(Router(two_config_plan(), CLOCKS, policy_by_name("shares")), 50) == {"large": 50}


def test_the_papers_policy_weighs_replicas_by_their_max_rate_at_the_running_mean():
    router = Router(two_config_plan(), CLOCKS, policy_by_name("paper"), seed=3)
    # The plan's mean output over the input bucket, (3 x 30 + 1 x 300) / 4, falls into the longer bucket at first ...
    assert routed(router, 1) == {"large": 1}
    # ... and finished requests of 30 tokens pull the mean below 50: then 4, 4 and 12 req/s share the requests.
    routed(router, 30)
    found = routed(router, 6000)
    assert found["large"] / 6000 == pytest.approx(12 / 20, abs=0.03)


def test_shares_spill_over_before_a_queue_builds():
    plan = two_config_plan(Slo(tpot_s=0.05), {"small": 1, "large": 1})
    only_small = replace(plan, buckets=(replace(plan.buckets[0], shares={"small": 1.0}), plan.buckets[1]))
    router = Router(only_small, CLOCKS, policy_by_name("shares:oracle"))
    chosen = [router.route(60, 40) for _ in range(60)]
    configs = [route.config for route in chosen if route is not None]
    assert configs[0] == "small"
    assert "large" in configs
    strict = Router(only_small, CLOCKS, policy_by_name("shares/least-tokens:oracle"))
    assert {route.config for route in (strict.route(60, 40) for _ in range(60)) if route} == {"small"}


def test_least_tokens_and_pressure_fill_evenly_and_round_robin_takes_turns():
    for name in ("least-tokens:oracle", "least-pressure:oracle", "shares/round-robin:oracle", "round-robin:oracle"):
        plan = two_config_plan(replicas={"small": 4})
        router = Router(plan, CLOCKS, policy_by_name(name))
        found = Counter(route.replica for route in (router.route(60, 40) for _ in range(40)) if route)
        assert sorted(found.values()) == [10, 10, 10, 10], name


def test_power_of_two_balances_better_than_random():
    def spread(name: str) -> float:
        router = Router(two_config_plan(replicas={"small": 10}), CLOCKS, policy_by_name(name), seed=1)
        found = Counter(route.replica for route in (router.route(60, 40) for _ in range(500)) if route)
        return float(np.std([found[r] for r in range(10)]))

    assert spread("power-of-two:oracle") < spread("random:oracle") / 2


def test_replicas_that_are_down_get_nothing():
    router = Router(two_config_plan(), CLOCKS, policy_by_name("shares:oracle"))
    router.down(0)
    assert {route.replica for route in (router.route(60, 40) for _ in range(30)) if route} == {1, 2}
    router.down(1)
    router.down(2)
    assert router.route(60, 40) is None
    router.up(2)
    assert router.route(60, 40).replica == 2


def test_an_oracle_without_a_prediction_is_refused():
    with pytest.raises(InputError, match="needs a predicted output length"):
        Router(two_config_plan(), CLOCKS, policy_by_name("shares:oracle")).route(60)
