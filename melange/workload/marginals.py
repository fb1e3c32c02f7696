"""Joint distributions from marginals: iterative proportional fitting of a workload to the shape of a trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.workload.workload import Workload

ROUNDS = 1000
CLOSE = 1e-10


def fit_to_marginals(shape: ArrayLike, rows: ArrayLike, columns: ArrayLike) -> FloatArray:
    """The joint (n, m) nearest to ``shape`` in relative entropy whose sums are ``rows`` (n,) and ``columns`` (m,).

    Iterative proportional fitting (Deming and Stephan 1940). Cells where ``shape`` is 0 stay 0 wherever the marginals
    can be met without them; a row or column that has demand but no shape at all is filled as if independent.
    """
    row, column = np.asarray(rows, float), np.asarray(columns, float)
    joint = np.array(shape, float)
    if joint.shape != (len(row), len(column)):
        raise InputError(f"shape is {joint.shape}, the marginals are ({len(row)}, {len(column)})", fix="use one grid")
    independent = np.outer(row, column) / max(row.sum(), np.finfo(float).tiny)
    unseen = (joint.sum(axis=1) == 0)[:, None] | (joint.sum(axis=0) == 0)[None, :]
    joint = np.where(unseen, independent, joint)
    for _ in range(ROUNDS):
        joint = joint * _ratio(row, joint.sum(axis=1))[:, None]
        joint = joint * _ratio(column, joint.sum(axis=0))[None, :]
        if np.abs(joint.sum(axis=1) - row).max() <= CLOSE * max(row.sum(), 1.0):
            return joint
    # The trace's zeros cannot carry these marginals: let a little of independence in, and fit that.
    return fit_to_marginals(joint + 1e-3 * independent, row, column)


def _ratio(wanted: FloatArray, found: FloatArray) -> FloatArray:
    return np.divide(wanted, found, out=np.zeros_like(wanted), where=found > 0)


def shaped_by(workload: Workload, trace: Workload) -> Workload:
    """The workload with its marginals kept and its joint sizes, and within-bucket products, as in a trace's workload.

    Both must have the same grid. Where the trace saw no request of a bucket, its sizes stay independent.
    """
    if workload.grid != trace.grid:
        raise InputError("the trace was counted on another grid", fix="use the same edges for both")
    joint = fit_to_marginals(trace.rate_rps, workload.rate_rps.sum(axis=1), workload.rate_rps.sum(axis=0))
    joint = joint * (workload.total_rate_rps / joint.sum())
    busy = joint > 0
    inputs, outputs = _row_means(workload.mean_input_tokens), _row_means(workload.mean_output_tokens.T).T
    seen = trace.rate_rps > 0
    together = np.where(seen, trace.mean_product_tokens2 / (trace.mean_input_tokens * trace.mean_output_tokens), 1.0)
    means_in, means_out = (np.where(busy, np.broadcast_to(m, joint.shape), np.nan) for m in (inputs, outputs))
    return replace(
        workload,
        rate_rps=joint,
        mean_input_tokens=means_in,
        mean_output_tokens=means_out,
        mean_product_tokens2=np.maximum(1.0, means_in * means_out * np.where(busy, together, 1.0)),
        mean_cached_tokens=np.where(busy, 0.0, np.nan),
        burstiness_cv=trace.burstiness_cv,
        provenance={**workload.provenance, "joint": f"shaped by {trace.name} (iterative proportional fitting)"},
    )


def _row_means(means: FloatArray) -> FloatArray:
    """The one mean that each row of an independent joint has, (n, 1); the others of a row are NaN."""
    known = ~np.isnan(means)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.where(known, means, 0.0).sum(axis=1, keepdims=True) / count)
