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


def test_what_is_late_by_design_is_routed_at_its_rate_without_the_limit():
    plan = two_config_plan()
    longer = replace(plan.buckets[1], shares={"large": 0.75}, late_shares={"small": 0.25}, late_rate_rps={"small": 1.5})
    table = routing_table(replace(plan, buckets=(plan.buckets[0], longer)), CLOCKS)
    np.testing.assert_allclose(table.shares[1], [0.25, 0.75])
    np.testing.assert_allclose(table.max_rate_rps[1], [1.5, 2.0])
    # A router that does not know output lengths may send either to small.
    assert table.max_rate_rps[2, 0] > 0
    # Without a rate in the plan: at the least time that the requests take.
    bare = replace(longer, late_rate_rps={}, load_input_tokens=60.0, load_output_tokens=300.0)
    assert routing_table(replace(plan, buckets=(plan.buckets[0], bare)), CLOCKS).max_rate_rps[1, 0] > 0
