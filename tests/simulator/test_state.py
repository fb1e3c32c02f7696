"""The arrays of the compiled simulation."""

from __future__ import annotations

import numpy as np
import pytest
from simulator.builders import clock

from melange.errors import InputError
from melange.simulator.state import NEVER, new_machines, new_requests


def requests():
    return new_requests(np.array([0.0, 1.0]), np.array([700, 5]), np.array([9, 1]), np.array([0, 2]))


def test_nothing_has_happened_yet():
    made = requests()
    assert np.isnan(made.end_s).all()
    assert made.replica.tolist() == [-1, -1]
    machines = new_machines([clock(), clock(kv_capacity_tokens=330)], np.array([1, 0, 0]), made)
    assert machines.replicas.free_blocks.tolist() == [330 // 16, 1000, 1000]
    assert (machines.replicas.next_finish == NEVER).all()
    # Time of an iteration for every number of tokens up to the longest request's, 709, and on to a power of two.
    assert machines.step_s.shape == (2, 1024)


def test_an_iteration_holds_a_token_of_every_sequence():
    with pytest.raises(InputError, match="batches 8 tokens but 32 sequences"):
        new_machines([clock(max_batched_tokens=8)], np.array([0]), requests())
