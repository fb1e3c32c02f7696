"""What requests experience at one steady load: shares and quantiles by hand."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest

from melange.perfmodel.loadpoint import LoadPoint
from melange.slo import Slo

# A tenth of the requests waits, 1 s in the mean of those; decoding takes 20 +- 2 ms a token, at saturation 30 +- 1.
POINT = LoadPoint(
    rate_rps=np.array([2.0]),
    concurrency=np.array([5.0]),
    prefill_s=np.array([0.5]),
    wait_s=np.array([0.1]),
    waiting_share=np.array([0.1]),
    tpot_decode_s=np.array([0.020]),
    tpot_sd_s=np.array([0.002]),
    tpot_max_s=np.array([0.030]),
    tpot_max_sd_s=np.array([0.001]),
    decode_steps=np.array([99.0]),
)


def only(values):
    (value,) = values
    return float(value)


def test_means_add_up():
    assert only(POINT.output_tokens) == 100
    assert only(POINT.ttft_s) == pytest.approx(0.6)
    assert only(POINT.e2e_s) == pytest.approx(0.6 + 99 * 0.020)
    assert only(POINT.tpot_e2e_per_token_s) == pytest.approx(2.58 / 100)


@pytest.mark.parametrize(("threshold_s", "share"), [(0.49, 0.0), (0.5, 0.9), (1.5, 1 - 0.1 * exp(-1)), (9.0, 1.0)])
def test_first_tokens_wait_not_at_all_or_exponentially(threshold_s, share):
    assert only(POINT.ttft_within(threshold_s)) == pytest.approx(share, abs=2e-4)


def test_quantiles_undo_shares():
    assert only(POINT.ttft_quantile_s(0.5)) == 0.5
    assert only(POINT.ttft_quantile_s(0.99)) == pytest.approx(0.5 + log(10))
    for share in (0.95, 0.99):
        assert only(POINT.ttft_within(POINT.ttft_quantile_s(share))) == pytest.approx(share)
        assert only(POINT.tpot_within(POINT.tpot_quantile_s(share))) == pytest.approx(share)
    assert only(POINT.tpot_quantile_s(0.5)) == pytest.approx(0.020)


def test_decoding_is_normal_and_no_slower_than_at_saturation():
    assert only(POINT.tpot_within(0.020)) == pytest.approx(0.5)
    assert only(POINT.tpot_within(0.022)) == pytest.approx(0.8413, abs=1e-4)
    wide = replace(POINT, tpot_sd_s=np.array([0.010]))
    assert only(wide.tpot_within(0.030)) == pytest.approx(0.8413, abs=1e-4)
    assert only(wide.tpot_within(0.032)) == pytest.approx(0.9772, abs=1e-4)  # two deviations above saturation's
    assert only(wide.tpot_quantile_s(0.9772)) == pytest.approx(0.032, abs=1e-5)
    single = replace(POINT, decode_steps=np.array([0.0]))
    assert only(single.tpot_within(0.001)) == 1.0


def test_whole_latencies_without_noise_are_a_shifted_wait():
    steady = replace(POINT, tpot_sd_s=np.array([0.0]))
    decode = 99 * 0.020
    assert only(steady.e2e_within(0.49 + decode)) == 0.0
    assert only(steady.e2e_within(0.500001 + decode)) == pytest.approx(0.9, abs=1e-5)
    assert only(steady.e2e_within(1.5 + decode)) == pytest.approx(1 - 0.1 * exp(-1))
    noisy = only(POINT.e2e_within(0.51 + decode))
    assert only(steady.e2e_within(0.51 + decode)) > noisy > 0.3
    assert only(steady.e2e_quantile_s(0.99)) == pytest.approx(only(POINT.ttft_quantile_s(0.99)) + decode)
    assert only(POINT.e2e_quantile_s(0.99)) > only(steady.e2e_quantile_s(0.99))


def test_a_saturated_replica_keeps_nothing():
    full = replace(POINT, wait_s=np.array([np.inf]), waiting_share=np.array([1.0]))
    assert only(full.ttft_within(1e9)) == 0.0
    assert only(full.e2e_quantile_s(0.9)) == np.inf
    assert not only(full.meets(Slo(ttft_s=1e6)))


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        (Slo(), True),
        (Slo(tpot_s=0.020, tpot_definition="decode"), True),
        (Slo(tpot_s=0.0199, tpot_definition="decode"), False),
        (Slo(tpot_s=0.0259, tpot_definition="e2e_per_token"), True),
        (Slo(tpot_s=0.0257, tpot_definition="e2e_per_token"), False),
        (Slo(ttft_s=0.61), True),
        (Slo(ttft_s=0.59), False),
        (Slo(e2e_s=2.59), True),
        (Slo(e2e_s=2.57), False),
        (Slo(ttft_s=0.5, attainment=0.89), True),
        (Slo(ttft_s=0.5, attainment=0.91), False),
        # Shares of late first tokens and of slow decoding are multiplied: 0.9 x 0.8413 = 0.757.
        (Slo(ttft_s=0.5, tpot_s=0.022, tpot_definition="decode", attainment=0.75), True),
        (Slo(ttft_s=0.5, tpot_s=0.022, tpot_definition="decode", attainment=0.77), False),
    ],
)
def test_a_promise_is_kept_or_not(slo, kept):
    assert bool(only(POINT.meets(slo))) == kept


def test_percentiles_are_kept_one_by_one():
    # 97.9% of the first tokens within 2.06 s (a tenth waits, 1 s in the mean), 93.3% of the decoding within 23 ms
    first, decode = only(POINT.ttft_within(2.06)), only(POINT.tpot_within(0.023))
    assert (first, decode) == (pytest.approx(0.979, abs=1e-3), pytest.approx(0.933, abs=1e-3))
    limits = {"ttft_s": 2.06, "tpot_s": 0.023}
    assert only(POINT.meets(Slo(**limits, ttft_quantile=0.97, tpot_quantile=0.93)))
    assert not only(POINT.meets(Slo(**limits, ttft_quantile=0.97, tpot_quantile=0.94)))
    assert not only(POINT.meets(Slo(**limits, ttft_quantile=0.98, tpot_quantile=0.93)))
    assert not only(POINT.meets(Slo(**limits, attainment=0.93)))
    assert only(POINT.meets(Slo(e2e_s=4.0, e2e_quantile=0.95))) == only(POINT.meets(Slo(e2e_s=4.0, attainment=0.95)))
