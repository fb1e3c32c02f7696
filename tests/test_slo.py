from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange import InputError, Slo
from melange.slo import lower_quantile, percentile_name, percentile_of, tpot_s


def test_two_definitions_of_tpot_differ_by_the_first_token():
    values = {"e2e_s": 2.0, "ttft_s": 0.5, "output_tokens": 16}
    assert tpot_s("e2e_per_token", **values) == pytest.approx(2.0 / 16)
    assert tpot_s("decode", **values) == pytest.approx(1.5 / 15)


def test_a_single_token_has_no_decode_step_and_meets_any_decode_threshold():
    assert np.isnan(tpot_s("decode", e2e_s=1.0, ttft_s=1.0, output_tokens=1))
    slo = Slo(tpot_s=1e-6, tpot_definition="decode")
    assert slo.met(e2e_s=[1.0], ttft_s=[1.0], output_tokens=[1]).tolist() == [True]


def test_attainment_is_joint():
    slo = Slo(tpot_s=0.1, tpot_definition="decode", ttft_s=0.5, attainment=0.9)
    met = slo.met(e2e_s=[1.0, 1.5, 10.0, np.nan], ttft_s=[0.4, 0.9, 0.4, 0.4], output_tokens=[11, 11, 11, 11])
    assert met.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    "bad", [{"tpot_s": 0}, {"ttft_s": -1}, {"e2e_s": float("nan")}, {"attainment": 1.0}, {"scope": "all"}]
)
def test_impossible_promises_are_refused(bad):
    with pytest.raises(InputError):
        Slo(**bad)


def test_description_says_which_tpot_and_which_statistic():
    assert Slo(tpot_s=0.12, tpot_definition="e2e_per_token").describe() == "mean TPOT (e2e_per_token) <= 120 ms"
    text = Slo(tpot_s=0.05, ttft_s=1.0, attainment=0.99).describe()
    assert text == "99% of all requests jointly meet TPOT (decode) <= 50 ms and TTFT <= 1000 ms"


def test_round_trip():
    slo = Slo(tpot_s=0.12, ttft_s=1.0, attainment=0.95, scope="bucket")
    assert Slo.from_dict(slo.to_dict()) == slo


PERCENTILES = Slo(ttft_s=0.5, ttft_quantile=0.95, tpot_s=0.05, tpot_quantile=0.9)


def test_percentiles_are_promised_one_by_one():
    assert PERCENTILES.statistic == "percentiles"
    assert PERCENTILES.describe() == "p90 TPOT (decode) <= 50 ms and p95 TTFT <= 500 ms"
    bucket = replace(PERCENTILES, scope="bucket")
    assert bucket.describe() == "p90 TPOT (decode) <= 50 ms and p95 TTFT <= 500 ms of each bucket's requests"
    assert (PERCENTILES.share, Slo(ttft_s=1.0, attainment=0.9).share, Slo(ttft_s=1.0).share) == (0.95, 0.9, None)
    assert (PERCENTILES.may_miss, bucket.may_miss, Slo(ttft_s=1.0).may_miss) == (pytest.approx(0.05), 0.0, 0.0)
    assert Slo.from_dict(PERCENTILES.to_dict()) == PERCENTILES


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"ttft_s": 1.0, "ttft_quantile": 0.95, "attainment": 0.99},
            "percentiles, each of its own latency, and a joint",
        ),
        ({"ttft_s": 1.0, "ttft_quantile": 0.95, "tpot_s": 0.1}, "TPOT has no percentile beside p95 TTFT"),
        ({"ttft_quantile": 0.95}, "of no limit"),
        ({"ttft_s": 1.0, "ttft_quantile": 1.0}, "ttft_quantile is 1.0"),
    ],
)
def test_percentiles_that_do_not_fit_are_refused(bad, message):
    with pytest.raises(InputError, match=message):
        Slo(**bad)


