"""corrected_guess: the capacity that load points promise before anything is confirmed.

Closed-loop points give the curve rate = concurrency / latency; treating the engine as a server whose speed depends on
how many requests it holds (Chandy, Herzog and Woo 1975, flow-equivalent service) turns that curve into a guess of the
Poisson capacity, and each Poisson point corrects it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.arrays import FloatArray
from melange.measurements.measurement import Measurement
from melange.slo import Slo, tpot_s

ABOVE_CLOSED = 1.1  # a Poisson load sustains no more than the closed loops' highest throughput, noise aside
MOST_DRIFT = 1.4  # log: Poisson loads may correct the closed loops' guess by a factor of four
MOST_IN_SYSTEM = 4096
SATURATION_GAIN = 1.08  # a rung that adds less throughput than this for 4 times the concurrency ends the ladder


def corrected_guess(points: Sequence[Measurement], slo: Slo) -> float | None:
    """The capacity that the curve promises, scaled by how far the Poisson loads so far departed from the curve.

    Each load says at which rate the curve would have shown its statistic; the ratio to its own rate is the scale.
    """
    curve = _curve([p for p in points if p.loop == "closed" and p.valid and p.e2e_s is not None])
    if curve is None:
        return None
    guess = _rate_at(curve, slo, 1.0)
    scales, weights = [], []
    for point in points:
        if point.loop != "open" or not point.valid or not point.offered_rps:
            continue
        shown = _shown(point, curve, slo)
        if shown is not None:
            scales.append(math.log(point.offered_rps / shown[0]))
            weights.append(point.samples * shown[1])
    if not scales or not sum(weights):
        return guess
    drift = float(np.average(scales, weights=weights))
    corrected = guess * math.exp(min(MOST_DRIFT, max(-MOST_DRIFT, drift)))
    return min(corrected, ABOVE_CLOSED * float(curve.rate_rps.max()))


def _shown(point: Measurement, curve: _Curve, slo: Slo) -> tuple[float, float] | None:
    """At which rate the curve shows what the point measured, and what that says about the limit: less from afar.

    Attainment is compared as a share, for a quantile of latencies hardly moves where steps are discrete.
    """
    if slo.statistic == "mean":
        level = _level(point, slo)
        return None if not level else (_rate_at(curve, slo, level), math.exp(-4 * abs(math.log(level))))
    if not point.sample_e2e_s:
        return None
    seen = [(_seen_share(point, part), promised, part) for part, promised in _shares_promised(slo)]
    apart, share, part = min(
        ((math.log(share / (1 - share) * (1 - promised) / promised), share, part) for share, promised, part in seen),
        key=lambda found: found[0],
    )
    return _rate_at(curve, replace(part, attainment=share), 1.0), math.exp(-2 * abs(apart))


def _shares_promised(slo: Slo) -> list[tuple[Slo, float]]:
    """Joint attainments that together are the promise, without their share, and that share: one each a percentile."""
    if slo.attainment is not None:
        return [(slo, slo.attainment)]
    return [
        (Slo(tpot_definition=slo.tpot_definition, **{f"{name}_s": slo.thresholds_s[name]}), quantile)  # type: ignore[arg-type]
        for name, quantile in slo.quantiles.items()
    ]


def _seen_share(point: Measurement, slo: Slo) -> float:
    """The share of a point's requests that meets all thresholds, never 0 or 1."""
    met = slo.met(
        e2e_s=point.sample_e2e_s or (), ttft_s=point.sample_ttft_s or (), output_tokens=point.sample_output_tokens or ()
    )
    return (float(np.sum(met)) + 0.5) / (len(met) + 1)


def _level(point: Measurement, slo: Slo) -> float | None:
    """How much the thresholds must be scaled for the point's means to just meet them; None without latencies."""
    if not slo.thresholds_s or not point.sample_e2e_s:
        return None
    ttft, e2e = np.asarray(point.sample_ttft_s or (), float), np.asarray(point.sample_e2e_s, float)
    tokens = np.asarray(point.sample_output_tokens or (), float)
    tpot = tpot_s(slo.tpot_definition, e2e_s=e2e, ttft_s=ttft, output_tokens=np.maximum(tokens, 2))
    series = {"tpot": tpot, "ttft": ttft, "e2e": e2e}
    ratios = [series[name] / limit for name, limit in slo.thresholds_s.items()]
    return max(float(ratio.mean()) for ratio in ratios)


