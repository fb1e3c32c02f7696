"""Arrivals: when requests come and how large they are, from a trace or from a random process."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.errors import InputError
from melange.plan.plan import Plan

if TYPE_CHECKING:
    from melange.traces import Trace


LEAST_CV, MOST_CV = 0.001, 1000.0  # of what is given; beyond them the gamma distribution's shape is no number
PROCESSES = ("trace", "poisson", "gamma:CV", "mmpp")

# Two states of equal mean duration, three times as many arrivals in one as in the other: bursts of a minute, over which
# a fleet sized for the mean falls behind.
MMPP_RATIO = 3.0
MMPP_MEAN_STATE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrivals:
    """Requests in order of arrival; arrays of shape (n,), times in seconds, sizes in whole tokens of at least 1."""

    arrival_s: FloatArray
    input_tokens: IntArray
    output_tokens: IntArray
    cached_tokens: IntArray

    def __post_init__(self) -> None:
        if len(self.arrival_s) == 0:
            raise InputError("there are no requests to simulate", fix="give at least one")
        if (np.diff(self.arrival_s) < 0).any():
            raise InputError("arrival times are not ascending", fix="sort the requests by time")
        if (self.input_tokens < 1).any() or (self.output_tokens < 1).any():
            raise InputError("a request has no input or no output tokens", fix="leave such requests out")

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of arrivals: ``trace`` replays a trace's times, scaled to the rate asked for, others are drawn at it.

    ``cv`` is the coefficient of variation of gamma-distributed inter-arrival times (1 is Poisson, 0 a metronome).
    ``mmpp`` switches between two Poisson rates, 1:3, staying 60 s in each on average, exponentially distributed.
    """

    kind: str
    cv: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Process:
        """``trace``, ``poisson``, ``gamma:2.5`` or ``mmpp``."""
        kind, _, rest = text.partition(":")
        if kind not in ("trace", "poisson", "gamma", "mmpp") or (kind == "gamma") != bool(rest):
            raise InputError(f"arrivals are {text!r}", fix=f"use one of {', '.join(PROCESSES)}")
        if kind != "gamma":
            return cls(kind=kind)
        try:
            cv = float(rest)
        except ValueError:
            cv = math.nan
        if not LEAST_CV <= cv <= MOST_CV:
            fix = f"give a coefficient of variation from {LEAST_CV:g} to {MOST_CV:g}, as in gamma:2"
            raise InputError(f"arrivals are {text!r}", fix=fix)
        return cls(kind=kind, cv=cv)

    def describe(self) -> str:
        return f"gamma:{self.cv:g}" if self.kind == "gamma" else self.kind


def arrival_times(process: Process, count: int, rate_rps: float, rng: np.random.Generator) -> FloatArray:
    """(count,) ascending times at a mean rate; ``trace`` has none to draw and raises InputError."""
    if process.kind == "trace":
        raise InputError(
            "arrival times are those of a trace, and none was given", fix="give --trace, or another process"
        )
    if process.kind == "mmpp":
        return _mmpp(count, rate_rps, rng)
    return np.asarray(np.cumsum(_gaps(process, count, rng)) / rate_rps)


def _gaps(process: Process, count: int, rng: np.random.Generator) -> FloatArray:
    """Inter-arrival times of mean 1."""
    if process.kind == "poisson":
        return rng.exponential(size=count)
    if process.cv == 0:
        return np.ones(count)
    shape = 1.0 / process.cv**2
    return rng.gamma(shape, 1.0 / shape, size=count)


def _mmpp(count: int, rate_rps: float, rng: np.random.Generator) -> FloatArray:
    """Unit-rate arrivals laid over the integral of a rate that switches between two values of mean ``rate_rps``."""
    slow = 2.0 * rate_rps / (1.0 + MMPP_RATIO)
    work = np.cumsum(rng.exponential(size=count))
    states = int(2 * work[-1] / (slow * MMPP_MEAN_STATE_S)) + 16
    while True:
        durations = rng.exponential(MMPP_MEAN_STATE_S, size=states)
        rates = np.where((np.arange(states) + rng.integers(2)) % 2 == 0, slow, slow * MMPP_RATIO)
        ends = np.concatenate([[0.0], np.cumsum(durations)])
        done = np.concatenate([[0.0], np.cumsum(durations * rates)])
        if done[-1] >= work[-1]:
            return np.asarray(np.interp(work, done, ends))
        states *= 2


