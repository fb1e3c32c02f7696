from __future__ import annotations

from dataclasses import replace

import pytest

from melange import InputError, plan_fleet


def test_replicas_of_an_unknown_config_are_refused(small_spec):
    with pytest.raises(InputError, match="replicas of 'B200'"):
        replace(plan_fleet(small_spec), replicas={"B200": 1})


def test_savings_are_those_of_the_best_single_type(small_spec):
    plan = plan_fleet(small_spec)
    assert plan.best_single_type is not None
    assert plan.savings == plan.baselines[plan.best_single_type].savings
    assert replace(plan, best_single_type=None).savings is None


def test_the_grid_is_the_workloads_or_that_of_the_buckets(small_spec):
    plan = plan_fleet(small_spec)
    assert plan.grid == small_spec.workload.grid
    unsaid = replace(plan.workload, input_edges_tokens=None, output_edges_tokens=None)
    assert replace(plan, workload=unsaid).grid == small_spec.workload.grid
    sizeless = tuple(replace(bucket, input_tokens_max=None) for bucket in plan.buckets)
    for buckets in (sizeless, ()):
        with pytest.raises(InputError, match="buckets have no sizes"):
            replace(plan, buckets=buckets).grid  # noqa: B018
