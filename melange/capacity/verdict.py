"""judge: whether a load point is sustainable and keeps an SLO; the one answer of search, profile and report.

What is known decides how it is asked. A point with per-request samples is judged by bounds of its statistics and of
its queue's trend, at the confidence that it was stopped with. A point without them (from another tool, published,
estimated) is judged by its point estimates, by a mean's upper bound where there is one, by marginal percentiles for a
joint attainment, and by achieved/offered where both are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np

from melange.arrays import BoolArray, FloatArray
from melange.capacity.bounds import (
    MIN_BATCHED,
    Bounds,
    effective_counts,
    independent_mean_bounds,
    mean_bounds,
    share_bounds,
)
from melange.measurements.measurement import LatencyStats, Measurement
from melange.slo import Slo, TpotDefinition, tpot_s

Verdict = Literal["pass", "fail", "undecided"]

KEEPS_UP = 0.98  # achieved over offered rate of a sustainable load
FALLS_BEHIND = 0.9  # achieved over offered rate of a load that plainly is none, where the queue's trend is unknown
VAGUE_GROWTH = 0.1  # share of the offered rate: a trend that may be larger has not been ruled out
GENERATIONS = 6.0
LEAST_SAMPLES = 100


def judge(point: Measurement, slo: Slo) -> Verdict:
    """Whether a load is sustainable under an SLO.

    ``pass`` needs every latency statistic within its limit, no queue trend and achieved/offered >= 0.98; ``fail``
    needs one of them violated; anything else is ``undecided``, such as a bound on either side of the limit, a run
    shorter than six generations of requests, a latency that nobody recorded, or any point that is not valid: errors and
    an ill client are no evidence of a latency. Failures that are few enough count as missed where the SLO is to be
    kept, and not at all where it is to be broken.

    A tighter SLO (:meth:`melange.slo.Slo.is_as_tight_as`) never gets the better verdict. What is not about latency does
    not hang on the SLO, nor do bounds of a mean on its limit. A share within limits falls with them, and with it its
    bounds: how many independent requests it counts for is a property of the load point, not of the requests that met
    *these* limits, or tighter limits whose misses scatter could pass where looser ones whose misses cluster do not.
    Of a joint share, the upper bound is no higher than that of any limit by itself.
    """
    if not point.valid:
        return "undecided"
    if point.loop == "open" and has_samples(point) and not _long_enough(point):
        return "undecided"
    verdicts = [_keeps_up(point), *_latency_verdicts(point, slo)]
    if "fail" in verdicts:
        return "fail"
    return "undecided" if "undecided" in verdicts else "pass"


def has_samples(point: Measurement) -> bool:
    """Whether a point keeps the latencies of its single requests."""
    return bool(point.sample_e2e_s) and bool(point.sample_ttft_s)


def confidence_of(point: Measurement) -> float:
    """The confidence that the point's verdict was taken at; 95% for one that another tool measured."""
    return 0.95 if point.confidence is None else point.confidence


def _long_enough(point: Measurement) -> bool:
    """Whether the load saw several generations of requests: within one, no batch is independent of another."""
    if point.saturated:
        return True
    if point.e2e_s is None or point.duration_s is None or point.samples < LEAST_SAMPLES:
        return False
    return point.duration_s >= GENERATIONS * point.e2e_s.mean


def _keeps_up(point: Measurement) -> Verdict:
    if point.loop == "closed":
        return "pass"
    if point.saturated:
        return "fail"
    if not point.offered_rps:
        return "pass" if point.confidence is None else "undecided"
    share = point.achieved_rps / point.offered_rps
    if point.confidence is None:  # another tool's, which knows no bounds of the queue's trend
        return _against(share >= KEEPS_UP, share < FALLS_BEHIND)
    if point.queue_growth_rps is None:
        return "undecided"
    low, high = point.queue_growth_low_rps, point.queue_growth_high_rps
    vague = high is None or high > VAGUE_GROWTH * point.offered_rps
    grows = vague or (low is not None and low > 0)
    return "undecided" if grows or share < KEEPS_UP else "pass"


def _latency_verdicts(point: Measurement, slo: Slo) -> list[Verdict]:
    if not slo.thresholds_s:
        return []
    if slo.share is not None:
        seen = [(_attainment(point, slo), slo.attainment)] if slo.attainment is not None else _marginals(point, slo)
        return [_against(share.low >= least, share.high < least) for share, least in seen]
    limits, means = slo.thresholds_s, _means(point, slo)
    return [_against(mean.high <= limits[name], mean.low > limits[name]) for name, mean in means.items()]


def _against(holds: bool, violated: bool) -> Verdict:
    if holds:
        return "pass"
    return "fail" if violated else "undecided"


def _attainment(point: Measurement, slo: Slo) -> Bounds:
    """The share of requests that meet every threshold at once.

    From samples at the point's confidence, failures counted as in :func:`_share_of`; else from marginal percentiles: no
    more miss than all marginals together (Fréchet), and no fewer than any of them.
    """
    if has_samples(point):
        ttft, e2e, tokens = _samples(point)
        counts = _counts(point, slo)
        joint = _share_of(
            point, slo.met(e2e_s=e2e, ttft_s=ttft, output_tokens=tokens), np.minimum.reduce([*counts.values()])
        )
        return replace(joint, high=min([joint.high, *(each.high for each in _shares(point, slo, counts).values())]))
    limits = slo.thresholds_s
    marginals = [(stats, limits[name]) for name, stats in _recorded(point, slo).items()]
    missing = sum(1.0 if stats is None else 1.0 - stats.share_within(limit) for stats, limit in marginals)
    most = min((_share_below(stats, limit) for stats, limit in marginals if stats is not None), default=1.0)
    return Bounds(value=max(0.0, 1.0 - missing), low=max(0.0, 1.0 - missing), high=most)


