"""Drift: how load and mix of a workload move from window to window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.workload.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drift:
    """A workload's windows in figures; every array has shape (n_windows,), the windows in order of time.

    ``rate_rps``: requests/s of a window. ``mean_input_tokens``, ``mean_output_tokens``: per request. ``load``: the
    window's load over the workload's, 1 for one as busy as the mean. ``load_per_request``: the same per request: above
    1 where requests are heavier than the mean ones. ``variation``: total variation distance (half the sum of absolute
    differences) between the window's and the whole's shares of buckets: the share of requests that would have to be of
    other sizes. ``variation_by_chance``: what as many independent draws from the whole's mix would show in the mean.
    Per-request figures are NaN in windows without requests.
    """

    start_s: FloatArray
    length_s: FloatArray
    rate_rps: FloatArray
    mean_input_tokens: FloatArray
    mean_output_tokens: FloatArray
    load: FloatArray
    load_per_request: FloatArray
    variation: FloatArray
    variation_by_chance: FloatArray

    def __len__(self) -> int:
        return len(self.start_s)

    def load_at(self, statistic: str) -> float:
        """Load over the mean's: ``mean`` (1), ``peak``, or ``p95``, the least that 95% of the time does not exceed.

        InputError for another statistic, and without windows.
        """
        if statistic not in ("mean", "peak", "p95"):
            raise InputError(f"a load is asked for as {statistic!r}", fix="use mean, peak or p95")
        if len(self) == 0:
            raise InputError(
                f"a workload without windows has no {statistic} of them",
                fix="make it from a trace with times, or give requests per second",
            )
        if statistic == "mean":
            return 1.0
        if statistic == "peak":
            return float(self.load.max())
        order = np.argsort(self.load, kind="stable")
        time = np.cumsum(self.length_s[order])
        return float(self.load[order][np.searchsorted(time, 0.95 * time[-1] * (1 - 1e-12))])

    @property
    def busiest(self) -> int:
        """Number of the window with the most load."""
        return int(np.argmax(self.load))


def drift_of(workload: Workload, weight: FloatArray) -> Drift:
    """How the workload's windows differ from the whole.

    ``weight``: (n_input, n_output) load of a request of each bucket, in any unit; read where the bucket has requests.
    """
    busy = workload.rate_rps > 0
    rates = workload.window_rates_rps()[:, busy]
    whole = workload.rate_rps[busy]
    totals, load = rates.sum(axis=1), rates @ weight[busy]
    held = np.array([window.count for window in workload.windows])
    with np.errstate(divide="ignore", invalid="ignore"):
        mix = rates / totals[:, None]
        share = whole / whole.sum()
        # E|X| of a normal X: sqrt(2 / pi) standard deviations, here those of a share of so many requests.
        chance = np.sqrt(share * (1 - share)).sum() / np.sqrt(2 * np.pi * np.where(totals > 0, held, np.nan))
    relative = load / (whole @ weight[busy])
    return Drift(
        start_s=np.array([window.start_s for window in workload.windows]),
        length_s=np.array([window.length_s for window in workload.windows]),
        rate_rps=totals,
        mean_input_tokens=mix @ workload.mean_input_tokens[busy],
        mean_output_tokens=mix @ workload.mean_output_tokens[busy],
        load=relative,
        load_per_request=relative / np.where(totals > 0, totals / whole.sum(), np.nan),
        variation=0.5 * np.abs(mix - share).sum(axis=1),
        variation_by_chance=chance,
    )
