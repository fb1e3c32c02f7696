"""Physical limits by hand; measurements beyond them are impossible."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.errors import InputError
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibrate import read_sets
from melange.perfmodel.limits import physical_limit, physical_limits

POINT = Measurement(
    model="llama-2-7b", gpu="A100-80GB", input_tokens=2000, output_tokens=25, loop="capacity", achieved_rps=5.0
)


def test_a_compute_bound_size_by_hand():
    limit = physical_limit(POINT)
    # 2 x (6.738e9 - 2 x 0.1311e9) = 12.952e9 FLOP a token x 2024 tokens = 26.21e12; logits 25 x 0.262e9 = 0.007e12;
    # attention 4 x 4096 x 32 x (2000 x 2001 / 2 + 24 x 2012.5 pairs) = 524,288 x 2,049,300 = 1.074e12.
    # 27.30e12 / 312e12 = 87.5 ms a request.
    assert limit.optimum_rps == pytest.approx(1 / 0.0875, rel=2e-3)
    assert limit.binding == "FLOPs"
    assert limit.share == pytest.approx(5 * 0.0875, rel=2e-3)
    assert not limit.is_impossible


def test_a_memory_bound_size_by_hand():
    limit = physical_limit(replace(POINT, input_tokens=25.0, output_tokens=2000.0, achieved_rps=0.5))
    # Context 1025 tokens of 0.5 MiB = 537.4 MB; free 79.1 GiB - 13.476e9 = 71.46e9: 133 requests at once.
    # Weights 1999 / 133 x 13.476e9 / 2039e9 = 99.4 ms; KV 1999 x 537.4e6 / 2039e9 = 526.9 ms a request.
    assert limit.optimum_rps == pytest.approx(1 / 0.6263, rel=3e-3)
    assert limit.binding == "bandwidth"


def test_a_small_card_is_bound_by_its_kv_capacity():
    assert physical_limit(replace(POINT, gpu="L4", input_tokens=25.0, output_tokens=500.0)).binding == "KV capacity"


def test_a_rate_beyond_the_optimum_is_impossible():
    assert physical_limit(replace(POINT, achieved_rps=12.0)).is_impossible


def test_no_published_cell_is_impossible():
    points = [point for file in read_sets(["melange-2024/llama-2-7b"]) for point in file.points]
    limits = physical_limits(points)
    assert len(limits) == 186
    assert not any(limit.is_impossible for limit in limits)
    assert max(limit.share for limit in limits) > 0.5


def test_prefix_hits_move_the_limit():
    assert physical_limit(replace(POINT, cached_tokens=1500.0)).optimum_rps > 3 * physical_limit(POINT).optimum_rps


def test_unknown_hardware_is_refused():
    with pytest.raises(InputError, match="unknown GPU 'A1000'; did you mean"):
        physical_limit(replace(POINT, gpu="A1000"))
