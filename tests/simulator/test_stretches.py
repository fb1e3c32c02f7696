"""Stretches of time: each its own rate and mix, none of what another holds."""

from __future__ import annotations

import numpy as np
import pytest

from melange.errors import InputError
from melange.simulator.arrivals import Process, Sizes
from melange.simulator.stretches import drawn_stretches, stretches_of

SIZES = Sizes(tokens=np.array([[10.0, 5.0, 0.0], [200.0, 50.0, 0.0]]), probability=np.array([0.5, 0.5]), source="")


@pytest.mark.parametrize("process", ["poisson", "gamma:3", "gamma:0.3"])
def test_each_stretch_has_its_rate_and_mix(process):
    rates = np.array([[4.0, 0.0], [0.0, 0.0], [3.0, 9.0]])
    stretches = stretches_of(rates, [1000.0, 500.0, 2000.0])
    drawn = drawn_stretches(stretches, SIZES, Process.parse(process), np.random.default_rng(3))
    counts = np.histogram(drawn.arrival_s, [0, 1000, 1500, 3500])[0]
    assert counts == pytest.approx([4000, 0, 24000], rel=0.1)
    assert set(drawn.input_tokens[: counts[0]].tolist()) == {10}
    assert (drawn.input_tokens[counts[0] :] == 200).mean() == pytest.approx(0.75, abs=0.02)
    assert drawn.arrival_s.max() < 3500


def test_the_same_seed_draws_the_same():
    stretches = stretches_of(np.array([[4.0, 1.0]]), [100.0])
    one, other = (
        drawn_stretches(stretches, SIZES, Process(kind="poisson"), np.random.default_rng(7)) for _ in range(2)
    )
    assert np.array_equal(one.arrival_s, other.arrival_s)
    assert np.array_equal(one.input_tokens, other.input_tokens)


def test_nothing_at_all_is_refused():
    with pytest.raises(InputError, match="no requests"):
        drawn_stretches(
            stretches_of(np.zeros((2, 2)), [1.0, 1.0]), SIZES, Process(kind="poisson"), np.random.default_rng(0)
        )