def _marginals(point: Measurement, slo: Slo) -> list[tuple[Bounds, float]]:
    """The share of requests within each limit by itself, and the one that is promised; as for a joint attainment."""
    if has_samples(point):
        return [(share, slo.quantiles[name]) for name, share in _shares(point, slo, _counts(point, slo)).items()]
    limits, found = slo.thresholds_s, []
    for name, stats in _recorded(point, slo).items():
        limit = limits[name]
        low, high = (0.0, 1.0) if stats is None else (stats.share_within(limit), _share_below(stats, limit))
        found.append((Bounds(value=low, low=low, high=high), slo.quantiles[name]))
    return found


def _share_below(stats: LatencyStats, limit_s: float) -> float:
    """What the share within a limit is no more than, and less than any percentile that lies beyond it."""
    share = stats.share_at_most(limit_s)
    return share if share == 1.0 else math.nextafter(share, 0.0)


def _counts(point: Measurement, slo: Slo) -> dict[str, FloatArray]:
    """What a point's requests are worth to the share within each limit, by its name; see effective_counts."""
    assert point.sample_ttft_s is not None
    assert point.sample_e2e_s is not None
    samples = point.sample_ttft_s, point.sample_e2e_s, point.sample_output_tokens or (point.output_tokens,)
    return {name: _worth(name, slo.tpot_definition, *samples) for name in slo.thresholds_s}


@lru_cache(maxsize=64)
def _worth(
    name: str,
    definition: TpotDefinition,
    ttft_s: tuple[float, ...],
    e2e_s: tuple[float, ...],
    output_tokens: tuple[float, ...],
) -> FloatArray:
    """Kept from one SLO to the next: the limit itself does not count."""
    any_limit = Slo(tpot_definition=definition, **{f"{name}_s": 1.0})  # type: ignore[arg-type]
    values = any_limit.latencies_s(e2e_s=e2e_s, ttft_s=ttft_s, output_tokens=output_tokens)
    return effective_counts(values[name])


def _shares(point: Measurement, slo: Slo, counts: Mapping[str, FloatArray]) -> dict[str, Bounds]:
    """The share of a point's requests within each limit, by its name."""
    ttft, e2e, tokens = _samples(point)
    within = slo.within(e2e_s=e2e, ttft_s=ttft, output_tokens=tokens)
    return {name: _share_of(point, met, counts[name]) for name, met in within.items()}


def _share_of(point: Measurement, met: BoolArray, counts: FloatArray) -> Bounds:
    """A share of a point's requests, (n,), with its bounds; failures are counted as missed, but for the upper bound."""
    total, confidence = len(met) + point.failures, confidence_of(point)
    share = share_bounds(float(met.sum()) / total, counts * total / len(met), confidence)
    if not point.failures:
        return share
    return replace(share, high=share_bounds(float(met.mean()), counts, confidence).high)


def _means(point: Measurement, slo: Slo) -> dict[str, Bounds]:
    """The mean of every latency that the SLO limits and that requests of this size have, by its name."""
    if not has_samples(point):
        return {name: _stated(stats) for name, stats in _recorded(point, slo).items()}
    ttft, e2e, tokens = _samples(point)
    tpot = tpot_s(slo.tpot_definition, e2e_s=e2e, ttft_s=ttft, output_tokens=tokens)
    series = {"tpot": tpot[~np.isnan(tpot)], "ttft": ttft, "e2e": e2e}
    confidence, closed = confidence_of(point), point.loop == "closed"
    known = {name: values for name, values in series.items() if name in slo.thresholds_s and len(values)}
    return {name: latency_bounds(values, confidence, closed=closed) for name, values in known.items()}


def _stated(stats: LatencyStats | None) -> Bounds:
    """A recorded mean, with its upper bound on both sides where there is one, as exact as it looks where not."""
    if stats is None:
        return Bounds(value=math.nan, low=-math.inf, high=math.inf)
    half = 0.0 if stats.mean_upper is None else stats.mean_upper - stats.mean
    return Bounds(value=stats.mean, low=stats.mean - half, high=stats.mean + half)


def latency_bounds(values: FloatArray, confidence: float, *, closed: bool) -> Bounds:
    """Few requests of a closed loop start apart from each other and barely correlate; an open loop's do."""
    if closed and len(values) < MIN_BATCHED:
        return independent_mean_bounds(values, confidence)
    return mean_bounds(values, confidence)


def _samples(point: Measurement) -> tuple[FloatArray, FloatArray, FloatArray]:
    """TTFT, latency and output tokens of the single requests, (n,) each."""
    ttft, e2e = np.asarray(point.sample_ttft_s, float), np.asarray(point.sample_e2e_s, float)
    return ttft, e2e, np.broadcast_to(np.asarray(point.sample_output_tokens or point.output_tokens, float), e2e.shape)


def _recorded(point: Measurement, slo: Slo) -> dict[str, LatencyStats | None]:
    """The statistics that the SLO limits, by name; a single output token has no decode step to limit."""
    decode = slo.tpot_definition == "decode"
    tpot = point.tpot_decode_s if decode else point.tpot_e2e_per_token_s
    stats = {"tpot": tpot, "ttft": point.ttft_s, "e2e": point.e2e_s}
    one_token = decode and point.output_tokens <= 1
    return {name: stats[name] for name in slo.thresholds_s if not (name == "tpot" and one_token)}