def drawn_process(cv: float | None) -> Process:
    """Arrivals as uneven as those that a workload was made from, by its ``burstiness_cv``; Poisson without."""
    return Process(kind="poisson") if cv is None else Process(kind="gamma", cv=cv)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sizes:
    """Where sizes are drawn from: rows of (input, output, cached) tokens with probabilities.

    ``low`` and ``high``: (n, 2) bounds between which input and output are spread around the rows' means; None keeps
    every request at its row's size. ``dropped`` counts requests of a trace outside the plan's sizes, ``source`` says
    what this is.
    """

    tokens: FloatArray
    probability: FloatArray
    source: str
    low: FloatArray | None = None
    high: FloatArray | None = None
    dropped: int = 0

    def draw(self, count: int, rng: np.random.Generator) -> tuple[IntArray, IntArray, IntArray]:
        """(input, output, cached) tokens of ``count`` requests."""
        return self.of_rows(rng.choice(len(self.probability), size=count, p=self.probability), rng)

    def of_rows(self, row: IntArray, rng: np.random.Generator) -> tuple[IntArray, IntArray, IntArray]:
        """(input, output, cached) tokens of requests of these rows, spread between the rows' bounds."""
        count, tokens = len(row), self.tokens[row]
        if self.low is not None and self.high is not None:
            spread = rng.random((count, 2))
            for axis in (0, 1):
                tokens[:, axis] = _spread(
                    self.tokens[:, axis], self.low[:, axis], self.high[:, axis], row, spread[:, axis]
                )
        whole = np.maximum(np.round(tokens), (1.0, 1.0, 0.0)).astype(np.int64)
        return whole[:, 0], whole[:, 1], np.minimum(whole[:, 2], whole[:, 0])


def _spread(mean: FloatArray, low: FloatArray, high: FloatArray, row: IntArray, uniform: FloatArray) -> FloatArray:
    """Quantiles of the maximum-entropy distribution on (low, high] with each row's mean: a truncated exponential."""
    rate = np.array([_exponential_rate((m - a) / (b - a)) for m, a, b in zip(mean, low, high, strict=True)])[row]
    flat = np.abs(rate) < 1e-6
    safe = np.where(flat, 1.0, rate)
    place = np.where(flat, uniform, np.log1p(uniform * np.expm1(safe)) / safe)
    return np.asarray(low[row] + (high - low)[row] * place)


@lru_cache(maxsize=4096)  # Every replication of every fleet asks for the same buckets' rates.
def _exponential_rate(mean: float) -> float:
    """The k of a density proportional to exp(k x) on [0, 1] that has this mean, by bisection."""
    low, high = -500.0, 500.0
    for _ in range(60):
        k = (low + high) / 2
        current = 0.5 if abs(k) < 1e-6 else 1.0 / -np.expm1(-k) - 1.0 / k
        low, high = (k, high) if current < mean else (low, k)
    return (low + high) / 2


def plan_sizes(plan: Plan, *, spread: bool = True) -> Sizes:
    """Sizes from the plan's buckets, by their rates.

    ``spread`` draws input and output within each bucket's edges so that its means hold (maximum entropy, independent
    of each other); without it every request has its bucket's mean size, which hides what small and large requests of
    a bucket do to each other.
    """
    grid = plan.grid
    inputs, outputs = grid.input_edges_tokens, grid.output_edges_tokens
    lower_in, lower_out = dict(zip(inputs, [0, *inputs], strict=False)), dict(zip(outputs, [0, *outputs], strict=False))
    rows, low, high = [], [], []
    for b in plan.buckets:
        top = (float(b.input_tokens_max or 0), float(b.output_tokens_max or 0))
        mean = (b.mean_input_tokens or top[0], b.mean_output_tokens or top[1], b.mean_cached_tokens or 0.0)
        bottom = (lower_in[int(top[0])], lower_out[int(top[1])])
        # Rounded, (a + 0.5, b + 0.5] gives the whole numbers from a + 1 to b.
        low.append([bottom[0] + 0.5, bottom[1] + 0.5])
        high.append([top[0] + 0.5, top[1] + 0.5])
        rows.append(mean)
    rate = np.array([b.rate_rps for b in plan.buckets])
    return Sizes(
        tokens=np.array(rows, dtype=float),
        probability=rate / rate.sum(),
        source="bucket means, spread within each bucket's edges" if spread else "bucket means",
        low=np.array(low) if spread else None,
        high=np.array(high) if spread else None,
    )


