from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest

from melange import InputError, load_catalog
from melange.serving.efficiencies import GEMM_SHARE, PRIORS, Efficiencies


def test_every_efficiency_starts_at_its_priors_mean():
    assert [item.name for item in fields(Efficiencies)] == list(PRIORS)
    for name, prior in PRIORS.items():
        assert getattr(Efficiencies(), name) == prior.mean
        assert prior.low < prior.mean < prior.high
        assert prior.spread > 0


@pytest.mark.parametrize("name", PRIORS)
def test_values_lie_between_the_bounds(name):
    prior = PRIORS[name]
    for value in (prior.low, prior.high):
        assert getattr(Efficiencies(**{name: value}), name) == value
    for value in (prior.low * 0.99, prior.high * 1.01, math.nan, math.inf):
        with pytest.raises(InputError, match=rf"efficiency {name} is .*it lies between {prior.low:g} and"):
            Efficiencies(**{name: value})


def test_logarithms_and_back():
    values = Efficiencies(gemm_scale=0.5, recompute_share=0.02)
    logs = values.logs()
    names = list(PRIORS)
    assert logs[names.index("gemm_scale")] == pytest.approx(math.log(0.5))
    again = Efficiencies.from_logs(logs)
    assert [getattr(again, name) for name in names] == pytest.approx([getattr(values, name) for name in names])


def test_logarithms_beyond_a_bound_are_cut_at_it():
    for logs, bound in ((-50.0, "low"), (50.0, "high")):
        cut = Efficiencies.from_logs(np.full(len(PRIORS), logs))
        assert {name: getattr(cut, name) for name in PRIORS} == {n: getattr(p, bound) for n, p in PRIORS.items()}


def test_every_gpu_of_the_catalog_has_a_share_of_its_printed_rate():
    assert set(GEMM_SHARE) == set(load_catalog().gpus)
    assert all(0.3 < share < 1 for share in GEMM_SHARE.values())
    assert GEMM_SHARE["L4"] < 0.5 < GEMM_SHARE["A10G"]  # held down by its 72 W
