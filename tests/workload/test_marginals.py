"""Iterative proportional fitting: marginals are met, the shape's odds ratios are kept."""

from __future__ import annotations

import numpy as np
import pytest

from melange.errors import InputError
from melange.slo import Slo
from melange.workload.marginals import fit_to_marginals, shaped_by
from melange.workload.sizes import SizeGrid
from melange.workload.workload import Workload


def test_marginals_are_met_and_odds_ratios_kept() -> None:
    shape = np.array([[4.0, 1.0], [1.0, 4.0]])
    joint = fit_to_marginals(shape, [3.0, 1.0], [2.0, 2.0])
    assert joint.sum(axis=1) == pytest.approx([3, 1])
    assert joint.sum(axis=0) == pytest.approx([2, 2])
    assert joint[0, 0] * joint[1, 1] / (joint[0, 1] * joint[1, 0]) == pytest.approx(16)


def test_a_flat_shape_is_independence() -> None:
    rows, columns = np.array([1.0, 2.0, 3.0]), np.array([4.0, 2.0])
    assert fit_to_marginals(np.ones((3, 2)), rows, columns) == pytest.approx(np.outer(rows, columns) / 6)


def test_zeros_that_cannot_carry_the_marginals_give_way() -> None:
    joint = fit_to_marginals(np.eye(2), [3.0, 1.0], [1.0, 3.0])
    assert joint.sum(axis=1) == pytest.approx([3, 1])
    assert joint.sum(axis=0) == pytest.approx([1, 3])


def test_unseen_rows_are_filled_as_if_independent() -> None:
    joint = fit_to_marginals([[0.0, 0.0], [1.0, 1.0]], [1.0, 1.0], [1.0, 1.0])
    assert joint == pytest.approx(np.full((2, 2), 0.5))


def test_grids_must_match() -> None:
    with pytest.raises(InputError, match="one grid"):
        fit_to_marginals(np.ones((2, 2)), [1.0], [1.0, 1.0])


def workload(rate: np.ndarray, product: float) -> Workload:
    grid = SizeGrid(input_edges_tokens=(100, 200), output_edges_tokens=(10, 20))
    inputs, outputs = np.array([[50.0, 50.0], [150.0, 150.0]]), np.array([[5.0, 15.0], [5.0, 15.0]])
    busy = rate > 0
    return Workload(
        name="w",
        grid=grid,
        rate_rps=rate,
        mean_input_tokens=np.where(busy, inputs, np.nan),
        mean_output_tokens=np.where(busy, outputs, np.nan),
        mean_product_tokens2=np.where(busy, inputs * outputs * product, np.nan),
        mean_cached_tokens=np.where(busy, 0.0, np.nan),
        slo=Slo(tpot_s=0.1),
    )


def test_shaping_keeps_the_metrics_marginals_and_takes_the_traces_joint() -> None:
    metrics = workload(np.outer([3.0, 1.0], [1.0, 1.0]) / 2, 1.0)
    trace = workload(np.array([[2.0, 0.0], [0.0, 6.0]]), 1.1)
    shaped = shaped_by(metrics, trace)
    assert shaped.rate_rps.sum(axis=1) == pytest.approx([3, 1], rel=1e-6)
    assert shaped.rate_rps.sum(axis=0) == pytest.approx([2, 2], rel=1e-6)
    assert shaped.rate_rps[1, 1] > 0.9  # long prompts go with long answers, as in the trace
    assert shaped.mean_product_tokens2[1, 1] == pytest.approx(150 * 15 * 1.1)
    assert shaped.total_rate_rps == pytest.approx(4)