def _rate_at(curve: _Curve, slo: Slo, level: float) -> float:
    """The highest Poisson rate at which the curve keeps thresholds that are ``level`` times the SLO's."""
    scaled = replace(slo, **{f"{name}_s": limit * level for name, limit in slo.thresholds_s.items()})  # type: ignore[arg-type]
    low, high = 0.0, float(curve.rate_rps.max()) * 0.99
    if _expected_to_hold(curve, scaled, high):
        return high
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if _expected_to_hold(curve, scaled, middle) else (low, middle)
    return max(low, 1e-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    """Throughput with n = 1..N requests in the system, ``rate_rps``: (N,), and what else a Poisson load needs.

    ``slots`` is the number in service beyond which requests wait, ``prefill_s`` the lone TTFT.
    """

    rate_rps: FloatArray
    slots: float
    prefill_s: float
    output_tokens: float


def _curve(closed: Sequence[Measurement]) -> _Curve | None:
    """Latency is close to affine in the number of requests, so it is interpolated, and continued, linearly."""
    rungs = sorted({int(p.concurrency or 1): p for p in closed}.items())
    if not rungs or rungs[0][1].ttft_s is None:
        return None
    at = np.array([n for n, _ in rungs], float)
    e2e = np.array([p.e2e_s.mean for _, p in rungs if p.e2e_s is not None])
    n = np.arange(1.0, min(MOST_IN_SYSTEM, 4 * at[-1] + 16) + 1)
    rate = np.maximum.accumulate(n / np.maximum.accumulate(_continued(n, at, e2e)))
    flat = len(at) > 1 and at[-1] / e2e[-1] < SATURATION_GAIN * at[-2] / e2e[-2]
    slots = float(n[np.argmax(rate >= 0.97 * rate[-1])]) if flat else math.inf
    return _Curve(
        rate_rps=rate, slots=slots, prefill_s=rungs[0][1].ttft_s.mean, output_tokens=rungs[0][1].output_tokens
    )


def _continued(n: FloatArray, at: FloatArray, values: FloatArray) -> FloatArray:
    inner = np.interp(n, at, values)
    if len(at) == 1:
        return np.asarray(inner)
    slope = max(0.0, (values[-1] - values[-2]) / (at[-1] - at[-2]))
    return np.asarray(np.where(n > at[-1], values[-1] + slope * (n - at[-1]), inner))


def _expected_to_hold(curve: _Curve, slo: Slo, rate_rps: float) -> bool:
    """Whether the SLO holds at a Poisson rate, from the stationary number in a server of state-dependent speed.

    TTFT is the lone one, the queue of prefills in front of it (M/D/1), and the wait for a slot: a closed loop's own
    TTFT is not used, because its requests return in bursts.
    """
    weights = np.concatenate(([0.0], np.cumsum(np.log(rate_rps) - np.log(curve.rate_rps))))
    shares = np.exp(weights - weights.max())
    shares = shares / shares.sum()
    busy = rate_rps * curve.prefill_s
    if shares[-1] > 1e-3 or busy >= 1:
        return False  # the number in the system does not stay within the curve
    n = np.arange(1.0, len(curve.rate_rps) + 1)
    waiting = np.maximum(0.0, n - curve.slots)
    queue = curve.prefill_s * (1 + busy / (2 * (1 - busy)))
    seen = shares[1:] * n / float((shares[1:] * n).sum())
    e2e = n / curve.rate_rps
    ttft = np.minimum(queue + waiting / curve.rate_rps, e2e)
    tokens = np.full(len(n), curve.output_tokens)
    if slo.attainment is not None:
        met = slo.met(e2e_s=e2e, ttft_s=ttft, output_tokens=tokens)
        return float(seen[met].sum()) >= slo.attainment
    if slo.quantiles:
        within = slo.within(e2e_s=e2e, ttft_s=ttft, output_tokens=tokens)
        return all(float(seen[within[name]].sum()) >= quantile for name, quantile in slo.quantiles.items())
    tpot = tpot_s(slo.tpot_definition, e2e_s=e2e, ttft_s=ttft, output_tokens=np.maximum(tokens, 2))
    values = {"tpot": tpot, "ttft": ttft, "e2e": e2e}
    return all(float(seen @ values[name]) <= limit for name, limit in slo.thresholds_s.items())
