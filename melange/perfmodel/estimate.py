"""Estimates: the rates, bands and load points that the model gives for a configuration that nobody measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray, five_digits
from melange.catalog.precisions import FULL_PRECISIONS
from melange.errors import InputError
from melange.measurements.measurement import LatencyStats, Measurement
from melange.perfmodel.calibration import PRIOR_MODEL_ERROR, Calibration
from melange.perfmodel.clock import StepClock, stacked
from melange.perfmodel.hardware import ModelledEngine, missing_memory_gib, step_clock
from melange.perfmodel.kernels import kernels_of
from melange.perfmodel.loadpoint import LoadPoint
from melange.perfmodel.overlap import engine_clock
from melange.perfmodel.steady import SteadyState
from melange.serving.efficiencies import PRIORS, Efficiencies
from melange.slo import Slo

# Rungs of a rate ladder: with c slots, c ** rung requests are in decode. Even steps in the logarithm of the load.
LADDER = (0.0, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 0.96, 0.99)
STACKED_VALUES = 16384  # rates evaluated as one array: enough to share overheads, few enough for the cache
BAND_SHARE = 0.8  # what a low/high band is meant to cover
_BAND_DEVIATIONS = 1.2816


class _Case(NamedTuple):
    """A modelled engine whose rates are asked for, with all of its times so many times longer."""

    modelled: ModelledEngine
    efficiencies: Efficiencies
    slowness: float = 1.0

    def step_clock(self) -> StepClock:
        clock = step_clock(self.modelled, self.efficiencies)
        return clock if self.slowness == 1.0 else clock.scaled(self.slowness)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Highest rates per size in requests/s of one replica, and the band around them; arrays of one shape.

    0 means that the SLO cannot be kept, or the request does not fit, at any load.
    """

    rate_rps: FloatArray
    low_rps: FloatArray
    high_rps: FloatArray

    @property
    def ends(self) -> tuple[FloatArray, FloatArray]:
        """The band's ends over the rate; where that is 0, over 1."""
        rate = np.where(self.rate_rps > 0, self.rate_rps, 1.0)
        return self.low_rps / rate, self.high_rps / rate


def under_calibration(modelled: ModelledEngine, calibration: Calibration | None = None) -> ModelledEngine:
    """The modelled engine under a calibration's clock, and its settings where they were the measured engine's own."""
    if calibration is None:
        return modelled
    settings = calibration.settings
    if settings is None:
        return replace(modelled, clock=calibration.clock)
    if modelled.engine.name == "nanoflow":
        settings = replace(settings, name="nanoflow")
    return replace(modelled, settings=settings, clock=calibration.clock)


def _under_engine(clock: StepClock, modelled: ModelledEngine) -> StepClock:
    """The clock as the engine runs it: ``nanoflow`` overlaps nano-batches where that is faster."""
    return engine_clock(clock, engine=modelled.engine.name, layers=modelled.model.layers, tp=modelled.tp)


def engine_ways(clock: StepClock, modelled: ModelledEngine) -> tuple[StepClock, ...]:
    """The clocks that an engine picks from; where ``nanoflow`` keeps an SLO at a higher rate in one batch, that."""
    overlapped = _under_engine(clock, modelled)
    return (clock,) if overlapped is clock else (clock, overlapped)


def steady_state(
    modelled: ModelledEngine,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    cached_tokens: ArrayLike = 0.0,
    *,
    efficiencies: Efficiencies | None = None,
) -> SteadyState:
    """The steady state of a modelled engine at these sizes. A model that does not fit raises InputError by how much."""
    return SteadyState(
        _under_engine(step_clock(modelled, efficiencies), modelled),
        input_tokens,
        output_tokens,
        cached_tokens,
        max_request_tokens=modelled.max_request_tokens,
    )


