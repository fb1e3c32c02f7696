"""The arrays of a plan that a routing decision reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from routing.builders import CLOCKS, two_config_plan

from melange.errors import InputError
from melange.routing import routing_table


def test_a_bucket_without_demand_takes_the_nearest_ones_shares():
    plan = two_config_plan()
    wider = replace(plan.workload, input_edges_tokens=(100, 200))
    table = routing_table(replace(plan, workload=wider), CLOCKS)
    np.testing.assert_allclose(table.shares[2], [0.75, 0.25])
    np.testing.assert_allclose(table.shares.sum(axis=1), 1.0)
    np.testing.assert_allclose(table.max_rate_rps[4], [0.0, 1 / (0.75 / 12 + 0.25 / 2)])


def test_a_plan_without_sizes_cannot_be_routed():
    plan = two_config_plan()
    unsized = replace(plan.workload, input_edges_tokens=None, output_edges_tokens=None)
    blank = replace(plan, workload=unsized, buckets=tuple(replace(b, input_tokens_max=None) for b in plan.buckets))
    with pytest.raises(InputError, match="no sizes"):
        routing_table(blank, CLOCKS)
