"""Fitting the efficiencies to load points, and the error on points that were held out.

A nonlinear least-squares problem in the efficiencies' logarithms (scipy, ``soft_l1`` loss so that a few bad cells do
not decide) with the priors as further residuals. What the data cannot tell apart stays at its prior: an efficiency is
fitted only if the data shrink its standard deviation, from the Gauss-Newton approximation of the posterior covariance
``(J^T J + prior^-1)^-1``, by a third or more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeAlias

import numpy as np
from scipy.optimize import least_squares

from melange.arrays import BoolArray, FloatArray
from melange.capacity.profile import profile_sets, read_profile_set
from melange.catalog.hardware import Catalog, load_catalog
from melange.errors import InputError
from melange.measurements.curve import MIN_POINTS
from melange.measurements.file import MeasurementFile, read_measurements
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibration import Calibration, Label
from melange.perfmodel.hardware import ModelledEngine, step_clock
from melange.perfmodel.loadpoint import LoadPoint
from melange.perfmodel.steady import SteadyState
from melange.serving.config import ConfigKey
from melange.serving.efficiencies import PRIORS, Efficiencies
from melange.serving.engine_settings import EngineSettings, default_settings

NOISE = 0.1  # expected log error of one load point: measurement noise and what the model leaves out
_TTFT_WEIGHT = 0.3  # time to first token carries queueing noise that means of short runs do not average out
_IDENTIFIED = 2.0 / 3.0
GPU_SPREAD = 0.3  # by how much a GPU type's efficiencies are believed to differ from those common to all

Settings: TypeAlias = EngineSettings | Mapping[ConfigKey, EngineSettings] | None
"""A measured engine's limits: common to all points, by configuration, or not known."""

_NAMES = tuple(PRIORS)
_MEANS = np.log([prior.mean for prior in PRIORS.values()])
_SPREADS = np.array([prior.spread for prior in PRIORS.values()])
_LOW = np.log([prior.low for prior in PRIORS.values()]) - 1e-9
_HIGH = np.log([prior.high for prior in PRIORS.values()]) + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Load points of one modelled engine, as arrays of shape (points,); NaN where a point does not know a figure.

    ``is_saturation`` marks capacities and saturated points, ``is_closed`` closed loops.
    """

    modelled: ModelledEngine
    points: tuple[Measurement, ...]
    input_tokens: FloatArray
    output_tokens: FloatArray
    cached_tokens: FloatArray
    rate_rps: FloatArray
    concurrency: FloatArray
    tpot_s: FloatArray
    ttft_s: FloatArray
    is_saturation: BoolArray
    is_closed: BoolArray

    def state(self, efficiencies: Efficiencies) -> SteadyState:
        return SteadyState(
            step_clock(self.modelled, efficiencies),
            self.input_tokens,
            self.output_tokens,
            self.cached_tokens,
            max_request_tokens=self.modelled.max_request_tokens,
        )


def read_sets(names: Sequence[str]) -> list[MeasurementFile]:
    """Measurement files, each named by its path or as a shipped set such as ``melange-2024/llama-2-7b``."""
    files: list[MeasurementFile] = []
    for name in names:
        is_set = not os.path.exists(name) and name in profile_sets()
        if not is_set and not os.path.exists(name):
            raise InputError(
                f"{name!r} is neither a file nor a shipped set", fix=f"shipped sets: {', '.join(profile_sets())}"
            )
        files += read_profile_set(name) if is_set else [read_measurements(name)]
    return files


def points_of(file: MeasurementFile) -> list[Measurement]:
    """A file's points, those without an engine version taking the one that all of its headers name."""
    versions = {header.engine_version for header in file.headers}
    version = versions.pop() if len(versions) == 1 else None
    if version is None:
        return list(file.points)
    return [point if point.engine_version else replace(point, engine_version=version) for point in file.points]


def group_points(
    points: Sequence[Measurement], *, catalog: Catalog | None = None, settings: Settings = None
) -> tuple[Group, ...]:
    """Usable points by modelled engine: valid, with a rate, and not estimates themselves."""
    told = settings if isinstance(settings, Mapping) else {}
    common = None if isinstance(settings, Mapping) else settings
    catalog = catalog or load_catalog()
    usable = [p for p in points if p.valid and p.achieved_rps > 0 and p.source != "estimated"]
    usable.sort(key=lambda p: (p.key.order, p.engine_version or ""))
    groups = []
    for (key, version), members in groupby(usable, lambda p: (p.key, p.engine_version)):
        gpu = catalog.gpu(key.gpu)
        modelled = ModelledEngine(
            model=catalog.model(key.model),
            gpu=gpu,
            tp=key.tp,
            precision=key.precision,
            settings=common or told.get(key) or default_settings(gpu, key.engine, version),
            **key.choices,
            engine_version=version,
        )
        groups.append(group_of(modelled, tuple(members)))
    return tuple(groups)


