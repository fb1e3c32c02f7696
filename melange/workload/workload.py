"""Workload: how many requests of which size arrive per second, and the promise they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.files.shown import short_repr
from melange.slo import Slo
from melange.workload.bucket import Bucket
from melange.workload.sizes import SizeGrid
from melange.workload.windows import Window, check_windows, window_paces

if TYPE_CHECKING:
    from pandas import DataFrame

Representative = Literal["mean", "upper_edge"]

_MEANS = ("mean_input_tokens", "mean_output_tokens", "mean_product_tokens2", "mean_cached_tokens")


MOST_RATE_RPS = 1e9
"""Requests per second beyond all the world's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Request rate and size moments per bucket of a grid, plus the SLO.

    All arrays have the grid's shape (n_input, n_output) and are read-only. ``rate_rps`` is in requests/s and never
    negative; the means are per request of the bucket and NaN where the bucket has no requests.
    ``mean_product_tokens2`` is the mean of input x output, ``mean_cached_tokens`` that of prefix-hit input tokens.
    ``representative`` says at which size a bucket's load is taken: its ``mean`` sizes, or the ``upper_edge`` as in
    the paper. ``burstiness_cv`` is the coefficient of variation of inter-arrival times where a trace told it,
    ``sample_requests`` the number of requests that the histogram was counted from; None where neither is known.
    ``provenance`` says where it came from, for reading only.
    ``windows`` say when the requests of each bucket came, where a trace told it: they hold counts, ``rate_rps`` says
    how many there are. Over the windows each bucket's rate is ``rate_rps`` in the mean, whatever it is scaled to.
    """

    name: str
    grid: SizeGrid
    rate_rps: FloatArray
    mean_input_tokens: FloatArray
    mean_output_tokens: FloatArray
    mean_product_tokens2: FloatArray
    mean_cached_tokens: FloatArray
    slo: Slo
    model: str | None = None
    representative: Representative = "mean"
    burstiness_cv: float | None = None
    sample_requests: int | None = None
    windows: tuple[Window, ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("rate_rps", *_MEANS):
            array = np.array(getattr(self, name), dtype=float)
            if array.shape != self.grid.shape:
                raise InputError(
                    f"workload {self.name}: {name} has shape {array.shape}, its grid {self.grid.shape}",
                    fix="give one value per bucket",
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.representative not in get_args(Representative):
            raise InputError(
                f"workload {self.name}: representative is {self.representative!r}", fix="use mean or upper_edge"
            )
        if self.sample_requests is not None and self.sample_requests < 1:
            raise InputError(f"workload {self.name}: sample_requests is {self.sample_requests}", fix="give at least 1")
        self._check_rates()
        self._check_means()
        object.__setattr__(self, "windows", tuple(self.windows))
        check_windows(self.windows, self.grid.shape)
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def _check_rates(self) -> None:
        if not np.all(np.isfinite(self.rate_rps)) or np.any(self.rate_rps < 0):
            bad = self.rate_rps[~(np.isfinite(self.rate_rps) & (self.rate_rps >= 0))][0]
            raise InputError(f"workload {self.name}: a bucket's rate is {bad}", fix="rates are finite and >= 0")
        if self.rate_rps.sum() > MOST_RATE_RPS:
            raise InputError(
                f"workload {self.name}: {self.rate_rps.sum():.3g} requests per second",
                fix="check the rate and its unit",
            )
        if not self.rate_rps.any():
            raise InputError(f"workload {self.name} is empty: every bucket's rate is 0", fix="give it some requests")

    def _check_means(self) -> None:
        busy = self.rate_rps > 0
        for name in _MEANS:
            values = getattr(self, name)[busy]
            least = 0.0 if name == "mean_cached_tokens" else 1.0
            if not np.all(np.isfinite(values) & (values >= least * (1 - 1e-9))):
                raise InputError(
                    f"workload {self.name}: {name} of a bucket with requests is "
                    f"{values[~(np.isfinite(values) & (values >= least * (1 - 1e-9)))][0]}",
                    fix=f"means are finite and at least {least:g}",
                )
        edges_in, edges_out = self.grid.upper_edges()
        for name, edges in (("mean_input_tokens", edges_in), ("mean_output_tokens", edges_out)):
            values = getattr(self, name)
            above = busy & (values > edges * (1 + 1e-9))
            if above.any():
                raise InputError(
                    f"workload {self.name}: {name} {values[above][0]:g} lies above its bucket's edge "
                    f"{edges[above][0]:g}",
                    fix="check edges and means",
                )
        cached = busy & (self.mean_cached_tokens > self.mean_input_tokens * (1 + 1e-9))
        if cached.any():
            raise InputError(
                f"workload {self.name}: mean_cached_tokens {self.mean_cached_tokens[cached][0]:g} exceeds "
                f"mean_input_tokens {self.mean_input_tokens[cached][0]:g}",
                fix="cached tokens are part of the input",
            )
        products = busy & (self.mean_product_tokens2 > edges_in * edges_out * (1 + 1e-9))
        if products.any():
            raise InputError(
                f"workload {self.name}: mean_product_tokens2 {self.mean_product_tokens2[products][0]:g} lies above "
                f"the product of its bucket's edges {(edges_in * edges_out)[products][0]:g}",
                fix="give the mean of input x output tokens",
            )

    @property
    def total_rate_rps(self) -> float:
        return float(self.rate_rps.sum())

    @property
    def input_tokens_per_s(self) -> float:
        """Input tokens that arrive per second, by the true means."""
        return float(np.nansum(self.rate_rps * np.nan_to_num(self.mean_input_tokens)))

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens generated per second, by the true means."""
        return float(np.nansum(self.rate_rps * np.nan_to_num(self.mean_output_tokens)))

    def representative_tokens(self) -> tuple[FloatArray, FloatArray]:
        """Input and output size at which each bucket's load is taken; shape of the grid, NaN for empty buckets."""
        if self.representative == "upper_edge":
            return self.grid.upper_edges()
        return self.mean_input_tokens, self.mean_output_tokens

    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets with demand, by input edge and then by output edge."""
        sizes = self.representative_tokens()
        return tuple(
            Bucket(
                input_tokens_max=self.grid.input_edges_tokens[i],
                output_tokens_max=self.grid.output_edges_tokens[j],
                rate_rps=float(self.rate_rps[i, j]),
                **{name: float(getattr(self, name)[i, j]) for name in _MEANS},
                load_input_tokens=float(sizes[0][i, j]),
                load_output_tokens=float(sizes[1][i, j]),
            )
            for i, j in np.argwhere(self.rate_rps > 0)
        )

    def at_rate(self, rate_rps: float) -> Workload:
        """The same mix of sizes at another total rate in requests/s."""
        if not (np.isfinite(rate_rps) and rate_rps > 0):
            raise InputError(f"rate is {rate_rps}", fix="give a positive number of requests per second")
        return replace(self, rate_rps=self.rate_rps * (rate_rps / self.total_rate_rps))

    def window_rates_rps(self) -> FloatArray:
        """(n_windows, n_input, n_output): each window's rate per bucket in requests/s; empty without windows."""
        if not self.windows:
            return np.zeros((0, *self.grid.shape))
        return np.asarray(window_paces(self.windows) * self.rate_rps)

    def in_window(self, number: int) -> Workload:
        """The workload of one window alone: its rates, the same mean sizes per bucket. InputError if it is empty."""
        window, rates = self.windows[number], self.window_rates_rps()[number]
        if not rates.any():
            raise InputError(f"workload {self.name}: nothing arrives in the window at {window.start_s:g} s")
        facts = {**self.provenance, "window_s": [window.start_s, window.end_s]}
        sample = max(1, round(window.count))
        return replace(self, rate_rps=rates, windows=(), sample_requests=sample, provenance=facts)

    def __repr__(self) -> str:
        busy = int((self.rate_rps > 0).sum())
        of = f" of {self.model}" if self.model else ""
        return short_repr(
            "Workload", f"{self.name}: {self.total_rate_rps:.4g} req/s{of}, {busy} sizes, {self.slo.describe()}"
        )

    def to_frame(self) -> DataFrame:
        """The histogram, one row a bucket of the grid.

        Index: ``input_tokens_max``, ``output_tokens_max`` (upper edges, inclusive). Columns: ``rate_rps``, ``share``
        (of all requests, a fraction), ``mean_input_tokens``, ``mean_output_tokens``, ``mean_product_tokens2``,
        ``mean_cached_tokens`` (NaN where the bucket has no requests).
        """
        import pandas as pd

        edges = [self.grid.input_edges_tokens, self.grid.output_edges_tokens]
        columns = {"rate_rps": self.rate_rps.ravel(), "share": self.rate_rps.ravel() / self.total_rate_rps}
        columns |= {name: getattr(self, name).ravel() for name in _MEANS}
        return pd.DataFrame(
            columns, index=pd.MultiIndex.from_product(edges, names=["input_tokens_max", "output_tokens_max"])
        )
