"""What one run's requests experienced, and why some of them missed the SLO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.perfmodel.clock import StepClock
from melange.plan.plan import Plan
from melange.routing.table import RoutingTable
from melange.simulator.lone import lone_latency_s
from melange.simulator.run import Played
from melange.simulator.state import Records
from melange.slo import Slo, lower_quantile, percentile_name, tpot_s

PERCENTILES = (50.0, 90.0, 95.0, 99.0)

CAUSES: Mapping[str, str] = {
    "failure": "its replica failed, or none was up",
    "impossible": "no GPU of the fleet keeps the SLO for its size, even alone",
    "mispredicted_length": "its true size is not served by the config that it was sent to",
    "slow_gpu": "the config that the plan chose misses the SLO for its size, even alone",
    "burst": "it waited before its prompt was taken up; without the wait it would have kept the SLO",
    "colocation": "it shared its iterations with other requests, large ones above all",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestOutcomes:
    """Requests of one replication after its warm-up; arrays of shape (n,).

    ``ttft_s``, ``e2e_s`` and ``tpot_s`` (by the SLO's definition) are NaN for requests that were never served.
    ``config`` is the index of the config, -1 for none; ``bucket`` the flat index in the grid; ``cause`` the index in
    CAUSES, -1 for requests that kept the SLO; None where nobody asked why.
    """

    arrival_s: FloatArray
    input_tokens: IntArray
    output_tokens: IntArray
    ttft_s: FloatArray
    e2e_s: FloatArray
    tpot_s: FloatArray
    met: BoolArray
    config: IntArray
    bucket: IntArray
    cause: IntArray | None
    preemptions: IntArray
    restarts: IntArray


def outcome_of(
    played: Played, plan: Plan, table: RoutingTable, clocks: Sequence[StepClock], warmup: int, *, causes: bool = True
) -> RequestOutcomes:
    """The outcome of a run's requests after the first ``warmup`` ones; without ``causes`` only who missed, not why."""
    requests = played.requests[warmup:]
    slo = plan.slo
    arrival_s = np.array(requests.arrival_s)
    ttft, e2e = requests.first_s - arrival_s, requests.end_s - arrival_s
    tokens = np.array(requests.output_tokens)
    met = slo.met(e2e_s=e2e, ttft_s=ttft, output_tokens=tokens)
    config = np.where(requests.replica >= 0, table.config_of[np.maximum(requests.replica, 0)], -1)
    bucket = _buckets(table, requests.input_tokens, tokens)
    return RequestOutcomes(
        arrival_s=arrival_s,
        input_tokens=np.array(requests.input_tokens),
        output_tokens=tokens,
        ttft_s=ttft,
        e2e_s=e2e,
        tpot_s=tpot_s(slo.tpot_definition, e2e_s=e2e, ttft_s=ttft, output_tokens=tokens),
        met=met,
        config=config,
        bucket=bucket,
        cause=_causes(requests, slo, table, clocks, met, config, bucket, ttft, e2e) if causes else None,
        preemptions=np.array(requests.preemptions),
        restarts=np.array(requests.restarts),
    )


def _buckets(table: RoutingTable, input_tokens: IntArray, output_tokens: IntArray) -> IntArray:
    n_in, n_out = len(table.input_edges), len(table.output_edges)
    i = np.minimum(np.searchsorted(table.input_edges, input_tokens), n_in - 1)
    o = np.minimum(np.searchsorted(table.output_edges, output_tokens), n_out - 1)
    return np.asarray(i * n_out + o, dtype=np.int64)


def lone_met(clock: StepClock, slo: Slo, input_tokens: IntArray, output_tokens: IntArray) -> BoolArray:
    """Which requests would keep all limits of the SLO on an idle replica that has room for them."""
    return slo.met(**_alone(clock, input_tokens, output_tokens))


def lone_within(clock: StepClock, slo: Slo, input_tokens: IntArray, output_tokens: IntArray) -> dict[str, BoolArray]:
    """Which requests would keep each limit there, by its name."""
    return slo.within(**_alone(clock, input_tokens, output_tokens))


def _alone(clock: StepClock, input_tokens: IntArray, output_tokens: IntArray) -> dict[str, Any]:
    """Latencies on an idle replica, NaN where a request has no room, as an SLO judges them."""
    ttft, e2e = lone_latency_s(clock, input_tokens, output_tokens)
    fits = clock.held_tokens(input_tokens + output_tokens - 1) <= clock.kv_capacity_tokens
    return {"e2e_s": np.where(fits, e2e, np.nan), "ttft_s": ttft, "output_tokens": output_tokens}


def _causes(
    requests: Records,
    slo: Slo,
    table: RoutingTable,
    clocks: Sequence[StepClock],
    met: BoolArray,
    config: IntArray,
    bucket: IntArray,
    ttft: FloatArray,
    e2e: FloatArray,
) -> IntArray:
    names = list(CAUSES)
    alone = np.stack([lone_met(clock, slo, requests.input_tokens, requests.output_tokens) for clock in clocks])
    at = np.maximum(config, 0)
    alone_here = alone[at, np.arange(len(at))] & (config >= 0)
    served_here = table.shares[bucket, at] > 0
    wait = requests.start_s - requests.arrival_s
    prompt = slo.met(e2e_s=e2e - wait, ttft_s=ttft - wait, output_tokens=requests.output_tokens)
    rules = [
        ("failure", (requests.restarts > 0) | (config < 0)),
        ("impossible", ~alone.any(axis=0)),
        ("mispredicted_length", ~served_here & ((requests.row != bucket) | ~alone_here)),
        ("slow_gpu", ~alone_here),
        ("burst", prompt),
        ("colocation", np.ones(len(at), dtype=bool)),
    ]
    cause = np.select([rule for _, rule in rules], [names.index(name) for name, _ in rules])
    return np.where(met, -1, cause).astype(np.int64)


def kept_by(outcome: RequestOutcomes, slo: Slo) -> dict[str, BoolArray]:
    """Which requests keep each limit that is promised by itself, by its name; empty where none is."""
    if not slo.quantiles:
        return {}
    return slo.within(e2e_s=outcome.e2e_s, ttft_s=outcome.ttft_s, output_tokens=outcome.output_tokens)


def attainment_of(outcome: RequestOutcomes, slo: Slo, *, least_requests: int = 20) -> float:
    """What of the SLO's share is attained (see Slo.attained); for the scope ``bucket``, the least of any bucket.

    That is the share of requests that meet all thresholds or, of percentiles, the least share within one of them.
    Buckets with fewer than ``least_requests`` requests say nothing about a share and are left out.
    """
    if slo.scope == "bucket":
        count = np.bincount(outcome.bucket)
        found = attained_by(outcome, slo, outcome.bucket, len(count))
        if (count >= least_requests).any():
            return float(found[count >= least_requests].min())
    return float(attained_by(outcome, slo, np.zeros_like(outcome.bucket), 1)[0])


def attained_by(outcome: RequestOutcomes, slo: Slo, part: IntArray, parts: int) -> FloatArray:
    """What of the SLO's share is attained in each part of the requests, (parts,); NaN without requests.

    ``part``: (n,) the part of each request.
    """
    count = np.bincount(part, minlength=parts)

    def shares(kept: BoolArray) -> FloatArray:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.bincount(part, weights=kept, minlength=parts) / count)

    joint = shares(outcome.met)
    each = {name: shares(kept) for name, kept in kept_by(outcome, slo).items()}
    found = [slo.attained({name: held[k] for name, held in each.items()}, joint[k]) for k in range(parts)]
    return np.where(count > 0, found, np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPercentile:
    """A percentile that is promised by itself, and what it came to.

    ``latency`` is ``tpot``, ``ttft`` or ``e2e``, ``quantile`` 0.95 for the p95. ``measured_s`` is that quantile over
    all requests, 0 standing for the decode TPOT of one output token, None where it falls on a request that was never
    served. ``within`` is the share of the requests within the limit; ``kept`` where that is no less than the quantile.
    """

    latency: str
    quantile: float
    limit_s: float
    measured_s: float | None
    within: float
    kept: bool

    def describe(self) -> str:
        """``p95 TTFT 412 ms, limit 500 ms: kept``."""
        measured = "never" if self.measured_s is None else f"{1000 * self.measured_s:,.3g} ms"
        verdict = "kept" if self.kept else f"not kept ({100 * self.within:.2f}% within it)"
        name = f"{percentile_name(self.quantile)} {self.latency.upper()}"
        return f"{name} {measured}, limit {1000 * self.limit_s:g} ms: {verdict}"


def kept_percentiles(outcome: RequestOutcomes, slo: Slo) -> tuple[KeptPercentile, ...]:
    """Each percentile that the SLO promises, over all of these requests; none for another statistic."""
    values = slo.latencies_s(e2e_s=outcome.e2e_s, ttft_s=outcome.ttft_s, output_tokens=outcome.output_tokens)
    found = []
    for name, quantile in slo.quantiles.items():
        measured, limit = lower_quantile(values[name], quantile), slo.thresholds_s[name]
        found.append(
            KeptPercentile(
                latency=name,
                quantile=quantile,
                limit_s=limit,
                measured_s=measured if np.isfinite(measured) else None,
                within=float(np.mean(values[name] <= limit)),
                kept=measured <= limit,
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over replications with its two-sided 95% t interval; no interval from a single replication."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float], *, floor: float = 0.0, ceiling: float = 1.0) -> Estimate:
        """The estimate from one value per replication, its interval cut to what is possible."""
        mean, count = float(np.mean(values)), len(values)
        if count < 2:
            return cls(mean=mean, low=None, high=None)
        half = float(student_t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
        return cls(mean=mean, low=max(mean - half, floor), high=min(mean + half, ceiling))


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Mean and percentiles of a latency in seconds over served requests; None where there is nothing to average."""

    mean_s: float | None
    p50_s: float | None
    p90_s: float | None
    p95_s: float | None
    p99_s: float | None

    @classmethod
    def of(cls, values: FloatArray) -> Latency:
        """From one value per request, NaN left out."""
        known = values[~np.isnan(values)]
        if not len(known):
            return cls(mean_s=None, p50_s=None, p90_s=None, p95_s=None, p99_s=None)
        points = [float(v) for v in np.percentile(known, PERCENTILES)]
        return cls(mean_s=float(known.mean()), p50_s=points[0], p90_s=points[1], p95_s=points[2], p99_s=points[3])
