"""late: which buckets an attainment SLO allows to be served late, judged type of GPU by type of GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from melange.arrays import FloatArray
from melange.slo import Slo

Late = frozenset[int]

# A share of requests equal to 1 - p up to rounding still counts as allowed.
ROUNDING = 1e-9


def may_be_late(late: Late, rate_rps: FloatArray, slo: Slo) -> bool:
    """Whether the SLO lets these buckets miss altogether: at most the share ``slo.may_miss`` of the requests.

    ``rate_rps``: (n_buckets,). No bucket may be late under an SLO on means or one that holds within each bucket.
    """
    return not late or (slo.may_miss > 0 and late_share(late, rate_rps) <= slo.may_miss + ROUNDING)


def late_share(late: Late, rate_rps: FloatArray) -> float:
    """The share of the requests that these buckets hold."""
    return float(rate_rps[sorted(late)].sum() / rate_rps.sum())


def late_by_type(max_rate_rps: FloatArray, gpus: Sequence[str]) -> dict[str, Late]:
    """The buckets that no config of each GPU type can serve in time; what is not measured (NaN) is not among them.

    ``max_rate_rps``: (n_buckets, n_configs), 0 = not in time at any load; ``gpus`` names each config's type.
    """
    types = np.array(gpus)
    return {
        gpu: frozenset(np.flatnonzero((max_rate_rps[:, types == gpu] == 0).all(axis=1)).tolist())
        for gpu in dict.fromkeys(gpus)
    }


def late_choices(by_type: Mapping[str, Late], max_rate_rps: FloatArray, rate_rps: FloatArray, slo: Slo) -> list[Late]:
    """The sets of buckets that may be left out, those with the most requests first; at least the empty set.

    A set is what no config of some choice of GPU types can serve in time, if the SLO lets it be late. Sets that keep a
    bucket which nothing can serve are passed over while there are others.
    """
    found: set[Late] = set()
    seen = open_sets = set(by_type.values())
    while open_sets:
        found |= {late for late in open_sets if may_be_late(late, rate_rps, slo)}
        open_sets = {late & other for late in open_sets for other in by_type.values()} - seen
        seen = seen | open_sets
    stuck = frozenset(np.flatnonzero(~(np.nan_to_num(max_rate_rps, nan=0.0) > 0).any(axis=1)).tolist())
    kept = [late for late in found if stuck <= late]
    return sorted(kept, key=lambda late: (-late_share(late, rate_rps), -len(late), sorted(late))) or [frozenset()]
