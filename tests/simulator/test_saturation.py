"""Throughput of a replica that is never short of requests, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from simulator.builders import clock, server

from melange.simulator.saturation import saturation_rps


def test_one_request_at_a_time_takes_an_iteration_for_each_token():
    rates = saturation_rps(server(2e-3), np.array([10.0, 10.0]), np.array([1.0, 40.0]))
    assert rates.tolist() == pytest.approx([1 / 2e-3, 1 / 80e-3], rel=1e-6)


def test_a_batch_shares_its_steps():
    alone, many = (saturation_rps(clock(max_num_seqs=n), np.array([50.0]), np.array([60.0]))[0] for n in (1, 16))
    assert 4 * alone < many < 16 * alone