def group_of(modelled: ModelledEngine, points: tuple[Measurement, ...]) -> Group:
    """Load points of one modelled engine as a group."""

    def column(value: Callable[[Measurement], float | None]) -> FloatArray:
        return np.array([np.nan if (v := value(p)) is None else v for p in points], dtype=float)

    return Group(
        modelled=modelled,
        points=points,
        input_tokens=column(lambda p: p.input_tokens),
        output_tokens=column(lambda p: p.output_tokens),
        cached_tokens=column(lambda p: p.cached_tokens),
        rate_rps=column(lambda p: p.achieved_rps),
        concurrency=column(lambda p: p.concurrency),
        tpot_s=column(lambda p: None if p.tpot_decode_s is None else p.tpot_decode_s.mean),
        ttft_s=column(lambda p: None if p.ttft_s is None else p.ttft_s.mean),
        is_saturation=np.array([p.loop == "capacity" or (p.saturated and p.loop == "open") for p in points]),
        is_closed=np.array([p.loop == "closed" and p.concurrency is not None for p in points]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the model says of a group's points; arrays (points,), NaN where the point knows nothing to compare."""

    rate_log_error: FloatArray
    tpot_log_error: FloatArray
    ttft_log_error: FloatArray

    def headline(self) -> FloatArray:
        """One log error per point: the rate's where throughput was measured, else TPOT's, else TTFT's."""
        rate_or_tpot = np.where(np.isnan(self.rate_log_error), self.tpot_log_error, self.rate_log_error)
        return np.where(np.isnan(rate_or_tpot), self.ttft_log_error, rate_or_tpot)


def predict(group: Group, efficiencies: Efficiencies) -> Prediction:
    """Log of predicted over measured, per point.

    A saturated point or capacity is compared with the saturation rate; a closed loop with the rate and latencies at its
    concurrency; an open loop with the latencies at its rate, and with the saturation rate where that lies below it.
    """
    state = group.state(efficiencies)
    saturation = np.maximum(state.saturation_rps, 1e-12)
    rate = np.where(group.is_saturation, np.log(saturation / group.rate_rps), np.nan)
    tpot, ttft = np.full(rate.shape, np.nan), np.full(rate.shape, np.nan)
    closed, is_open = group.is_closed, ~group.is_closed & ~group.is_saturation
    if closed.any():
        point = state.clients(np.where(closed, group.concurrency, 1.0))
        rate = np.where(closed, np.log(np.maximum(point.rate_rps, 1e-12) / group.rate_rps), rate)
        tpot, ttft = _latency_errors(group, point, closed, tpot, ttft)
    if is_open.any():
        point = state.open_at_rate(np.where(is_open, group.rate_rps, 1e-9))
        beyond = is_open & (saturation < group.rate_rps)
        rate = np.where(beyond, np.log(saturation / group.rate_rps), rate)
        tpot, ttft = _latency_errors(group, point, is_open, tpot, ttft)
    return Prediction(rate_log_error=rate, tpot_log_error=tpot, ttft_log_error=ttft)


def _latency_errors(
    group: Group, point: LoadPoint, chosen: BoolArray, tpot: FloatArray, ttft: FloatArray
) -> tuple[FloatArray, FloatArray]:
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot_error = np.log(point.tpot_decode_s / group.tpot_s)
        ttft_error = np.log(point.ttft_s / group.ttft_s)
    tpot_error = np.where(np.isfinite(tpot_error), tpot_error, np.nan)
    ttft_error = np.where(np.isfinite(ttft_error), ttft_error, np.nan)
    return np.where(chosen, tpot_error, tpot), np.where(chosen, ttft_error, ttft)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Outcome of one fit: efficiencies, their log standard deviations, and the names that data identified.

    ``gpu_efficiencies`` are those of GPU types of which enough was measured, where there are several.
    """

    efficiencies: Efficiencies
    spreads: Mapping[str, float]
    fitted: tuple[str, ...]
    gpu_efficiencies: Mapping[str, Efficiencies]

    def efficiencies_of(self, gpu: str) -> Efficiencies:
        """A GPU type's own, else those common to all."""
        return self.gpu_efficiencies.get(gpu, self.efficiencies)


def fit(groups: Sequence[Group]) -> Fit:
    """Fit what the groups' points identify; everything else keeps its prior.

    First what is common to all GPU types, which is what the points say of others; then how far each of several that
    were measured departs from it, of which nothing follows for the others.
    """
    free = np.ones(len(_NAMES), dtype=bool)
    logs, spreads = _solve(groups, free)
    free = spreads < _IDENTIFIED * _SPREADS
    logs, spreads = _solve(groups, free)
    return Fit(
        efficiencies=Efficiencies.from_logs(logs),
        spreads=dict(zip(_NAMES, spreads.tolist(), strict=True)),
        fitted=tuple(name for name, is_free in zip(_NAMES, free, strict=True) if is_free),
        gpu_efficiencies={
            gpu: Efficiencies.from_logs(_solve(own, np.ones(len(_NAMES), dtype=bool), logs, GPU_SPREAD)[0])
            for gpu, own in _by_gpu(groups).items()
        },
    )


def _by_gpu(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups of each GPU type that has points enough, where there are several types."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.modelled.gpu.name, []).append(group)
    if len(found) == 1:
        return {}
    return {gpu: own for gpu, own in found.items() if sum(len(group.points) for group in own) >= MIN_POINTS}


def _solve(
    groups: Sequence[Group], free: BoolArray, centre: FloatArray = _MEANS, most: float = np.inf
) -> tuple[FloatArray, FloatArray]:
    """Log efficiencies and their standard deviations with only the free ones moved; shapes (efficiencies,).

    ``centre`` is what they are believed to be, with their priors' spreads, of ``most`` at the most.
    """
    believed = np.minimum(_SPREADS, most)
    if not free.any():
        return centre, believed

    def full(values: FloatArray) -> FloatArray:
        logs = centre.copy()
        logs[free] = values
        return logs

    def data(values: FloatArray) -> FloatArray:
        return _residuals(groups, Efficiencies.from_logs(full(values)))

    def residuals(values: FloatArray) -> FloatArray:
        return np.concatenate([data(values), (values - centre[free]) / believed[free]])

    start = np.clip(centre[free], _LOW[free] + 1e-6, _HIGH[free] - 1e-6)
    result = least_squares(residuals, start, bounds=(_LOW[free], _HIGH[free]), loss="soft_l1", diff_step=[1e-4])
    jacobian = _jacobian(data, result.x)
    precision = jacobian.T @ jacobian + np.diag(believed[free] ** -2.0)
    spreads = believed.copy()
    spreads[free] = np.sqrt(np.diag(np.linalg.inv(precision)))
    return full(result.x), spreads


def _residuals(groups: Sequence[Group], efficiencies: Efficiencies) -> FloatArray:
    parts = []
    for group in groups:
        errors = predict(group, efficiencies)
        parts += [errors.rate_log_error / NOISE, errors.tpot_log_error / NOISE]
        parts.append(errors.ttft_log_error / NOISE * _TTFT_WEIGHT)
    residuals = np.concatenate(parts)
    # Which figures a point knows does not depend on the efficiencies, except "beyond saturation", where 0 is no error.
    return np.where(np.isnan(residuals), 0.0, residuals)


def _jacobian(function: Callable[[FloatArray], FloatArray], at: FloatArray) -> FloatArray:
    step = 1e-3
    columns = []
    for index in range(len(at)):
        shift = np.zeros_like(at)
        shift[index] = step
        columns.append((function(at + shift) - function(at - shift)) / (2 * step))
    return np.stack(columns, axis=1)


def calibrate(
    points: Sequence[Measurement],
    *,
    name: str,
    catalog: Catalog | None = None,
    settings: Settings = None,
    folds: int = 5,
    seed: int = 0,
    provenance: Mapping[str, object] | None = None,
) -> Calibration:
    """Fit the efficiencies to load points and report the error on held-out ones.

    ``settings`` are the measured engine's, of all points or by configuration; where there are none, each GPU's engine
    defaults for the version that the points name. Raises InputError when there are too few points, or when they
    identify nothing.
    """
    groups = group_points(points, catalog=catalog, settings=settings)
    count = sum(len(group.points) for group in groups)
    if count < MIN_POINTS:
        raise InputError(
            f"{count} usable load points (measured or published, valid, with a rate above 0) are too few to calibrate",
            fix=f"give at least {MIN_POINTS}, of several sizes; with latencies at two concurrencies to fit latency too",
        )
    _refuse_unfit(groups)
    outcome = fit(groups)
    if not outcome.fitted:
        raise InputError(
            "the load points identify none of the model's efficiencies",
            fix="add other sizes, concurrencies or GPUs; points of one size at one load say the same thing repeatedly",
        )
    errors, spread = _held_out(groups, folds, seed)
    return Calibration(
        name=name,
        efficiencies=outcome.efficiencies,
        gpu_efficiencies=outcome.gpu_efficiencies,
        spreads=outcome.spreads,
        fitted=outcome.fitted,
        label=_label(groups),
        settings=_common_settings(groups),
        model_error=spread,
        errors=errors,
        provenance=provenance or {},
    )


def _refuse_unfit(groups: Sequence[Group]) -> None:
    for group in groups:
        state = group.state(Efficiencies())
        if not state.fits.all():
            point = group.points[int(np.argmin(state.fits))]
            raise InputError(
                f"{group.modelled.describe()}: a measured request of {point.input_tokens:g} input and "
                f"{point.output_tokens:g} output tokens does not fit the memory or context that the model assumes",
                fix="give the engine's real settings (memory fraction, batched tokens, model length)",
            )


def _label(groups: Sequence[Group]) -> Label:
    loads = {
        round(float(c if np.isfinite(c) else r), 6)
        for group in groups
        for c, r, tpot in zip(group.concurrency, group.rate_rps, group.tpot_s, strict=True)
        if np.isfinite(tpot)
    }
    return "full" if len(loads) >= 2 else "throughput-only"


def _common_settings(groups: Sequence[Group]) -> EngineSettings | None:
    """The engine settings when all groups share them; None leaves each GPU its defaults.

    What one GPU's KV cache holds says nothing about another's.
    """
    first, *others = (replace(group.modelled.engine, kv_cache_tokens=None) for group in groups)
    return first if all(other == first for other in others) else None


def _subset(group: Group, chosen: BoolArray) -> Group | None:
    if not chosen.any():
        return None
    return group_of(group.modelled, tuple(p for p, keep in zip(group.points, chosen, strict=True) if keep))


def split(groups: Sequence[Group], held: BoolArray) -> tuple[list[Group], list[Group]]:
    """(kept, held-out) groups; ``held`` has one entry per point, in the groups' order."""
    kept: list[Group] = []
    out: list[Group] = []
    start = 0
    for group in groups:
        mask = held[start : start + len(group.points)]
        start += len(group.points)
        for target, part in ((kept, _subset(group, ~mask)), (out, _subset(group, mask))):
            if part is not None:
                target.append(part)
    return kept, out


def regions(group: Group, efficiencies: Efficiencies) -> list[str]:
    """Per point, what most of the engine's time goes to: host, weights, kv, compute or network."""
    times = group.state(efficiencies).engine_time_s()
    names = list(times)
    return [names[index] for index in np.argmax(np.stack([times[name] for name in names]), axis=0)]


_ERRORS_BY = ("region", "gpu", "model", "precision", "engine")


def _held_out(groups: Sequence[Group], folds: int, seed: int) -> tuple[dict[str, object], float]:
    """The errors on points held out in folds, in all and by :data:`_ERRORS_BY`; the deviation of their logarithms."""
    count = sum(len(group.points) for group in groups)
    fold = np.random.default_rng(seed).permutation(count) % min(folds, count)
    logs: list[float] = []
    kinds: list[tuple[str, ...]] = []
    for index in range(min(folds, count)):
        kept, out = split(groups, fold == index)
        found = fit(kept)
        for group in out:
            efficiencies = found.efficiencies_of(group.modelled.gpu.name)
            errors = predict(group, efficiencies).headline()
            for region, error in zip(regions(group, efficiencies), errors, strict=True):
                if np.isfinite(error):
                    logs.append(float(error))
                    kinds.append((region, *_told(group)))
    if not logs:
        raise InputError("no held-out point has anything to compare", fix="give rates or latencies")
    errors = np.array(logs)
    summary: dict[str, object] = {
        "held_out_median": _median(errors),
        "held_out_p90": float(f"{np.quantile(np.abs(np.expm1(errors)), 0.9):.3g}"),
        "folds": min(folds, count),
        "points": len(logs),
        **{f"by_{name}": _by(errors, [kind[index] for kind in kinds]) for index, name in enumerate(_ERRORS_BY)},
    }
    return summary, float(np.sqrt(np.mean(errors**2)))


def _told(group: Group) -> tuple[str, str, str, str]:
    """GPU, model, precision, and engine with its version."""
    modelled = group.modelled
    version = group.points[0].engine_version
    engine = f"{modelled.engine.name} {version}" if version else modelled.engine.name
    return modelled.gpu.name, modelled.model.name, modelled.precision, engine


def _by(errors: FloatArray, kinds: Sequence[str]) -> dict[str, dict[str, float]]:
    result = {}
    for name in sorted(set(kinds)):
        values = errors[np.array([kind == name for kind in kinds])]
        result[name] = {"median": _median(values), "points": len(values)}
    return result


def _median(log_errors: FloatArray) -> float:
    return float(f"{np.median(np.abs(np.expm1(log_errors))):.3g}")
