"""LoadPoint: from the records of one load to a Measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from melange.arrays import FloatArray
from melange.capacity.bounds import MIN_BATCHED, Bounds
from melange.capacity.verdict import KEEPS_UP, latency_bounds
from melange.measurements.measurement import LatencyStats, Measurement, too_many_failed
from melange.profiler.load import ClientHealth, Load, LoadRun, RequestRecord, Size
from melange.profiler.statistics import LOOKS, growth_rps, warm_up_length
from melange.serving.config import ConfigKey
from melange.slo import Slo, lower_quantile, percentile_name, tpot_s

RUNS_AWAY = 0.3  # share of the offered rate by which a queue must grow to be told from an engine that still fills
FILLING_LATENCIES = 3.0
LEAST_WINDOW = 0.25  # share of the run over which a trend is fitted at the least
BUSY_LIMIT = 0.85  # of the client's core: beyond it queueing in the client shows in the latencies
CACHE_BLOCK_TOKENS = 16  # vLLM's: distinct prompts do not share as many by chance
LEAST_CACHED = 0.5  # share of the common prompt tokens: blocks are whole, and the first request finds none
LAG_LIMIT_S, LAG_SHARE = 0.005, 0.2  # event-loop lag that is always fine, and as a share of the mean TTFT


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured, and when: goes into every Measurement."""

    key: ConfigKey
    engine_version: str | None = None
    date: str | None = None


def look_confidence(run: LoadRun) -> float:
    """Confidence that a verdict at this moment of a load needs, so that all looks together keep 95%."""
    share = run.elapsed_s / run.load.max_s
    passed = [risk for at, risk in LOOKS if share >= at * (1 - 1e-9)]
    return 1 - (passed[-1] if passed else LOOKS[0][1])


def summarise(run: LoadRun, subject: Subject) -> Measurement:
    """The Measurement of a load: warm-up cut, unfinished tail cut, latencies with percentiles and upper bounds.

    Requests sent after the oldest unfinished one are left out, so long requests are not under-represented. The point is
    invalid, with its reason, where no request finished, too many failed, or the client was not up to the load.
    """
    confidence = look_confidence(run)
    settled = sorted(_settled(run), key=lambda record: record.sent_s)
    good = [record for record in settled if record.ok]
    filled = _filled_s(good)
    good = good[_warm_up(good, run.load) :]
    start = max(good[0].sent_s, filled) if good and run.load.loop == "open" else 0.0
    failures = sum(not record.ok for record in run.records)
    rates = _rates(run, good, start, confidence)
    latencies = _latencies(good, closed=run.load.rate_rps is None)
    reason = _invalid_reason(good, run, latencies)
    load = run.load
    return Measurement(
        **subject.key._asdict(),
        input_tokens=load.size.input_tokens,
        output_tokens=load.size.output_tokens,
        cached_tokens=load.size.cached_tokens,
        loop=load.loop,
        offered_rps=rates.offered,
        nominal_rps=load.rate_rps,
        achieved_rps=rates.achieved,
        concurrency=float(load.concurrency) if load.concurrency else rates.in_system,
        ttft_s=latencies["ttft_s"],
        tpot_decode_s=latencies["tpot_decode_s"],
        tpot_e2e_per_token_s=latencies["tpot_e2e_per_token_s"],
        e2e_s=latencies["e2e_s"],
        samples=len(good),
        failures=failures,
        duration_s=round(run.elapsed_s, 6),
        queue_growth_rps=None if rates.growth is None else rates.growth.value,
        queue_growth_low_rps=_finite(rates.growth.low if rates.growth else None),
        queue_growth_high_rps=_finite(rates.growth.high if rates.growth else None),
        confidence=round(confidence, 6),
        saturated=rates.saturated,
        valid=reason is None,
        invalid_reason=reason,
        engine_version=subject.engine_version,
        date=subject.date,
        sample_ttft_s=tuple(round(record.ttft_s, 6) for record in good),
        sample_e2e_s=tuple(round(record.e2e_s, 6) for record in good),
        sample_output_tokens=tuple(record.output_tokens for record in good),
        extra={**_extra(run, settled), **_cache_facts(load.size, good)},
    )


def _warm_up(good: Sequence[RequestRecord], load: Load) -> int:
    """Leading records to leave out; a closed loop's first round starts all at once and is never steady."""
    found = warm_up_length([record.e2e_s for record in good])
    first_round = load.concurrency or 0
    return max(found, first_round) if len(good) >= 2 * first_round else found