def max_rates_rps(
    modelled: ModelledEngine,
    slo: Slo,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    cached_tokens: ArrayLike = 0.0,
    *,
    efficiencies: Efficiencies | None = None,
) -> FloatArray:
    """Highest rate per size under an SLO, in requests/s of one replica; the sizes' shape, 0 where there is none."""
    return _max_rates_rps(step_clock(modelled, efficiencies), modelled, slo, input_tokens, output_tokens, cached_tokens)


def all_max_rates_rps(
    modelled_engines: Sequence[ModelledEngine],
    slo: Slo,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    cached_tokens: ArrayLike = 0.0,
    *,
    calibration: Calibration | None = None,
) -> FloatArray:
    """:func:`max_rates_rps` of many configurations at once, (configurations, *sizes): array overheads are shared.

    Of a calibration its efficiencies alone are used: the engines are as they are given.
    """
    sizes = np.broadcast_arrays(input_tokens, output_tokens, cached_tokens)
    known = calibration or Calibration()
    cases = [_Case(modelled, known.efficiencies_of(modelled.gpu.name)) for modelled in modelled_engines]
    return _stacked_rates_rps(cases, slo, sizes)


def _stacked_rates_rps(cases: Sequence[_Case], slo: Slo, sizes: Sequence[FloatArray]) -> FloatArray:
    """(cases, *sizes) highest rates, those whose engines work alike evaluated as one."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, case in enumerate(cases):
        alike.setdefault(_stacked_with(case.modelled), []).append(index)
    result = np.zeros((len(cases), *sizes[0].shape))
    most = max(STACKED_VALUES // max(sizes[0].size, 1), 1)
    for indices in alike.values():
        for start in range(0, len(indices), most):
            part = indices[start : start + most]
            clocks = [cases[index].step_clock() for index in part]
            wide = [np.broadcast_to(size, (len(part), *size.shape)) for size in sizes]
            result[part] = _max_rates_rps(stacked(clocks, sizes[0].ndim), cases[part[0]].modelled, slo, *wide)
    return result


def _stacked_with(modelled: ModelledEngine) -> tuple[object, ...]:
    """What engines must share to be evaluated as one: all that decides between ways of computing."""
    overlapped = (modelled.model.name, modelled.tp) if modelled.engine.name == "nanoflow" else None
    return modelled.engine.name, overlapped, modelled.engine.chunked_prefill, modelled.max_request_tokens


def _max_rates_rps(clock: StepClock, modelled: ModelledEngine, slo: Slo, *sizes: ArrayLike) -> FloatArray:
    longest = modelled.max_request_tokens
    ways = engine_ways(clock, modelled)
    rates = [SteadyState(way, *sizes, max_request_tokens=longest).max_rate_rps(slo) for way in ways]
    return np.asarray(np.maximum.reduce(rates))


def rates_with_band(
    modelled: ModelledEngine,
    slo: Slo,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    cached_tokens: ArrayLike = 0.0,
    *,
    calibration: Calibration | None = None,
) -> Rates:
    """Rates under an SLO with an 80% band, which adds the effects of what is not known as independent, in logarithms.

    Under a calibration: one standard deviation of every efficiency, and the model's held-out error. Without one: all
    times longer by the error that the engine's kind showed on public measurements that were held out (what that does to
    a rate under a tight limit is more than it does to throughput); and where the GPU's kernels were not measured, a
    standard deviation of each efficiency too. A judgement stands in where no kernels are known at all.
    """
    sizes = (input_tokens, output_tokens, cached_tokens)
    return all_rates_with_band([modelled], slo, *sizes, calibration=calibration)[0]


def all_rates_with_band(
    modelled_engines: Sequence[ModelledEngine],
    slo: Slo,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    cached_tokens: ArrayLike = 0.0,
    *,
    calibration: Calibration | None = None,
) -> list[Rates]:
    """:func:`rates_with_band` of many configurations, in their order."""
    calibration = calibration or Calibration()
    sizes = np.broadcast_arrays(input_tokens, output_tokens, cached_tokens)
    cases: list[_Case] = []
    starts, errors = [0], []
    for modelled in (under_calibration(modelled, calibration) for modelled in modelled_engines):
        others, model_error = _doubts(modelled, calibration, slo)
        cases += [_Case(modelled, calibration.efficiencies_of(modelled.gpu.name)), *others]
        starts.append(len(cases))
        errors.append(model_error)
    rates = _stacked_rates_rps(cases, slo, sizes)
    return [_banded(rates[start:end], error) for (start, end), error in zip(pairwise(starts), errors, strict=True)]


def _doubts(modelled: ModelledEngine, calibration: Calibration, slo: Slo) -> tuple[list[_Case], float]:
    """The cases that what is not known of a modelled engine is told by, and the log error that stands beside them."""
    shifted = [_Case(modelled, eff) for eff in _shifts(calibration, modelled)]
    costs = modelled.costs
    if calibration.label != "prior" or costs is None:
        return shifted, _model_error(calibration, slo)
    slower = _Case(modelled, calibration.efficiencies_of(modelled.gpu.name), math.exp(costs.model_error))
    return [slower] if kernels_of(modelled.gpu).measured else [slower, *shifted], 0.0


def _banded(rates: FloatArray, model_error: float) -> Rates:
    """(1 + doubts, *sizes) rates as they are, then under each doubt -> one with its band."""
    rate, others = rates[0], rates[1:]
    both = (rate > 0) & (others > 0)
    change = np.log(np.where(both, others, 1.0) / np.where(both, rate, 1.0))
    # A shift that makes a size unservable, or servable, says little about the rate: count a factor of two.
    change = np.where((rate > 0) != (others > 0), np.log(2.0), change)
    variance = model_error**2 + (change**2).sum(axis=0)
    factor = np.exp(_BAND_DEVIATIONS * np.sqrt(variance))
    return Rates(rate_rps=rate, low_rps=rate / factor, high_rps=rate * factor)


def _model_error(calibration: Calibration, slo: Slo) -> float:
    """A calibration that saw throughput only says nothing about how wrong the model is under a latency limit."""
    if calibration.label == "throughput-only" and slo.thresholds_s:
        return max(calibration.model_error, PRIOR_MODEL_ERROR)
    return calibration.model_error


def _shifts(calibration: Calibration, modelled: ModelledEngine) -> list[Efficiencies]:
    """The efficiencies with each that matters moved by one standard deviation, away from a bound in its way."""
    logs, result = calibration.efficiencies_of(modelled.gpu.name).logs(), []
    for index, (name, prior) in enumerate(PRIORS.items()):
        if _matters(name, modelled):
            shifted = logs.copy()
            up = logs[index] + calibration.spreads[name] <= math.log(prior.high)
            shifted[index] += calibration.spreads[name] if up else -calibration.spreads[name]
            result.append(Efficiencies.from_logs(shifted))
    return result


def _matters(name: str, modelled: ModelledEngine) -> bool:
    if name in ("collective_latency_s", "network_share"):
        return modelled.tp > 1
    if name == "vector_attention_share":
        return modelled.engine.vector_attention
    if name == "eight_bit_gemm_share":
        return modelled.precision not in FULL_PRECISIONS and not modelled.is_stored_only
    if name == "dequantised_gemm_share":
        return modelled.is_stored_only
    return True


def load_points(
    modelled: ModelledEngine,
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    *,
    calibration: Calibration | None = None,
    cached_tokens: float = 0.0,
) -> list[Measurement]:
    """Per size a closed loop of one request, a ladder of open-loop points and the capacity; 0 where it does not fit.

    Latencies are means and percentiles of :class:`LoadPoint` (Poisson arrivals of equal requests). The band is that of
    the capacity, in proportion.
    """
    calibration = calibration or Calibration()
    modelled = under_calibration(modelled, calibration)
    inputs, outputs = (a.ravel() for a in np.meshgrid(input_tokens, output_tokens, indexing="ij"))
    state = steady_state(
        modelled, inputs, outputs, cached_tokens, efficiencies=calibration.efficiencies_of(modelled.gpu.name)
    )
    band = rates_with_band(modelled, Slo(), inputs, outputs, cached_tokens, calibration=calibration)
    low, high = band.ends
    lone = state.clients(1.0)
    slots = np.maximum(state.slots, 1.0)
    rungs = [state.open(slots ** (rung - 1.0)) for rung in LADDER]
    points: list[Measurement] = []
    for cell in range(len(inputs)):
        base = _Row(modelled, float(inputs[cell]), float(outputs[cell]), min(cached_tokens, float(inputs[cell]) - 1))
        if state.fits[cell]:
            points.append(base.closed(lone, cell, float(low[cell]), float(high[cell])))
            bounded = [rung for rung in rungs if np.isfinite(rung.wait_s[cell])]
            points += [base.open(rung, cell, float(low[cell]), float(high[cell])) for rung in bounded]
        points.append(base.capacity(float(band.rate_rps[cell]), float(band.low_rps[cell]), float(band.high_rps[cell])))
    return points


@dataclass(frozen=True, slots=True)
class _Row:
    modelled: ModelledEngine
    input_tokens: float
    output_tokens: float
    cached_tokens: float

    def open(self, rung: LoadPoint, cell: int, low: float, high: float) -> Measurement:
        rate = five_digits(float(rung.rate_rps[cell]))
        return self._loaded(rung, cell, low, high, loop="open", offered_rps=rate)

    def closed(self, rung: LoadPoint, cell: int, low: float, high: float) -> Measurement:
        return self._loaded(rung, cell, low, high, loop="closed")

    def _loaded(self, rung: LoadPoint, cell: int, low: float, high: float, **values: object) -> Measurement:
        rate = float(rung.rate_rps[cell])
        ttft, e2e = self._stats(rung, cell, "ttft"), self._stats(rung, cell, "e2e")
        return self._measurement(
            **values,
            achieved_rps=five_digits(rate),
            low_rps=five_digits(rate * low),
            high_rps=five_digits(rate * high),
            concurrency=1.0 if values["loop"] == "closed" else five_digits(float(rung.concurrency[cell])),
            ttft_s=ttft,
            e2e_s=e2e,
            tpot_decode_s=self._stats(rung, cell, "tpot") if self.output_tokens > 1 else None,
            tpot_e2e_per_token_s=LatencyStats(
                **{
                    name: five_digits(value / self.output_tokens)
                    for name in ("mean", "p50", "p90", "p95", "p99")
                    if (value := getattr(e2e, name)) is not None
                }
            ),
        )

    def capacity(self, rate: float, low: float, high: float) -> Measurement:
        return self._measurement(
            loop="capacity", achieved_rps=five_digits(rate), low_rps=five_digits(low), high_rps=five_digits(high)
        )

    def _stats(self, rung: LoadPoint, cell: int, what: str) -> LatencyStats:
        mean = {"ttft": rung.ttft_s, "e2e": rung.e2e_s, "tpot": rung.tpot_decode_s}[what]
        quantile = {"ttft": rung.ttft_quantile_s, "e2e": rung.e2e_quantile_s, "tpot": rung.tpot_quantile_s}[what]
        shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
        known = {name: five_digits(float(quantile(share)[cell])) for name, share in shares.items()}
        return LatencyStats(mean=five_digits(float(mean[cell])), **known)

    def _measurement(self, **values: object) -> Measurement:
        return Measurement(
            **self.modelled.key._asdict(),
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            source="estimated",
            **values,  # type: ignore[arg-type]
        )


def fitting(modelled_engines: Sequence[ModelledEngine]) -> tuple[list[ModelledEngine], list[str]]:
    """Those that fit their GPUs' memory, and for each of the others a sentence that says by how much it does not."""
    fit, reasons = [], []
    for modelled in modelled_engines:
        missing = missing_memory_gib(modelled)
        if missing:
            reasons.append(f"{modelled.describe()} does not fit: {missing:.1f} GiB per GPU are missing")
        else:
            fit.append(modelled)
    if not modelled_engines:
        raise InputError("there is no configuration to estimate", fix="name at least one GPU")
    return fit, reasons
