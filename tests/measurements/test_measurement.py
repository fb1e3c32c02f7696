"""Measurement and its parts: what they refuse, and that JSON keeps them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melange import InputError, LatencyStats, Measurement, Slo
from melange.measurements.measurement import Question

POSITIVE = st.floats(1e-3, 1e5)
STATS = st.builds(LatencyStats, mean=POSITIVE, p50=POSITIVE, p99=st.none() | POSITIVE)
QUESTIONS = st.builds(
    Question,
    slo=st.builds(Slo, tpot_s=st.none() | POSITIVE, attainment=st.none() | st.floats(0.5, 0.99)),
    resolution=POSITIVE,
    requests=st.integers(1, 9),
    point_s=POSITIVE,
)
POINTS = st.builds(
    Measurement,
    model=st.text(min_size=1),
    gpu=st.sampled_from(["L4", "H100"]),
    tp=st.integers(1, 8),
    input_tokens=POSITIVE,
    output_tokens=POSITIVE,
    offered_rps=st.none() | POSITIVE,
    achieved_rps=st.floats(0, 1e4),
    nominal_rps=st.none() | POSITIVE,
    confidence=st.none() | st.floats(0.5, 0.999),
    queue_growth_low_rps=st.none() | st.floats(-9, 9),
    asked=st.none() | QUESTIONS,
    ttft_s=st.none() | STATS,
    sample_e2e_s=st.none() | st.lists(POSITIVE, max_size=3).map(tuple),
    extra=st.dictionaries(st.text(), st.none() | st.integers(), max_size=2),
)


def point(**changes):
    values = {"model": "m", "gpu": "L4", "input_tokens": 100, "output_tokens": 50, "achieved_rps": 2.0}
    return Measurement(**{**values, **changes})


@given(POINTS)
def test_points_survive_the_file_format(p):
    assert Measurement.from_dict(json.loads(json.dumps(p.to_dict()))) == p


@pytest.mark.parametrize(
    "bad",
    [
        {"achieved_rps": float("nan")}, {"precision": "fp7"}, {"source": "guessed"}, {"tp": 0}, {"confidence": 1.0},
        {"samples": -1}, {"duration_s": float("inf")}, {"sample_e2e_s": (1.0, float("nan"))},
        {"sample_e2e_s": (1.0, 2.0), "sample_ttft_s": (1.0,)},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_points_are_refused(bad):
    with pytest.raises(InputError):
        point(**bad)


def test_shares_of_requests_are_bounded_by_the_percentiles_that_are_known():
    stats = LatencyStats(mean=1.0, p50=0.5, p99=3.0)
    assert stats.percentiles() == {0.5: 0.5, 0.99: 3.0}
    assert (stats.share_within(1.0), stats.share_at_most(1.0)) == (0.5, 0.99)
    assert (stats.share_within(0.1), stats.share_at_most(9.0)) == (0.0, 1.0)
    with pytest.raises(InputError, match="latency: p90 is not finite"):
        LatencyStats(mean=1.0, p90=float("nan"))


def test_extra_is_a_copy_that_cannot_be_changed():
    given = {"note": 1}
    p = point(extra=given)
    given["note"] = 2
    assert p.extra["note"] == 1
    with pytest.raises(TypeError):
        p.extra["note"] = 3
