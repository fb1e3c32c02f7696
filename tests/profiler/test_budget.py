"""Budgets in seconds and in dollars."""

from __future__ import annotations

import math

import pytest

from melange.errors import InputError
from melange.profiler.budget import Budget


def test_dollars_are_counted_and_need_a_price() -> None:
    with pytest.raises(InputError, match="--usd-per-hour"):
        Budget(limit_usd=1.0)
    budget = Budget(limit_usd=1.0, usd_per_hour=2.0, clock=lambda: 900.0, began_s=0.0)
    assert budget.spent_usd == pytest.approx(0.5)
    assert budget.left_s == pytest.approx(900.0)


def test_seconds_are_counted_from_the_first_look() -> None:
    now = [100.0]
    budget = Budget(limit_s=60.0, clock=lambda: now[0])
    now[0] = 130.0
    assert (budget.spent_s, budget.left_s, budget.spent_usd) == (30.0, 30.0, None)
    assert budget.limited
    free = Budget(usd_per_hour=1.0)
    assert free.left_s == math.inf
    assert not free.limited
    with pytest.raises(InputError, match="limit_s is 0"):
        Budget(limit_s=0.0)
