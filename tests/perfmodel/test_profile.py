"""The sizes of estimated profiles, and the cached tokens that they assume at them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.perfmodel.profile import cached_tokens_at, profile_sizes


def test_sizes_reach_the_largest_request(small_spec):
    inputs, outputs = profile_sizes(small_spec.workload)
    assert inputs[-1] >= 600
    assert outputs[-1] >= 250
    edges = replace(small_spec.workload, representative="upper_edge")
    inputs, outputs = profile_sizes(edges)
    assert {100.0, 1000.0} <= set(inputs)
    assert {100.0, 500.0} <= set(outputs)


def test_the_cached_share_grows_with_the_prompt(small_spec):
    workload = replace(small_spec.workload, mean_cached_tokens=small_spec.workload.mean_input_tokens * 0.5)
    np.testing.assert_allclose(cached_tokens_at(workload, [50, 500, 5000]), [25, 250, 2500])
