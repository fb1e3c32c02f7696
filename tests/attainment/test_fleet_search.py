"""The search below the best cost, against brute force where a known function says which fleets pass."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from judged_fleets import search_of

from melange.attainment import fleet_search
from melange.attainment.fleet_search import cheapest, first_passing, spot_check
from melange.attainment.fleets import allowed, dominates, fleet_cost
from melange.errors import InfeasibleError
from melange.solver.problem import GroupLimit, Problem


def problem_of(load, prices, limits=(), budget=None):
    load = np.array(load, dtype=float)
    names = tuple("abcd"[: len(prices)])
    return Problem(
        buckets=tuple(f"b{b}" for b in range(len(load))),
        configs=names,
        instances=names,
        load=load,
        config_instance=np.arange(len(prices)),
        gpus_per_replica=np.ones(len(prices)),
        gpus_per_instance=np.ones(len(prices)),
        price_usd_per_hour=np.array(prices),
        limits=tuple(limits),
        max_cost_usd_per_hour=budget,
    )


def drawn(seed, **options):
    """Machines whose true strength is not what the program believes, some with limits."""
    draw = np.random.default_rng(seed)
    n = int(draw.integers(2, 4))
    strength = draw.uniform(0.1, 0.5, size=n)
    prices = np.round(strength * draw.uniform(2, 5, size=n), 2)
    load = draw.uniform(0.5, 1.5, size=(2, n)) / strength / 2
    limits = []
    if draw.random() < 0.5:
        limits.append(GroupLimit(name="cap", weights={"a": 1, "b": 2}, maximum=12))
    if draw.random() < 0.3:
        limits.append(GroupLimit(name="floor", weights={"b": 1}, minimum=1))
    bonus = float(draw.uniform(0, 0.1))

    def score(counts):
        return float(strength @ np.array(counts)) + bonus * min(counts)

    # At the least time that requests take, no passing fleet is out of reach: score >= 1 means twice carried.
    least = np.tile(0.25 / (strength + bonus), (2, 1))
    problem = problem_of(load, prices, limits, budget=8.0 if draw.random() < 0.3 else None)
    return search_of(problem, least, score, strict=float(draw.choice([1.0, 1.15])), **options)


def every_fleet(search, below_usd):
    problem = search.problem
    ranges = [range(int(below_usd / price) + 2) for price in problem.price_usd_per_hour]
    for counts in product(*ranges):
        if any(counts) and fleet_cost(problem, counts) < below_usd * (1 - 1e-9) and allowed(problem, counts):
            yield counts


@pytest.mark.parametrize("seed", range(25))
def test_the_answer_is_the_cheapest_of_brute_force_and_every_cheaper_fleet_is_ruled_out(seed):
    search = drawn(seed)
    good = [counts for counts in every_fleet(search, 12.0) if search.trials.score(counts) >= search.trials.strict]
    best = cheapest(search, None)
    assert search.cost(best) == pytest.approx(min(map(search.cost, good)))
    assert search.results[best].low is not None
    assert search.complete
    assert search.not_ruled_out == ()
    shut = [*search.failed, *search.overloaded]
    for counts in every_fleet(search, search.cost(best)):
        ruled_out = any(dominates(larger, counts) for larger in shut)
        assert ruled_out or search.model.least.exact(np.array(counts)) < 1, counts
    assert spot_check(search, best) == []
    assert search.complete


@pytest.mark.parametrize("seed", range(12))
def test_machines_that_cost_nothing_come_first_and_the_answer_is_that_of_brute_force(seed):
    search = drawn(seed)
    owned = int(np.random.default_rng(seed).integers(1, 7))
    problem = search.problem
    prices = problem.price_usd_per_hour.copy()
    prices[0] = 0.0
    limits = (*problem.limits, GroupLimit(name="owned", weights={"a": 1}, maximum=owned))
    changed = replace(problem, price_usd_per_hour=prices, limits=limits)
    least = np.array(search.model.least.problem.load)
    search = search_of(changed, least, search.trials.score, strict=search.trials.strict)
    ranges = [range(owned + 1), *(range(int(12 / price) + 2) for price in prices[1:])]
    good = [
        c for c in product(*ranges) if any(c) and allowed(changed, c) and search.trials.score(c) >= search.trials.strict
    ]
    best = cheapest(search, None)
    assert search.cost(best) == pytest.approx(min(map(search.cost, good)))
    assert search.complete


def test_any_confirmed_fleet_will_do_to_start_from():
    one = drawn(3)
    best = cheapest(one, None)
    # The dearest start: enough of everything.
    other = drawn(3)
    start = (9, 1) if len(best) == 2 else (9, 1, 5)
    assert other.screen([start]) == [True]
    assert other.confirm(start)
    assert other.cost(cheapest(other, start)) == pytest.approx(one.cost(best))


def test_the_answer_does_not_hang_on_jobs():
    one, four = drawn(5), drawn(5, jobs=4)
    assert cheapest(one, None) == cheapest(four, None)
    assert one.results == four.results
    assert list(one.results) == list(four.results)


def test_what_passed_a_quick_look_and_was_not_confirmed_is_not_ruled_out():
    # As single types are sized: both pass a quick look, the dearer one was confirmed; neither holds one more.
    search = search_of(problem_of([[1.0, 1.0]], [2.0, 2.5]), [[0.1, 0.1]], lambda counts: 1.0 if any(counts) else 0.0)
    search.screen([(1, 0), (0, 1)])
    search.confirm((0, 1))
    assert cheapest(search, (0, 1)) == (1, 0)
    assert search.results[(1, 0)].low is not None


def test_machines_that_cannot_hold_a_size_end_no_search_in_a_loop():
    load = [[1.0, 0.5], [np.inf, 0.5]]
    search = search_of(problem_of(load, [0.5, 3.0]), load, lambda counts: float(counts[1] >= 1))
    assert cheapest(search, None) == (0, 1)
    assert search.complete
    assert all(counts[1] for counts in search.trials.asked)


def test_what_has_no_plan_is_not_asked_for_again():
    problem = problem_of([[1.0, 0.5]], [0.5, 3.0])
    search = search_of(problem, problem.load, lambda counts: float(counts[1] >= 1))
    search.ground.plan = lambda counts: counts if counts[1] else None
    assert cheapest(search, (0, 1)) == (0, 1)
    assert search.complete


def test_fleets_overloaded_long_ago_do_not_shrink_the_batches(monkeypatch):
    search = search_of(problem_of([[1.0, 1.0, 1.0]], [1.0, 1.3, 1.7]), [[0.1] * 3], lambda counts: sum(counts) / 6)
    search.overloaded = {(1000 + n, 0, 0) for n in range(100)}
    batches = []
    screen = fleet_search.FleetSearch.screen

    def counted(self, fleets):
        batches.append(len(fleets))
        return screen(self, fleets)

    monkeypatch.setattr(fleet_search.FleetSearch, "screen", counted)
    assert cheapest(search, (0, 0, 6)) == (6, 0, 0)
    assert max(batches) == fleet_search.BATCH


def test_a_budget_that_is_spent_says_what_was_not_ruled_out():
    whole = drawn(2)
    cheapest(whole, None)
    start = (9, 1) if len(whole.problem.instances) == 2 else (9, 1, 5)
    for options in ({"most_fleets": 2}, {"most_requests": 3000}):
        search = drawn(2, **options)
        search.screen([start])
        search.confirm(start)
        best = cheapest(search, start)
        assert search.is_spent
        assert not search.complete
        assert search.not_ruled_out
        costs = [search.cost(counts) for counts in search.not_ruled_out]
        assert costs == sorted(costs)
        assert costs[-1] < search.cost(best)
        assert not any(dominates(failed, counts) for failed in search.failed for counts in search.not_ruled_out)


@pytest.mark.parametrize("most", [3, 6, 10])
def test_a_search_ends_within_a_batch_of_its_budget(most):
    search = drawn(7, most_fleets=most)
    first = first_passing(search)
    before = len(search.results)
    cheapest(search, first)
    assert len(search.results) <= max(before, most + fleet_search.BATCH)


def test_too_many_fleets_are_looked_for_around_the_best_and_nothing_is_proven(monkeypatch):
    monkeypatch.setattr(fleet_search, "MOST_MAXIMAL", 1)
    search = drawn(4)
    first = first_passing(drawn(4))
    best = cheapest(search, None)
    assert not search.complete
    assert search.cost(best) <= search.cost(first)


def test_where_no_fleet_passes_it_says_how_near_the_best_came():
    problem = problem_of([[1.0, 1.0]], [1.0, 2.0], [GroupLimit(name="few", weights={"a": 1, "b": 1}, maximum=3)])
    search = search_of(problem, [[0.1, 0.1]], lambda counts: 0.1 * sum(counts))
    with pytest.raises(InfeasibleError, match=r"confirmed to attain 99%: the best that was simulated reached 8\d\.\d"):
        cheapest(search, None)
    overloaded = search_of(problem, [[9.0, 9.0]], lambda counts: 1.0)
    with pytest.raises(InfeasibleError, match="none can carry the demand"):
        cheapest(overloaded, None)
    assert not overloaded.trials.asked


def test_a_spot_check_finds_what_breaks_the_assumption():
    # Two of a fail where one passes: larger is not better here.
    problem = problem_of([[1.0, 1.0]], [1.0, 2.5])
    search = search_of(problem, [[0.1, 0.1]], lambda counts: float(counts in {(1, 0), (0, 1)}))
    search.screen([(0, 1)])
    search.confirm((0, 1))
    assert cheapest(search, (0, 1)) == (0, 1)
    assert search.complete
    assert spot_check(search, (0, 1)) == [(1, 0)]
    assert (search.cut_off, search.spot_checked, search.complete) == (1, 1, False)


def test_a_spot_check_looks_only_at_what_was_ruled_out_below_the_best_cost():
    search = search_of(problem_of([[1.0, 1.0]], [1.0, 2.5]), [[0.1, 0.1]], lambda counts: counts[0] / 3)
    search.screen([(0, 4), (2, 0)])
    assert spot_check(search, (3, 0)) == []
    assert search.cut_off == search.spot_checked == 1


def test_progress_says_what_is_left_and_what_came_of_each_fleet():
    lines = []
    search = drawn(0)
    search.progress = lines.append
    cheapest(search, None)
    assert any("to rule out" in line for line in lines)
    assert sum("attainment" in line for line in lines) >= len(search.results)


def test_limits_hold_for_every_fleet_that_is_simulated_below_the_best():
    search = drawn(6)
    limited = replace(search.problem, limits=(GroupLimit(name="floor", weights={"b": 1}, minimum=2),))
    search = search_of(limited, search.model.least.problem.load, search.trials.score)
    best = cheapest(search, None)
    assert best[1] >= 2
    assert all(counts[1] >= 2 for counts in search.trials.asked)
