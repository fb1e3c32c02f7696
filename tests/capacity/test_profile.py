from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melange import InputError, LatencyStats, Measurement, Slo, profile_from
from melange.capacity.profile import profile_sets, read_profile_set

SLO = Slo(tpot_s=0.1, tpot_definition="decode")


def load_point(rate, tpot, *, size=(100, 100), loop="open", **more):
    stats = LatencyStats(mean=tpot, p50=tpot, p99=2 * tpot)
    return Measurement(
        model="m", gpu="L4", input_tokens=size[0], output_tokens=size[1], loop=loop, achieved_rps=rate,
        offered_rps=rate if loop == "open" else None, tpot_decode_s=stats, ttft_s=stats, e2e_s=stats, samples=100,
        **more,
    )  # fmt: skip


def table(points, slo=SLO, **options):
    return next(iter(profile_from(points, slo, **options).configs.values()))


def test_highest_sustainable_passing_point_with_the_next_failing_as_its_interval():
    t = table([load_point(1, 0.05), load_point(2, 0.08), load_point(3, 0.2), load_point(5, 0.9)])
    assert t.max_rate_rps[0, 0] == 2
    assert t.next_failing_rps[0, 0] == 3


def test_a_point_that_does_not_keep_up_fails_whatever_its_tpot():
    t = table([load_point(1, 0.05), load_point(4, 0.05, saturated=True)])
    assert t.max_rate_rps[0, 0] == 1
    assert t.next_failing_rps[0, 0] == 4


def test_invalid_points_do_not_count():
    assert table([load_point(1, 0.05), load_point(9, 0.05, valid=False)]).max_rate_rps[0, 0] == 1


def test_zero_only_when_a_lone_request_fails():
    assert np.isnan(table([load_point(1, 0.5)]).max_rate_rps[0, 0])
    lone = load_point(0.2, 0.5, loop="closed", concurrency=1)
    assert table([load_point(1, 0.5), lone]).max_rate_rps[0, 0] == 0


def test_open_loop_points_decide_where_there_are_any():
    t = table([load_point(2, 0.05), load_point(6, 0.05, loop="closed", concurrency=8)])
    assert t.max_rate_rps[0, 0] == 2


def test_a_wide_or_half_open_interval_of_a_measured_rate_is_a_warning():
    wide = profile_from([load_point(1, 0.05), load_point(2, 0.2)], SLO)
    assert "100 -> 100 tokens 1..2 req/s" in wide.warnings[0]
    half = profile_from([load_point(1, 0.05)], SLO)
    assert "1..? req/s" in half.warnings[0]
    closed = profile_from([load_point(6, 0.05, loop="closed", concurrency=8)], SLO)
    assert "6 req/s from closed loops only" in closed.warnings[0]
    many = [load_point(1, 0.05, size=(size, 100)) for size in range(1, 7)]
    assert "and 3 more" in profile_from(many, SLO).warnings[0]
    assert not profile_from([load_point(1, 0.05), load_point(1.3, 0.2)], SLO).warnings


def test_bare_capacities_need_an_assumption():
    bare = [
        Measurement(
            model="m", gpu="L4", input_tokens=1, output_tokens=1, loop="capacity", achieved_rps=3, source="published"
        )
    ]
    with pytest.raises(InputError, match="assume_slo: true"):
        table(bare)
    assert table(bare, assume_slo=True).assumed_slo
    assert table(bare, Slo()).max_rate_rps[0, 0] == 3
    assert profile_from(bare, SLO, assume_slo=True).warnings


SIZES = st.floats(25, 2000)


@given(SIZES, SIZES)
def test_interpolation_stays_between_its_corners_and_is_exact_on_them(i, o):
    rates = {(25, 25): 30.0, (25, 2000): 0.5, (2000, 25): 5.0, (2000, 2000): 0.1}
    t = table([load_point(rate, 0.05, size=size) for size, rate in rates.items()])
    assert 0.1 * (1 - 1e-9) <= t.rate_at(i, o) <= 30 * (1 + 1e-9)
    for size, rate in rates.items():
        assert t.rate_at(*size) == pytest.approx(rate)


def test_interpolation_is_linear_in_the_logarithms():
    t = table([load_point(1.0, 0.05, size=(100, 100)), load_point(0.1, 0.05, size=(1000, 100))])
    assert t.rate_at(100 * 10**0.5, 100) == pytest.approx(10**-0.5)


def test_nothing_is_extrapolated_upwards_and_small_sizes_take_the_smallest():
    t = table([load_point(1.0, 0.05, size=(100, 100)), load_point(0.1, 0.05, size=(1000, 100))])
    assert np.isnan(t.rate_at(1001, 100))
    assert np.isnan(t.rate_at(100, 101))
    assert t.rate_at(10, 10) == pytest.approx(1.0)


def test_gaps_and_zeros_reach_only_the_sizes_that_lean_on_them():
    lone = load_point(0.2, 0.5, loop="closed", concurrency=1, size=(1000, 100))
    t = table([load_point(1.0, 0.05, size=(100, 100)), lone, load_point(1.0, 0.05, size=(100, 400))])
    assert t.rate_at(100, 100) == pytest.approx(1.0)
    assert t.rate_at(500, 100) == 0
    assert np.isnan(t.rate_at(500, 200))


def test_the_published_table_ships():
    (file,) = read_profile_set("melange-2024/llama-2-7b")
    assert "melange-2024/llama-2-7b" in profile_sets()
    assert len(file.points) == 186
    assert {p.source for p in file.points} == {"published"}


def test_the_published_table_is_the_reference(shared):
    import csv

    (file,) = read_profile_set("melange-2024/llama-2-7b")
    with (shared / "reference/melange/throughput_llama2_7b.csv").open() as f:
        rows = {(r["gpu"], float(r["input"]), float(r["output"])): float(r["max_req_per_s"]) for r in csv.DictReader(f)}
    names = {"A100-80GB": "A100"}
    assert {(names.get(p.gpu, p.gpu), p.input_tokens, p.output_tokens): p.achieved_rps for p in file.points} == rows


def test_unknown_set():
    with pytest.raises(InputError, match="melange-2024/llama-2-7b"):
        read_profile_set("melange-2024/llama-9")


def test_rates_without_a_limit_are_what_the_same_points_show():
    points = [load_point(1, 0.05), load_point(2, 0.08), load_point(3, 0.2), load_point(5, 0.9)]
    points += [
        load_point(1, 0.5, size=(1000, 100)),
        load_point(0.5, 0.4, size=(1000, 100), loop="closed", concurrency=1),
    ]
    assert table(points).unlimited_rps is None
    within = table(points, Slo(tpot_s=0.1, tpot_definition="decode", attainment=0.9, scope="bucket"))
    assert within.unlimited_rps is None
    assert np.isnan(within.unlimited_rate_at([100], [100])).all()
    found = table(points, Slo(tpot_s=0.1, tpot_definition="decode", attainment=0.9))
    assert found.max_rate_rps[1, 0] == 0
    assert found.unlimited_rps[:, 0].tolist() == [5, 1]
    assert found.unlimited_rate_at(1000, 100) == pytest.approx(1)
    assert (found.unlimited_rps >= np.nan_to_num(found.max_rate_rps)).all()
