"""Which fleets are likely to pass: what is believed before any was simulated, and what is learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.attainment.surrogate import FAR, UNSERVED, MissModel
from melange.solver.problem import Problem

TARGET = 0.99


@pytest.fixture
def in_time():
    return Problem(
        buckets=("short", "long"),
        configs=("small", "large"),
        instances=("small", "large"),
        load=np.array([[2.0, 1.0], [np.inf, 1.0]]),
        config_instance=np.array([0, 1]),
        gpus_per_replica=np.array([1, 1]),
        gpus_per_instance=np.array([1, 1]),
        price_usd_per_hour=np.array([1.0, 3.0]),
    )


@pytest.fixture
def model(in_time):
    return MissModel(in_time, replace(in_time, load=np.array([[1.0, 0.5], [1.0, 0.5]])), TARGET)


def learned(model, *fleets):
    """The model once the prices of these fleets are known, and nothing else."""
    for counts in fleets:
        for capacity in model.capacities:
            capacity.exact(np.array(counts))
    return model


def test_before_any_fleet_was_simulated_more_machines_are_likelier_to_pass(model):
    fleets = np.array([[0, 1], [0, 2], [0, 4], [0, 8]])
    learned(model, (0, 2))
    predicted = model.predict(fleets)
    assert (np.diff(predicted) < 0).all()


def test_what_carries_the_demand_just_once_under_the_limit_passes_just_so(in_time):
    model = learned(MissModel(in_time, in_time, TARGET), (0, 2))
    # Where limit and least agree, two large machines carry either size, once.
    assert model.predict(np.array([[0, 2]]))[0] == pytest.approx(0, abs=1e-5)


def test_a_fleet_that_was_simulated_is_then_known_and_others_like_it_are_believed_alike(model):
    learned(model, (0, 2), (0, 3))
    before = model.predict(np.array([[0, 2], [0, 3]]))
    model.observe(np.array([0, 2]), 0.80)
    after = model.predict(np.array([[0, 2], [0, 3]]))
    assert after[0] > 1.0 > 0.0 > before[0]
    assert after[1] > before[1]


def test_it_learns_the_true_order_where_the_prior_has_it_wrong(in_time):
    # In truth the loads under the limit tell nothing, and the least loads all: small machines are as good as large.
    least = replace(in_time, load=np.array([[1.0, 1.0], [1.0, 1.0]]))
    model = MissModel(in_time, least, TARGET)
    good, bad = np.array([5, 1]), np.array([0, 3])
    learned(model, tuple(good), tuple(bad))

    def order():
        return np.diff(model.predict(np.array([good, bad])))[0]

    before = order()
    for small, large in ((0, 2), (1, 2), (2, 2), (4, 1), (6, 1), (0, 4), (3, 0), (6, 0), (2, 1)):
        misses = 0.01 * float(np.exp(-6 * np.log((small + large) / 4)))
        model.observe(np.array([small, large]), 1 - min(misses, 1.0))
    assert order() > max(before, 0)


def test_a_size_that_nobody_serves_in_time_hides_no_other(model):
    strict = model.capacities[0].problem.load
    assert strict.tolist() == [[2.0, 1.0], [UNSERVED, 1.0]]
    assert model.least is model.capacities[2]


def test_misses_far_from_what_is_allowed_are_all_alike(in_time):
    predicted = []
    for attainment in (0.0, 0.5, 1 - 0.01 * np.exp(FAR)):
        model = MissModel(in_time, in_time, TARGET)
        model.observe(np.array([0, 2]), attainment)
        predicted.append(float(model.predict(np.array([[0, 2]]))[0]))
    assert predicted == pytest.approx([predicted[0]] * 3)