def _settled(run: LoadRun) -> list[RequestRecord]:
    """Records of requests sent before the oldest one still in flight: all of their kind are complete."""
    cut = min(run.in_flight_sent_s, default=math.inf)
    before = [record for record in run.records if record.sent_s < cut]
    # a closed loop short of two rounds would lose everything to one straggler
    return before if before or run.load.rate_rps is not None else list(run.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rates:
    offered: float | None
    achieved: float
    growth: Bounds | None
    in_system: float | None
    saturated: bool


def _rates(run: LoadRun, good: Sequence[RequestRecord], start_s: float, confidence: float) -> _Rates:
    """Arrival and completion rate over the time after the warm-up, to the end of the load."""
    concurrency = run.load.concurrency
    if concurrency is not None:
        mean = float(np.mean([record.e2e_s for record in good])) if good else math.inf
        return _Rates(offered=None, achieved=concurrency / mean, growth=None, in_system=None, saturated=False)
    window = run.elapsed_s - start_s
    sent = [record.sent_s for record in run.records] + list(run.in_flight_sent_s)
    arrivals = sum(at >= start_s for at in sent)
    if arrivals < MIN_BATCHED or not good or window < LEAST_WINDOW * run.elapsed_s:
        offered = run.load.rate_rps
        done = len(good) / run.elapsed_s
        return _Rates(offered=offered, achieved=done, growth=None, in_system=None, saturated=not good)
    offered = arrivals / window
    # a failed request has left, whenever it failed: its sending time is the best that is known of it
    left = [r.end_s if r.end_s is not None else r.sent_s for r in run.records] + [math.inf] * len(run.in_flight_sent_s)
    growth = growth_rps(sent, left, start_s, run.elapsed_s, confidence)
    failed = sum(not record.ok and record.sent_s >= start_s for record in run.records) / window
    achieved = max(0.0, min(offered, offered - growth.value) - failed)
    share = min(1.0, run.elapsed_s / run.load.max_s)
    saturated = growth.low > max(1 - KEEPS_UP, RUNS_AWAY * (1 - share)) * offered
    held = sum(r.e2e_s for r in good) / max(len(good), 1) * offered
    return _Rates(offered=offered, achieved=achieved, growth=growth, in_system=held, saturated=saturated)


def _filled_s(good: Sequence[RequestRecord]) -> float:
    """When an engine that began empty has filled: three latencies of the first quarter of its requests."""
    early = [record.e2e_s for record in good[: max(1, len(good) // 4)]] or [0.0]
    return FILLING_LATENCIES * float(np.median(early))


def _latencies(good: Sequence[RequestRecord], *, closed: bool) -> dict[str, LatencyStats | None]:
    names = ("ttft_s", "tpot_decode_s", "tpot_e2e_per_token_s", "e2e_s")
    if not good:
        return dict.fromkeys(names)
    ttft, e2e = np.array([record.ttft_s for record in good]), np.array([record.e2e_s for record in good])
    tokens = np.array([record.output_tokens for record in good])
    per_token = tpot_s("e2e_per_token", e2e_s=e2e, ttft_s=ttft, output_tokens=tokens)
    decode = tpot_s("decode", e2e_s=e2e, ttft_s=ttft, output_tokens=tokens)
    series = dict(zip(names, (ttft, decode, per_token, e2e), strict=True))
    return {name: _stats(values, closed) for name, values in series.items()}


def _stats(values: FloatArray, closed: bool) -> LatencyStats | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    p50, p90, p95, p99 = (round(float(q), 7) for q in np.quantile(known, (0.5, 0.9, 0.95, 0.99)))
    upper = latency_bounds(known, 0.95, closed=closed).high
    return LatencyStats(
        mean=float(known.mean()), p50=p50, p90=p90, p95=p95, p99=p99, mean_upper=upper if math.isfinite(upper) else None
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _invalid_reason(
    good: Sequence[RequestRecord], run: LoadRun, latencies: Mapping[str, LatencyStats | None]
) -> str | None:
    failures = [record.error for record in run.records if record.error]
    if too_many_failed(len(failures), len(good)):
        most = max(failures, key=failures.count)
        return f"{len(failures)} of {len(run.records)} requests failed ({most})"
    if not good:
        return f"no request finished in {run.elapsed_s:.1f} s"
    ttft = latencies["ttft_s"]
    fault = prefix_cache_fault(run.load.size, told_cached_tokens(good))
    return fault or client_bottleneck(run.health, ttft.mean if ttft else 0.0)


def told_cached_tokens(good: Sequence[RequestRecord]) -> float | None:
    """Prompt tokens that the server says it had in its prefix cache, on average; None where it never says.

    A server that tells of some requests (some vLLM versions tell no zeros) means none by saying nothing of the others.
    """
    told = [record.cached_tokens for record in good]
    return None if all(cached is None for cached in told) else sum(cached or 0 for cached in told) / len(told)


def prefix_cache_fault(size: Size, told: float | None) -> str | None:
    """Why a load was not what it was to be: plainly more, or fewer, cached prompt tokens than its prompts share."""
    if told is None:
        return None
    took = f"prefix cache: the server had {told:.3g} of {size.input_tokens} prompt tokens in it"
    if told > size.cached_tokens + CACHE_BLOCK_TOKENS:
        return f"{took}, but prompts share {size.cached_tokens}: restart it"
    if told < LEAST_CACHED * size.cached_tokens:
        return f"{took}, but prompts share {size.cached_tokens}: turn prefix caching on, or leave out --cached-share"
    return None


def client_bottleneck(health: ClientHealth, ttft_s: float) -> str | None:
    """Why the client, not the server, may have set the latencies; None where it did not."""
    if health.busy_share > BUSY_LIMIT:
        return (
            f"client bottleneck: {100 * health.busy_share:.0f}% of its core busy, "
            f"ceiling {health.ceiling_chunks_per_s:.0f} chunks/s"
        )
    allowed = max(LAG_LIMIT_S, LAG_SHARE * ttft_s)
    late = max(health.lag_p99_s, health.late_p99_s)
    if late > allowed:
        return f"client bottleneck: p99 lag {1000 * late:.1f} ms, allowed {1000 * allowed:.1f} ms"
    return None


def _cache_facts(size: Size, good: Sequence[RequestRecord]) -> dict[str, object]:
    """What the server said of its prefix cache, where it spoke or was to use it; null: it said nothing."""
    told = told_cached_tokens(good)
    return {"cached_tokens_told": told} if size.cached_tokens or told is not None else {}


def _extra(run: LoadRun, settled: Sequence[RequestRecord]) -> dict[str, object]:
    """What readers may want to know of a load: nothing is computed with it."""
    health = run.health
    gaps = np.array([gap for record in settled if record.ok for gap in record.gaps_s])
    errors: dict[str, int] = {}
    for record in run.records:
        if record.error is not None:
            errors[record.error[:120]] = errors.get(record.error[:120], 0) + 1
    facts: dict[str, object] = {"seed": run.load.seed}
    if len(gaps):
        facts["itl_s"] = {f"p{q}": round(float(np.quantile(gaps, q / 100)), 7) for q in (50, 90, 99)}
    if health.busy_share:
        facts["client"] = {
            "busy_share": round(health.busy_share, 4),
            "ceiling_chunks_per_s": round(health.ceiling_chunks_per_s, 1),
            "lag_p99_s": round(health.lag_p99_s, 6),
            "late_p99_s": round(health.late_p99_s, 6),
        }
    if errors:
        facts["errors"] = dict(sorted(errors.items(), key=lambda item: -item[1])[:5])
    return facts


def statistic_text(point: Measurement, slo: Slo) -> str:
    """The point's current statistic against the SLO, for people: ``TPOT 18.2/20 ms``, ``p95 TTFT 410/500 ms``."""
    parts = _percentile_texts(point, slo) if slo.quantiles and point.sample_e2e_s else _mean_texts(point, slo)
    if slo.attainment is not None and point.sample_e2e_s:
        met = slo.met(
            e2e_s=point.sample_e2e_s, ttft_s=point.sample_ttft_s or (), output_tokens=point.sample_output_tokens or ()
        )
        parts.append(f"attained {100 * float(np.mean(met)):.1f}/{100 * slo.attainment:g}%")
    return ", ".join(parts) or f"{point.achieved_rps:.3g} req/s"


def _mean_texts(point: Measurement, slo: Slo) -> list[str]:
    stats_of = {
        "tpot": point.tpot_decode_s if slo.tpot_definition == "decode" else point.tpot_e2e_per_token_s,
        "ttft": point.ttft_s,
        "e2e": point.e2e_s,
    }
    known = [(name, limit, stats_of[name]) for name, limit in slo.thresholds_s.items()]
    return [f"{name.upper()} {1000 * s.mean:.3g}/{1000 * limit:g} ms" for name, limit, s in known if s is not None]


def _percentile_texts(point: Measurement, slo: Slo) -> list[str]:
    values = slo.latencies_s(
        e2e_s=point.sample_e2e_s or (), ttft_s=point.sample_ttft_s or (), output_tokens=point.sample_output_tokens or ()
    )
    return [
        f"{percentile_name(quantile)} {name.upper()} {1000 * lower_quantile(values[name], quantile):.3g}"
        f"/{1000 * slo.thresholds_s[name]:g} ms"
        for name, quantile in slo.quantiles.items()
    ]
