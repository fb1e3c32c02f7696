from __future__ import annotations

import numpy as np
import pytest

from melange import InputError, Slo
from melange.slo import tpot_s


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
