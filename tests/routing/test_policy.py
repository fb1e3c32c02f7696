"""Policies by name."""

from __future__ import annotations

import pytest

from melange.errors import InputError
from melange.routing import POLICY_NAMES, policy_by_name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shares:predictor", "needs a predictor"),
        ("sahres", "did you mean 'shares'"),
        ("shares:guess", "unknown estimator"),
        ("shares:predictor=2", "accuracy is 2"),
        ("shares:predictor=x", "accuracy is 'x'"),
        ("shares:oracle=0.5", "only a predictor"),
    ],
)
def test_policies_that_make_no_sense_are_one_clear_line(name, words):
    with pytest.raises(InputError, match=words):
        policy_by_name(name)


def test_every_policy_name_is_known():
    for name in POLICY_NAMES:
        assert policy_by_name(name).name == name
    assert policy_by_name("shares:predictor", predictor_accuracy=0.7).accuracy == 0.7
