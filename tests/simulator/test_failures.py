"""Failures at a time and at a rate."""

from __future__ import annotations

import numpy as np
import pytest

from melange.errors import InputError
from melange.simulator.failures import FailureRule, outages


@pytest.mark.parametrize("text", ["L4", "L4@", "L4@-1", "L4~0", "@5", "L4@5+", "L4@x"])
def test_failures_that_make_no_sense_are_refused(text):
    with pytest.raises(InputError, match="failure"):
        FailureRule.parse(text)


def test_failures_at_a_time_take_one_replica_each():
    rules = [FailureRule.parse("L4@5+2"), FailureRule.parse("L4@5+2"), FailureRule.parse("L4@5+2")]
    found = outages(rules, ["A10G", "L4", "L4"], [False] * 3, 100.0, np.random.default_rng(0))
    assert [(o.replica, o.at_s, o.down_s) for o in found] == [(1, 5.0, 2.0), (2, 5.0, 2.0)]


def test_failures_at_a_rate_come_as_often_as_asked_and_spare_what_is_not_spot():
    rule = [FailureRule.parse("spot~10+60")]
    found = outages(rule, ["A", "B"], [True, False], 3600.0 * 500, np.random.default_rng(0))
    assert {o.replica for o in found} == {0}
    assert len(found) == pytest.approx(500 * 3600 / (360 + 60), rel=0.05)
