"""The iteration-time formula by hand, and its validation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from melange.errors import InputError
from melange.perfmodel.clock import StepClock, causal_pairs, stacked

BASE = {
    "overhead_s": 2e-3,
    "per_sequence_s": 1e-5,
    "per_request_s": 1e-3,
    "weights_s": 4e-3,
    "kv_read_s_per_token": 1e-7,
    "compute_s_per_token": 2e-5,
    "attention_s_per_pair": 1e-9,
    "kv_capacity_tokens": 1000,
}


def test_an_iteration_by_hand():
    c = StepClock(
        **BASE, other_s_per_token=1e-6, collective_s=5e-4, collective_s_per_token=2e-6, overlap_exponent=math.inf
    )
    # 10 decodes over 5000 cached tokens with a chunk of 290 of 2 prompts, one of them new, 42,000 pairs:
    # host 2 + 12 x 0.01 + 1 = 3.12 ms; network 0.5 + 300 x 0.002 = 1.1 ms; GEMM max(4, 300 x 0.02 = 6) = 6 ms;
    # attention 5000 x 0.1 us + 42,000 x 1 ns = 0.542 ms; other 300 x 1 us = 0.3 ms.
    duration = c.iteration_s(
        decodes=10, kv_tokens=5000, prefill_tokens=290, prefill_pairs=42_000, prefills=2, new_requests=1
    )
    assert float(duration) == pytest.approx(3.12e-3 + 1.1e-3 + 6e-3 + 0.542e-3 + 0.3e-3)


@pytest.mark.parametrize(("exponent", "gemm_ms"), [(1.0, 8.0), (2.0, math.sqrt(32)), (math.inf, 4.0)])
def test_overlap_between_reading_weights_and_computing(exponent, gemm_ms):
    # 200 tokens: 4 ms of reading, 4 ms of computing.
    assert float(StepClock(**BASE, overlap_exponent=exponent).gemm_s(200)) == pytest.approx(gemm_ms * 1e-3)


def test_distinct_experts_are_what_random_routing_touches():
    c = StepClock(**BASE, expert_weights_s=8e-3, expert_share=2 / 8)
    rng = np.random.default_rng(0)
    for tokens in (1, 3, 10):
        touched = np.mean(
            [len(set(np.concatenate([rng.choice(8, 2, replace=False) for _ in range(tokens)]))) for _ in range(4000)]
        )
        assert float(c.weights_read_s(tokens)) == pytest.approx(4e-3 + 8e-3 * touched / 8, rel=0.01)


def test_causal_pairs_counts_what_each_query_sees():
    assert float(causal_pairs(3)) == 1 + 2 + 3
    assert float(causal_pairs(3, 10)) == 11 + 12 + 13


def test_stacked_clocks_answer_as_each_alone():
    clocks = [StepClock(**{**BASE, "weights_s": w}, expert_weights_s=w, expert_share=0.25) for w in (1e-3, 5e-3)]
    together = stacked(clocks, 1).iteration_s(decodes=np.array([1.0, 30.0]), kv_tokens=np.array([10.0, 3000.0]))
    for row, c in zip(together, clocks, strict=True):
        np.testing.assert_allclose(row, c.iteration_s(decodes=[1.0, 30.0], kv_tokens=[10.0, 3000.0]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights_s", 0.0),
        ("weights_s", math.nan),
        ("overhead_s", -1.0),
        ("kv_capacity_tokens", 0),
        ("max_num_seqs", 1.5),
        ("overlap_exponent", 0.5),
        ("expert_share", 0.0),
        ("kv_usable_share", 1.5),
    ],
)
def test_impossible_parameters_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        StepClock(**{**BASE, field: value})
