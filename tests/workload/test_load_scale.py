from __future__ import annotations

import math

import pytest

from melange import InputError
from melange.workload.load_scale import LoadScale


def test_the_margin_goes_on_top_of_the_load():
    assert LoadScale().factor == 1
    assert LoadScale(load_ratio=1.25, margin=0.2).factor == pytest.approx(1.5)


def test_in_words_with_and_without_a_rate():
    scale = LoadScale(statistic="p95", load_ratio=1.25, windows=8, margin=0.15)
    assert scale.describe(2.567 * scale.factor) == "1.44 times 2.567 req/s (p95 of 8 windows' load: 1.25; margin 15%)"
    assert scale.describe_factor() == "1.44 times the rate (p95 of 8 windows' load: 1.25; margin 15%)"
    assert LoadScale(margin=0.5).describe(3.0) == "1.5 times 2 req/s (margin 50%)"


@pytest.mark.parametrize("scale", [LoadScale(), LoadScale(statistic="mean", windows=8)])
def test_the_mean_needs_no_factor(scale):
    assert scale.describe(3.5) == "the mean load, 3.5 req/s"
    assert scale.describe_factor() == "the mean load, the rate"


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_margins_that_make_no_sense(value):
    with pytest.raises(InputError, match=rf"margin is {value}; give a share from 0"):
        LoadScale(margin=value)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_loads_that_make_no_sense(value):
    with pytest.raises(InputError, match=rf"load ratio is {value}; give a positive number"):
        LoadScale(load_ratio=value)
