"""Every GPU type alone, sized where a known function says which fleets pass."""

from __future__ import annotations

import numpy as np
import pytest
from judged_fleets import search_of

from melange.attainment import single_types
from melange.attainment.single_types import cheapest_single, report_singles, sized_singles
from melange.plan.promise import SizedFleet
from melange.solver.problem import GroupLimit, Problem

STRENGTH = np.array([0.05, 0.2, 0.4])


@pytest.fixture(autouse=True)
def all_keep_the_slo_alone(monkeypatch):
    monkeypatch.setattr(single_types, "lone_share", lambda search, configs=None: 1.0)
    # A judged plan is its counts.
    monkeypatch.setattr(single_types, "sized_fleet", lambda plan, result: plan)


def score(counts):
    return float(STRENGTH @ np.array(counts)) + 1e-9


def search_with(limits=(), guess_load=1.0, **options):
    """Machines a, b, c that pass alone from 20, 5 and 3; the program believes in ``guess_load`` as many."""
    problem = Problem(
        buckets=("x",),
        configs=("a", "b", "c"),
        instances=("a", "b", "c"),
        load=guess_load / STRENGTH[None, :],
        config_instance=np.arange(3),
        gpus_per_replica=np.ones(3),
        gpus_per_instance=np.ones(3),
        price_usd_per_hour=np.array([0.1, 0.5, 0.9]),
        limits=tuple(limits),
    )
    load = options.pop("least", 0.1 / STRENGTH[None, :])
    return search_of(problem, load, options.pop("score", score), **options)


@pytest.mark.parametrize("guess_load", [0.15, 0.5, 1.0, 2.0, 4.0])
def test_each_type_has_the_fewest_machines_that_pass_whatever_the_guess(guess_load):
    assert sized_singles(search_with(guess_load=guess_load)) == {"a": (20, 0, 0), "b": (0, 5, 0), "c": (0, 0, 3)}


def test_caps_floors_and_what_they_leave():
    cap = GroupLimit(name="cap", weights={"b": 1}, maximum=6)
    # The program asks for 20 of b; 6 may be rented, 5 do.
    assert sized_singles(search_with([cap], guess_load=4.0))["b"] == (0, 5, 0)
    low = GroupLimit(name="low", weights={"b": 1}, maximum=4)
    assert sized_singles(search_with([low]))["b"].reason == "no fleet of it alone looked like keeping the promise"
    floor = GroupLimit(name="floor", weights={"b": 1}, minimum=8)
    found = sized_singles(search_with([floor]))
    assert found["b"] == (0, 8, 0)
    assert found["a"].reason == found["c"].reason == "the limits allow no fleet of it alone"


def test_a_type_that_cannot_hold_the_requests_or_never_passes_says_so():
    least = 0.1 / STRENGTH[None, :]
    least[0, 0] = np.inf
    found = sized_singles(search_with(least=least, score=lambda counts: float(counts[2] >= 2)))
    assert found["a"].reason == "it cannot hold or carry the requests"
    assert found["b"].reason == "no fleet of it alone looked like keeping the promise"
    assert found["c"] == (0, 0, 2)


def test_a_type_that_keeps_the_slo_too_seldom_when_idle_is_not_simulated(monkeypatch):
    monkeypatch.setattr(single_types, "lone_share", lambda search, configs=None: 0.5 if configs == [1] else 1.0)
    search = search_with()
    assert "only 50.00% of the requests keep the SLO" in sized_singles(search)["b"].reason
    assert not any(counts[1] for counts in search.trials.asked)


def test_of_one_gpus_machines_the_cheapest_is_sized():
    # a and c carry the same GPU; c is dearer than 1.1 times a by the program's guess, so it is not looked at.
    search = search_with(gpus=("g", "b", "g"))
    assert sized_singles(search) == {"g": (20, 0, 0), "b": (0, 5, 0)}
    assert not any(counts[2] for counts in search.trials.asked)


def test_the_cheapest_that_stands_the_test_is_one_machine_larger_where_it_falls_short():
    search = search_with(strict=1.15)
    singles = sized_singles(search)
    # a: 20 and 21 pass a quick look and fail the test; b: 5 fails, 6 stands.
    assert cheapest_single(search, singles) == (0, 6, 0)
    assert [counts for counts, result in search.results.items() if result.low and result.passed] == [(0, 6, 0)]
    reported = report_singles_of(search, singles)
    assert reported["c"] == (0, 0, 3)
    assert reported["b"] == (0, 6, 0)


def test_none_where_none_stands_the_test():
    search = search_with(strict=9.0)
    singles = sized_singles(search)
    assert cheapest_single(search, singles) is None
    assert cheapest_single(search_with(), {}) is None


def report_singles_of(search, singles):
    """What is reported of each type: the counts of its fleet, or the reason."""
    return {
        gpu: fleet.reason if isinstance(fleet, SizedFleet) else fleet
        for gpu, fleet in report_singles(search, singles).items()
    }


def test_what_is_reported_is_what_the_whole_search_knows():
    search = search_with(strict=9.0)
    singles = sized_singles(search)
    for counts in ((20, 0, 0), (0, 5, 0)):
        search.confirm(counts)
    # Of a larger sizes passed a quick look on the way, or none did.
    for gpu, shown in report_singles_of(search, singles).items():
        assert shown == (0, 0, 3) if gpu == "c" else shown not in ((20, 0, 0), (0, 5, 0))


def test_a_spent_budget_leaves_the_dearer_types_unsized():
    search = search_with(most_fleets=1)
    found = sized_singles(search)
    assert found["a"] == (20, 0, 0)
    assert found["b"].reason == found["c"].reason == "the search ended before it was sized"
    assert list(found) == ["a", "b", "c"]
