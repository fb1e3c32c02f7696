from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.solver import allocation
from melange.solver.problem import Problem

PROBLEM = Problem(
    buckets=("left", "right"),
    configs=("M/tp1", "M/tp4", "N"),
    instances=("M", "N"),
    load=np.array([[1.0, 0.5, np.inf], [2.0, np.inf, 1.0]]),
    config_instance=np.array([0, 0, 1]),
    gpus_per_replica=np.array([1, 4, 1]),
    gpus_per_instance=np.array([8, 1]),
    price_usd_per_hour=np.array([8.0, 1.0]),
)


def test_dust_and_forbidden_shares_are_swept_away() -> None:
    cleaned = allocation.clean_shares(PROBLEM, np.array([[0.9999999, -1e-12, 0.3], [0.5, 1e-12, 0.5]]))
    assert cleaned.tolist() == [[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]


def test_idle_gpus_get_replicas_of_the_busiest_config_that_fits() -> None:
    shares = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    filled = allocation.fill_machines(PROBLEM, np.array([1, 1, 1]), np.array([1, 2]), shares)
    assert filled.tolist() == [4, 1, 2]


def test_the_busiest_is_filled_before_the_idle() -> None:
    # Two configs of one GPU each on the machine; only the second has work.
    twins = replace(PROBLEM, configs=("M/fp16", "M/fp8", "N"), gpus_per_replica=np.array([1, 1, 1]))
    shares = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert allocation.fill_machines(twins, np.array([1, 1, 1]), np.array([1, 1]), shares)[:2].tolist() == [1, 7]


def test_slices_that_stay_leave_less_for_those_that_move() -> None:
    # N is full with what is fixed there: the rest of the other bucket has to stay on M.
    fixed = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    both = replace(PROBLEM, load=np.array([[1.0, 9.0, 0.5], [2.0, 9.0, 1.0]]))
    usable = np.array([[True, False, True], [False, False, False]])
    shares = allocation._minimax(both, np.array([2, 0, 1]), usable, fixed, slices=4)
    assert shares is not None
    carried = allocation.loads(both, shares + fixed)
    assert carried[2] <= 1.5
    # 0.5 x on N beside 1 already there against (1 - x) / 2 on M: x = 0 is best.
    assert shares[0].tolist() == [1.0, 0.0, 0.0]


def test_even_shares_minimise_the_highest_utilisation() -> None:
    shares = allocation.even_shares(PROBLEM, np.array([2, 0, 1]))
    utilisation = allocation.loads(PROBLEM, shares) / np.array([2, 1, 1])
    # Left must go to M; with s of right on N, (1 + 2 (1 - s)) / 2 = s at s = 3/4.
    assert utilisation.tolist() == pytest.approx([0.75, 0.0, 0.75])


def test_no_shares_without_a_replica_for_a_bucket() -> None:
    assert allocation.even_shares(PROBLEM, np.array([0, 0, 1])) is None


@pytest.mark.parametrize("all_buckets", [False, True])
def test_slices_fit_or_are_not_given(all_buckets: bool) -> None:
    shares = allocation.even_slices(PROBLEM, np.array([2, 0, 1]), 2, all_buckets=all_buckets)
    assert shares.tolist() in ([[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    # Two fifths of right fit on N and three on M; neither half nor none does.
    tight = replace(PROBLEM, load=np.array([[1.0, 0.5, np.inf], [1.6, np.inf, 2.4]]))
    assert allocation.even_shares(tight, np.array([2, 0, 1]))[1] == pytest.approx([0.6, 0.0, 0.4], abs=0.03)
    assert allocation.even_slices(tight, np.array([2, 0, 1]), 2, all_buckets=all_buckets) is None