def trace_sizes(plan: Plan, trace: Trace) -> tuple[Sizes, BoolArray]:
    """Sizes of a trace's requests, each as likely as the other, and which of them lie within the plan's sizes.

    Requests without tokens or above the plan's largest size are dropped and counted; InputError if none is left.
    """
    grid = plan.grid
    inside = grid.locate(trace.input_tokens, trace.output_tokens) >= 0
    if not inside.any():
        raise InputError(
            "no request of the trace lies within the plan's sizes" if len(trace) else "the trace is empty",
            fix=f"give requests of 1 to {grid.max_input_tokens} input and 1 to {grid.max_output_tokens} output tokens",
        )
    cached = trace.cached_tokens if trace.cached_tokens is not None else np.zeros(len(trace), dtype=np.int64)
    tokens = np.stack([trace.input_tokens, trace.output_tokens, cached], axis=1)[inside].astype(float)
    kept = len(tokens)
    return (
        Sizes(
            tokens=tokens,
            probability=np.full(kept, 1.0 / kept),
            source="the trace's sizes",
            dropped=len(trace) - kept,
        ),
        inside,
    )


def drawn_arrivals(sizes: Sizes, process: Process, count: int, rate_rps: float, rng: np.random.Generator) -> Arrivals:
    """``count`` requests of these sizes at a mean rate."""
    arrival_s = arrival_times(process, count, rate_rps, rng)
    input_tokens, output_tokens, cached_tokens = sizes.draw(count, rng)
    return Arrivals(
        arrival_s=arrival_s, input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens
    )


def recorded_rate_rps(trace: Trace, inside: BoolArray) -> float:
    """The rate of a trace's requests inside the plan's sizes: their number over the span of all its arrivals.

    InputError for a trace without times, or whose requests all arrive in one instant.
    """
    if trace.arrival_s is None:
        raise InputError("the trace has no arrival times", fix="draw them, for example with --arrivals poisson")
    span = trace.span_s
    if not span:
        raise InputError(
            "all requests of the trace arrive in one instant, which tells no rate to scale",
            fix="draw the arrivals, for example with --arrivals poisson",
        )
    return float(inside.sum()) / span


def replayed_arrivals(
    trace: Trace, inside: BoolArray, count: int | None, rate_rps: float, *, first: int | None = None
) -> Arrivals:
    """A trace's own requests in their order, the first ``count`` of those inside the plan's sizes.

    Their times are the trace's, all stretched by one factor that makes :func:`recorded_rate_rps` the rate asked for.
    Errors as there. From the ``first``-th of them on where that is given: then the trace goes round, its first request
    following its last one after a gap of the mean length, until there are ``count``.
    """
    recorded = recorded_rate_rps(trace, inside)
    assert trace.arrival_s is not None
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(trace.arrival_s[rows], kind="stable")]
    if first is None:
        rows = rows[:count]
        times = trace.arrival_s[rows]
    else:
        place = first + np.arange(len(rows) if count is None else count)
        lap_s = trace.arrival_s[rows[-1]] - trace.arrival_s[rows[0]] + 1 / recorded
        lap, rows = place // len(rows), rows[place % len(rows)]
        times = trace.arrival_s[rows] + lap * lap_s
    cached = trace.cached_tokens[rows] if trace.cached_tokens is not None else np.zeros(len(rows), dtype=np.int64)
    return Arrivals(
        arrival_s=(times - times[0]) * (recorded / rate_rps),
        input_tokens=trace.input_tokens[rows],
        output_tokens=trace.output_tokens[rows],
        cached_tokens=cached,
    )


def lengthened(arrivals: Arrivals, longer_input: float, longer_output: float) -> Arrivals:
    """The same requests with so much longer inputs and outputs, 0.1 for 10%; cached prefixes stay as they are."""
    if longer_input == 0 and longer_output == 0:
        return arrivals
    return replace(
        arrivals,
        input_tokens=np.rint(arrivals.input_tokens * (1 + longer_input)).astype(np.int64),
        output_tokens=np.rint(arrivals.output_tokens * (1 + longer_output)).astype(np.int64),
    )
