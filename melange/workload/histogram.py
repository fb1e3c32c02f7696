"""From a trace's requests to a Workload: rate and true mean sizes per bucket, and what was left out on the way."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.errors import InputError
from melange.slo import Slo
from melange.traces import Trace, iter_trace
from melange.traces.layout import TimeUnit
from melange.traces.report import REASONS, SIZE_REASONS, TraceReport, describe_dropped, dropped_warning
from melange.traces.source import Progress
from melange.workload.prometheus import is_metrics, workload_from_metrics
from melange.workload.sizes import SizeGrid
from melange.workload.window_counts import WindowCounts
from melange.workload.windows import Window, WindowRule
from melange.workload.workload import Representative, Workload

PEAK_WINDOW_S = 60.0
DEFAULT_WINDOWS = WindowRule()


def workload_from_trace(
    path: str | os.PathLike[str],
    *,
    grid: SizeGrid,
    slo: Slo,
    rate_rps: float | None = None,
    window_s: tuple[float, float] | None = None,
    name: str | None = None,
    model: str | None = None,
    representative: Representative = "mean",
    windows: WindowRule | None = DEFAULT_WINDOWS,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    time_unit: TimeUnit | None = None,
    block_tokens: int = 512,
    on_progress: Progress | None = None,
) -> tuple[Workload, TraceReport]:
    """Read a trace file in bounded memory and count its requests into the grid's buckets.

    Prometheus' text of vLLM's metrics is read as well (:func:`melange.workload.prometheus.workload_from_metrics`); it
    has neither columns nor times. The reading arguments are those of :func:`melange.traces.iter_trace`, the others
    those of :func:`workload_from_requests`, as are the errors; ``name`` is the file's unless given.
    """
    if is_metrics(path):
        if format != "auto" or columns is not None or time_unit is not None or window_s is not None:
            raise InputError("Prometheus metrics have neither columns nor times", file=path, fix="give only the rate")
        return workload_from_metrics(
            path, grid=grid, slo=slo, rate_rps=rate_rps, name=name, model=model, representative=representative
        )
    parts = iter_trace(
        path, format=format, columns=columns, time_unit=time_unit, block_tokens=block_tokens, on_progress=on_progress
    )
    try:
        return workload_from_requests(
            parts,
            grid=grid,
            slo=slo,
            rate_rps=rate_rps,
            window_s=window_s,
            name=name or Path(path).name.split(".")[0],
            model=model,
            representative=representative,
            windows=windows,
            source=Path(path).name,
        )
    except InputError as error:
        raise error.located(path) from error


def workload_from_requests(
    parts: Iterable[Trace],
    *,
    grid: SizeGrid,
    slo: Slo,
    rate_rps: float | None = None,
    window_s: tuple[float, float] | None = None,
    name: str = "trace",
    model: str | None = None,
    representative: Representative = "mean",
    windows: WindowRule | None = DEFAULT_WINDOWS,
    source: str | None = None,
) -> tuple[Workload, TraceReport]:
    """Count requests into the grid's buckets, with the true means of their sizes.

    Kept are the requests with sizes in the grid and, with ``window_s``, an arrival in [start, end) seconds after the
    trace's first row. ``rate_rps`` is the rate of *kept* requests, in requests/s, shared out over the buckets by their
    numbers; without it the rate is kept requests / span, where the span runs from the first to the last arrival (of
    all rows, kept or not) and is cut to the window. How a trace is cut into ``parts`` makes no difference. ``windows``
    says how the same span is cut into the workload's windows, None that it has none; nor has a trace without times.

    InputError: no request is kept; no rate given and no arrival times, or all of one instant; a window without
    arrival times; a rate that is not positive.
    """
    if rate_rps is not None and not (math.isfinite(rate_rps) and rate_rps > 0):
        raise InputError(f"rate is {rate_rps}", fix="give a positive number of requests per second")
    if window_s is not None and not window_s[0] < window_s[1]:
        raise InputError(f"window is {window_s[0]:g}:{window_s[1]:g}", fix="its end must come after its start")
    counts = _Counts(grid, window_s, windows)
    for part in parts:
        counts.add(part)
    report = counts.report(rate_rps)
    means = {key: _mean(total, counts.requests) for key, total in counts.sums.items()}
    workload = Workload(
        name=name,
        grid=grid,
        rate_rps=counts.requests * (report.rate_rps / report.kept),
        mean_input_tokens=means["input"],
        mean_output_tokens=means["output"],
        mean_product_tokens2=means["product"],
        mean_cached_tokens=means["cached"],
        slo=slo,
        model=model,
        representative=representative,
        burstiness_cv=report.interarrival_cv,
        sample_requests=report.kept,
        windows=counts.windows(),
        provenance=_provenance(report, source, window_s, rate_rps is not None),
    )
    return workload, report


@dataclass(slots=True)
class _Arrivals:
    """Running figures of arrival times: exact for times in order, and aware of those that are not."""

    origin_s: float
    first_s: float = math.inf
    last_s: float = -math.inf
    gaps: int = 0
    backwards: int = 0
    _gap_sum: float = 0.0
    _gap_sum2: float = 0.0
    _latest_kept_s: float | None = None
    _per_window: Counter[int] = field(default_factory=Counter)

    def see(self, times_s: FloatArray) -> None:
        if len(times_s):
            self.first_s = min(self.first_s, float(times_s.min()))
            self.last_s = max(self.last_s, float(times_s.max()))

    def keep(self, times_s: FloatArray) -> None:
        if len(times_s) == 0:
            return
        before = times_s if self._latest_kept_s is None else np.concatenate(([self._latest_kept_s], times_s))
        gaps = np.diff(before)
        self.gaps += len(gaps)
        self.backwards += int((gaps < 0).sum())
        self._gap_sum += float(gaps.sum())
        self._gap_sum2 += float(gaps @ gaps)
        self._latest_kept_s = float(times_s[-1])
        windows, numbers = np.unique(np.floor((times_s - self.origin_s) / PEAK_WINDOW_S), return_counts=True)
        self._per_window.update(dict(zip(windows.astype(int).tolist(), numbers.tolist(), strict=True)))

    def cv(self) -> float | None:
        if self.gaps < 2 or self.backwards or self._gap_sum <= 0:
            return None
        mean = self._gap_sum / self.gaps
        return math.sqrt(max(self._gap_sum2 / self.gaps - mean * mean, 0.0)) / mean

    def peak_to_mean(self, end_s: float) -> float | None:
        whole = math.floor((end_s - self.origin_s) / PEAK_WINDOW_S)
        numbers = [count for window, count in self._per_window.items() if 0 <= window < whole]
        return max(numbers) / (sum(numbers) / whole) if whole >= 2 and numbers else None


class _Counts:
    """Requests and sums of their sizes per bucket, added up part by part; arrays have the grid's shape."""

    def __init__(self, grid: SizeGrid, window_s: tuple[float, float] | None, rule: WindowRule | None) -> None:
        self.grid = grid
        self.window_s = window_s
        self.rows = 0
        self.requests = np.zeros(grid.shape)
        self.sums = {name: np.zeros(grid.shape) for name in ("input", "output", "product", "cached")}
        self.dropped = dict.fromkeys(REASONS, 0)
        self.cached_told = True
        self.cached_upper_bound = False
        self.timed = True
        start = 0.0 if window_s is None else max(window_s[0], 0.0)
        self.arrivals = _Arrivals(origin_s=start)
        self.in_windows = None if rule is None else WindowCounts(rule, grid.shape, start)

    def add(self, part: Trace) -> None:
        self.rows += len(part)
        self.timed &= part.arrival_s is not None
        self.cached_told &= part.cached_tokens is not None
        self.cached_upper_bound |= part.cached_upper_bound
        inside = self._inside_window(part)
        self._count_dropped(part, inside)
        bucket = self.grid.locate(part.input_tokens, part.output_tokens)
        kept = inside & (bucket >= 0)
        self._add_sizes(part, kept, bucket[kept])
        if part.arrival_s is not None:
            self.arrivals.see(part.arrival_s)
            self.arrivals.keep(part.arrival_s[kept])
            if self.in_windows is not None:
                self.in_windows.add(part.arrival_s[kept], bucket[kept])

    def _add_sizes(self, part: Trace, kept: BoolArray, bucket: IntArray) -> None:
        inputs, outputs = part.input_tokens[kept].astype(float), part.output_tokens[kept].astype(float)
        weights = {"input": inputs, "output": outputs, "product": inputs * outputs}
        if part.cached_tokens is not None:
            weights["cached"] = part.cached_tokens[kept].astype(float)
        cells = math.prod(self.grid.shape)
        self.requests += np.bincount(bucket, minlength=cells).reshape(self.grid.shape)
        for name, weight in weights.items():
            self.sums[name] += np.bincount(bucket, weight, cells).reshape(self.grid.shape)

    def _inside_window(self, part: Trace) -> BoolArray:
        if self.window_s is None:
            return np.ones(len(part), dtype=np.bool_)
        if part.arrival_s is None:
            raise InputError(
                "a window of a trace without arrival times", fix="leave out --window, or map a time column"
            )
        return np.asarray((part.arrival_s >= self.window_s[0]) & (part.arrival_s < self.window_s[1]))

    def _count_dropped(self, part: Trace, left: BoolArray) -> None:
        self.dropped["outside_window"] += int((~left).sum())
        tests = (
            part.input_tokens == 0,
            part.output_tokens == 0,
            part.input_tokens > self.grid.max_input_tokens,
            part.output_tokens > self.grid.max_output_tokens,
        )
        for reason, hit in zip(SIZE_REASONS, tests, strict=True):
            self.dropped[reason] += int((left & hit).sum())
            left = left & ~hit

    def report(self, rate_rps: float | None) -> TraceReport:
        kept = int(self.requests.sum())
        if kept == 0:
            raise InputError(
                f"no request is kept of {self.rows:,}: {describe_dropped(self.dropped)}", fix=self._nothing_kept_fix()
            )
        span = self._span_s()
        totals = {name: float(total.sum()) / kept for name, total in self.sums.items()}
        return TraceReport(
            rows=self.rows,
            kept=kept,
            dropped=self.dropped,
            rate_rps=self._rate_rps(kept, span) if rate_rps is None else rate_rps,
            mean_input_tokens=totals["input"],
            mean_output_tokens=totals["output"],
            mean_cached_tokens=totals["cached"] if self.cached_told else None,
            span_s=span,
            interarrival_cv=self.arrivals.cv() if self.timed else None,
            peak_to_mean=None if span is None else self.arrivals.peak_to_mean(self.arrivals.origin_s + span),
            warnings=tuple(self._warnings(kept)),
        )

    def windows(self) -> tuple[Window, ...]:
        """The windows of the span; empty for a trace without times."""
        return () if self.in_windows is None or not self.timed else self.in_windows.windows(*self._ends_s())

    def _span_s(self) -> float | None:
        if not self.timed:
            return None
        first, last = self._ends_s()
        return last - first

    def _ends_s(self) -> tuple[float, float]:
        """The first and the last arrival of all rows, cut to the window."""
        start, end = self.window_s or (-math.inf, math.inf)
        return max(self.arrivals.first_s, start), min(self.arrivals.last_s, end)

    def _rate_rps(self, kept: int, span_s: float | None) -> float:
        if span_s is None:
            raise InputError("the trace tells no arrival times and so no rate", fix="give the rate: --rate R")
        if span_s <= 0:
            raise InputError("all requests arrive in one instant, which tells no rate", fix="give the rate: --rate R")
        return kept / span_s

    def _warnings(self, kept: int) -> Iterable[str]:
        if (warning := dropped_warning(kept, self.dropped)) is not None:
            yield warning
        if self.timed and self.arrivals.backwards:
            yield (
                f"{self.arrivals.backwards:,} requests arrive before the one above them: burstiness is not told; "
                "sort the trace by time to have it"
            )
        if self.cached_upper_bound:
            yield "cached tokens are those of an infinite prefix cache that starts empty: an upper bound"

    def _nothing_kept_fix(self) -> str:
        if self.dropped["outside_window"] == self.rows:
            return f"the trace runs from {self.arrivals.first_s:g} to {self.arrivals.last_s:g} s after its first row"
        return "check the grid's edges and which column is which"


def _mean(total: FloatArray, requests: FloatArray) -> FloatArray:
    means: FloatArray = np.divide(total, requests, out=np.full(requests.shape, np.nan), where=requests > 0)
    return means


def _provenance(
    report: TraceReport, source: str | None, window_s: tuple[float, float] | None, rate_given: bool
) -> dict[str, object]:
    facts = {key: value for key, value in report.to_dict().items() if key not in ("rate_rps", "warnings")}
    origin: dict[str, object] = {} if source is None else {"trace": source}
    if window_s is not None:
        origin["window_s"] = [edge if math.isfinite(edge) else None for edge in window_s]
    return {**origin, **facts, "rate": "given" if rate_given else "kept requests / span_s"}
