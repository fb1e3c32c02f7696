from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange import InputError


def test_token_rates_use_true_means(small_spec):
    w = small_spec.workload
    assert w.total_rate_rps == pytest.approx(3.5)
    assert w.input_tokens_per_s == pytest.approx(2 * 60 + 1 * 60 + 0.5 * 600)
    assert w.output_tokens_per_s == pytest.approx(2 * 50 + 1 * 250 + 0.5 * 50)


def test_at_rate_keeps_the_mix(small_spec):
    twice = small_spec.workload.at_rate(7.0)
    assert twice.rate_rps == pytest.approx(small_spec.workload.rate_rps * 2)


def test_representative_sizes(small_spec):
    upper = replace(small_spec.workload, representative="upper_edge").representative_tokens()
    assert upper[0].tolist() == [[100, 100], [1000, 1000]]
    assert small_spec.workload.representative_tokens()[0][0, 0] == pytest.approx(60)


def test_arrays_are_read_only_copies(small_spec):
    with pytest.raises(ValueError, match="read-only"):
        small_spec.workload.rate_rps[0, 0] = 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate_rps": np.array([[-1.0, 0], [0, 0]])}, "rate is -1"),
        ({"rate_rps": np.array([[np.nan, 0], [0, 0]])}, "rate is nan"),
        ({"rate_rps": np.zeros((2, 2))}, "empty"),
        ({"rate_rps": np.zeros((2, 3))}, "shape"),
        ({"mean_input_tokens": np.full((2, 2), np.nan)}, "mean_input_tokens"),
        ({"mean_output_tokens": np.full((2, 2), 400.0)}, "above its bucket's edge"),
        ({"representative": "median"}, "representative"),
    ],
)
def test_impossible_workloads_are_refused(small_spec, change, message):
    with pytest.raises(InputError, match=message):
        replace(small_spec.workload, **change)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_bad_rates(small_spec, rate):
    with pytest.raises(InputError, match="rate"):
        small_spec.workload.at_rate(rate)