def test_each_threshold_has_its_own_requests_within():
    values = {
        "e2e_s": [1.0, 1.5, 10.0, np.nan, 0.4],
        "ttft_s": [0.4, 0.9, 0.4, 0.4, 0.4],
        "output_tokens": [13] * 4 + [1],
    }
    within = PERCENTILES.within(**values)
    assert within["tpot"].tolist() == [True, True, False, False, True]
    assert within["ttft"].tolist() == [True, False, True, False, True]
    assert PERCENTILES.met(**values).tolist() == [True, False, False, False, True]
    assert PERCENTILES.latencies_s(**values)["tpot"][[3, 4]].tolist() == [np.inf, 0.0]


def test_what_is_attained_is_of_the_highest_quantile():
    same = replace(PERCENTILES, tpot_quantile=0.95)
    assert same.attained({"tpot": 0.97, "ttft": 0.96}, 0.94) == 0.96
    assert PERCENTILES.attained({"tpot": 0.9, "ttft": 0.99}, 0.9) == 0.95  # kept to the point
    assert PERCENTILES.attained({"tpot": 0.88, "ttft": 0.99}, 0.9) == pytest.approx(1 - 1.2 * 0.05)
    assert PERCENTILES.attained({"tpot": 0.0, "ttft": 0.99}, 0.0) == pytest.approx(0.5)
    assert Slo(ttft_s=1.0, attainment=0.9).attained({"ttft": 0.5}, 0.4) == 0.4


def test_a_quantile_is_within_a_limit_where_its_share_of_the_requests_is():
    values = np.arange(1.0, 21.0)
    assert lower_quantile(values, 0.95) == 19.0
    assert lower_quantile(values, 0.951) == 20.0
    assert lower_quantile([3.0], 0.01) == 3.0
    assert np.isnan(lower_quantile([], 0.5))
    rng = np.random.default_rng(1)
    for _ in range(200):
        drawn, q, limit = rng.integers(0, 9, 30), float(rng.uniform(0.01, 0.99)), float(rng.integers(0, 9))
        assert (lower_quantile(drawn, q) <= limit) == (np.mean(drawn <= limit) >= q)


@pytest.mark.parametrize(("name", "quantile"), [("p50", 0.5), ("p95", 0.95), ("p99.9", 0.999), ("p7", 0.07)])
def test_percentiles_have_names(name, quantile):
    assert percentile_of(name) == quantile
    assert percentile_name(quantile) == name


@pytest.mark.parametrize("name", ["p0", "p100", "95", "p", "p9x", "P95", "mean"])
def test_other_names_are_no_percentiles(name):
    assert percentile_of(name) is None


def test_which_promise_is_as_tight_as_which():
    joint = Slo(ttft_s=0.5, tpot_s=0.05, attainment=0.95)
    each = Slo(ttft_s=0.5, tpot_s=0.05, ttft_quantile=0.95, tpot_quantile=0.95)
    assert joint.is_as_tight_as(each)
    assert not each.is_as_tight_as(joint)
    one, alone = Slo(ttft_s=0.5, attainment=0.95), Slo(ttft_s=0.5, ttft_quantile=0.95)
    assert one.is_as_tight_as(alone)
    assert alone.is_as_tight_as(one)
    assert each.is_as_tight_as(one)
    assert each.is_as_tight_as(PERCENTILES)
    assert not PERCENTILES.is_as_tight_as(each)
    assert not Slo(ttft_s=0.5).is_as_tight_as(one)
    assert not one.is_as_tight_as(Slo(ttft_s=0.5))
    assert not one.is_as_tight_as(replace(one, scope="bucket"))
    assert not Slo(tpot_s=0.1).is_as_tight_as(Slo(tpot_s=0.1, tpot_definition="e2e_per_token"))
    assert Slo(tpot_s=0.1).is_as_tight_as(Slo())
    assert not Slo().is_as_tight_as(Slo(tpot_s=0.1))


def test_a_percentile_in_place_of_a_joint_share_and_the_other_way_round():
    joint = Slo(ttft_s=0.5, attainment=0.95)
    assert joint.replaced(ttft_s=0.4, ttft_quantile=0.9) == Slo(ttft_s=0.4, ttft_quantile=0.9)
    assert PERCENTILES.replaced(attainment=0.9) == Slo(ttft_s=0.5, tpot_s=0.05, attainment=0.9)
    assert PERCENTILES.replaced(ttft_s=0.4) == replace(PERCENTILES, ttft_s=0.4)
