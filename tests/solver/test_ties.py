"""Ties in cost: slack first, unless a kind of replica less has nearly as much; status, cost and bound stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.solver.checker import violations
from melange.solver.problem import GroupLimit, Problem
from melange.solver.search import solve
from melange.solver.ties import WORTH, with_most_slack


def boxes(load, *, singles=False, **more):
    """TP 1, 2 and 4 on boxes of four GPUs; ``singles``: also TP 1 on machines of one, at a quarter of the price."""
    return Problem(
        buckets=tuple(f"b{b}" for b in range(len(load))),
        configs=("tp1", "tp2", "tp4", *(("single",) if singles else ())),
        instances=("box", *(("one",) if singles else ())),
        load=np.array(load),
        config_instance=np.array([0, 0, 0, *((1,) if singles else ())]),
        gpus_per_replica=np.array([1, 2, 4, *((1,) if singles else ())]),
        gpus_per_instance=np.array([4, *((1,) if singles else ())]),
        price_usd_per_hour=np.array([4.0, *((1.0,) if singles else ())]),
        **more,
    )


def given(problem, replicas, instances):
    """A solution with these replicas, everything on the first of them."""
    shares = np.zeros(problem.load.shape)
    shares[:, int(np.flatnonzero(replicas)[0])] = 1.0
    found = solve(problem)
    return replace(found, replicas=np.array(replicas), instances=np.array(instances), shares=shares, late_shares=None)


def test_the_replicas_with_the_most_slack_take_a_machine():
    problem = boxes([[np.inf, 0.8, 0.5]])
    best = with_most_slack(problem, given(problem, [0, 0, 1], [1]))
    assert best.replicas.tolist() == [0, 2, 0]
    assert best.cost_usd_per_hour == 4.0
    assert best.status == "optimal"


@pytest.mark.parametrize(("apart", "kinds"), [(0.5 * WORTH, 1), (2 * WORTH, 2)])
def test_another_kind_must_be_worth_it(apart, kinds):
    """One bucket suits TP 2, the other TP 1: together they run at 0.4; TP 2 alone at 0.4 / (1 - apart)."""
    alone = 2 * 0.4 / (1 - apart)
    problem = boxes([[9.0, 0.4, np.inf], [0.8, alone - 0.4, np.inf]])
    best = with_most_slack(problem, given(problem, [0, 2, 0], [1]))
    assert np.count_nonzero(best.replicas) == kinds


def test_small_machines_give_way_to_a_large_one_of_their_price_where_it_has_more_slack():
    problem = boxes([[4.0, 0.9, np.inf, 3.2]], singles=True)
    best = with_most_slack(problem, given(problem, [0, 0, 0, 4], [0, 4]))
    assert best.instances.tolist() == [1, 0]
    assert best.replicas.tolist() == [0, 2, 0, 0]


def test_no_limit_is_broken_for_slack():
    limit = GroupLimit(name="no boxes", weights={"box": 1}, maximum=0)
    problem = boxes([[4.0, 0.9, np.inf, 3.2]], singles=True, limits=(limit,))
    before = given(problem, [0, 0, 0, 4], [0, 4])
    assert with_most_slack(problem, before).instances.tolist() == [0, 4]


def test_slices_stay_slices():
    problem = boxes([[np.inf, 0.8, 0.5], [np.inf, 0.3, 0.2]], slice_factor=3)
    best = with_most_slack(problem, given(problem, [0, 0, 1], [1]))
    assert best.replicas.tolist() == [0, 2, 0]
    assert np.allclose(best.shares * 3, np.rint(best.shares * 3))


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_on_drawn_problems(seed):
    draw = np.random.default_rng(seed)
    problem = boxes(draw.uniform(0.3, 4, size=(4, 4)), singles=True)
    before = solve(problem)
    best = with_most_slack(problem, before)
    assert not violations(problem, best)
    assert best.cost_usd_per_hour == before.cost_usd_per_hour
    assert float(problem.price_usd_per_hour @ best.instances) == pytest.approx(before.cost_usd_per_hour)


def test_without_a_fleet_nothing_changes():
    problem = boxes([[9.0, 9.0, 9.0]], max_cost_usd_per_hour=1.0)
    found = solve(problem)
    assert with_most_slack(problem, found) is found
