"""check_measurements: measure a few load points again and say whether a profile is still true."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melange.capacity.bounds import mean_bounds
from melange.errors import EngineError, InputError
from melange.measurements.file import read_measurements
from melange.measurements.measurement import Measurement
from melange.profiler.load import Load, LoadRun, Size
from melange.profiler.loadpoint import Subject, summarise
from melange.profiler.runner import ServerRequest, lone_load, serving_engine
from melange.profiler.serving import today
from melange.profiler.session import Measure, live_measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One latency of one load point, then and now: mean and the half width of its 90% interval, in seconds."""

    size: Size
    load: str
    quantity: str
    then_s: float
    now_s: float
    slack_s: float

    @property
    def ratio(self) -> float:
        return self.now_s / self.then_s

    @property
    def holds(self) -> bool:
        return abs(self.now_s - self.then_s) <= self.slack_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """All comparisons, and the engine versions that were measured then and now."""

    comparisons: tuple[Comparison, ...]
    version_then: str | None
    version_now: str | None

    @property
    def holds(self) -> bool:
        return all(comparison.holds for comparison in self.comparisons)


def check_measurements(
    file: str | os.PathLike[str],
    server: ServerRequest,
    *,
    sentinels: int = 3,
    tolerance: float = 0.1,
    seed: int = 1,
    warn: Callable[[str], None] | None = None,
) -> CheckResult:
    """Re-measure the highest sustained load of a few sizes and compare TTFT and TPOT.

    A latency holds when its mean moved by no more than ``tolerance`` of itself plus both measurements' own
    uncertainty. InputError where the file holds no load point of this server's configuration; EngineError where a load
    could not be measured, or where the client and not the server set its latencies. ``warn`` takes what is odd about
    the file.
    """
    measured = read_measurements(file)
    if warn is not None:
        for doubt in measured.warnings:
            warn(doubt)
    with serving_engine(server, Path(file).with_suffix(".check.log")) as (engine, serving):
        key = server.key(serving.endpoint.model, serving.engine)
        points = [p for p in measured.points if p.key == key and p.valid and p.samples and p.sample_e2e_s]
        if not points:
            raise InputError(
                f"no load points of {key.describe()} in it", file=file, fix="name model, GPU and precision as there"
            )
        chosen = choose_sentinels(points, sentinels)
        subject = Subject(key=key, engine_version=serving.version, date=today())
        comparisons = measured_again(chosen, live_measure(serving), subject, tolerance=tolerance, seed=seed)
        engine.check()
    return CheckResult(comparisons=comparisons, version_then=points[-1].engine_version, version_now=serving.version)


def choose_sentinels(points: Sequence[Measurement], count: int) -> list[Measurement]:
    """Per size the highest load that kept up; of the sizes the extremes first, then those between."""
    best: dict[tuple[float, float, float], Measurement] = {}
    for point in sorted(points, key=lambda p: (p.loop == "open", p.achieved_rps)):
        if (point.loop == "open" and not point.saturated) or point.concurrency == 1:
            best[point.input_tokens, point.output_tokens, point.cached_tokens] = point
    sizes = sorted(best)
    order = np.argsort([abs(position - (len(sizes) - 1) / 2) for position in range(len(sizes))])[::-1]
    return [best[sizes[position]] for position in order[:count]]


def measured_again(
    points: Sequence[Measurement], measure: Measure, subject: Subject, *, tolerance: float, seed: int
) -> tuple[Comparison, ...]:
    """TTFT and TPOT of every point, as it says and as the same load shows them now.

    EngineError where a load could not be measured, or where the client set its latencies.
    """
    return tuple(found for point in points for found in _compare(point, measure, subject, tolerance, seed))


def _compare(point: Measurement, measure: Measure, subject: Subject, tolerance: float, seed: int) -> list[Comparison]:
    size = Size(int(point.input_tokens), int(point.output_tokens), int(point.cached_tokens))
    load = _load_of(point, size, seed)
    now = summarise(measure(load, _never, _ignore), subject)
    if not now.valid:
        raise EngineError(f"{size.describe()} at {load.describe()} cannot be compared: {now.invalid_reason}")
    pairs = {"TTFT": (point.ttft_s, now.ttft_s), "TPOT (decode)": (point.tpot_decode_s, now.tpot_decode_s)}
    slack = {"TTFT": _half(point.sample_ttft_s) + _half(now.sample_ttft_s), "TPOT (decode)": _half_tpot(point, now)}
    return [
        Comparison(
            size=size,
            load=load.describe(),
            quantity=name,
            then_s=then.mean,
            now_s=again.mean,
            slack_s=tolerance * then.mean + slack[name],
        )
        for name, (then, again) in pairs.items()
        if then is not None and again is not None
    ]


def _load_of(point: Measurement, size: Size, seed: int) -> Load:
    seconds = point.duration_s or 60.0
    nominal = point.offered_rps if point.nominal_rps is None else point.nominal_rps
    if point.loop == "open" and nominal is not None:
        return Load(size=size, rate_rps=nominal, max_s=seconds, min_requests=16, seed=seed)
    return lone_load(size, seconds, seed)


def _half(values: Sequence[float] | None) -> float:
    """Half width of a mean's 90% interval; 0 for too few values to tell."""
    bounds = mean_bounds(values or ())
    return bounds.high - bounds.value if np.isfinite(bounds.high) else 0.0


def _half_tpot(then: Measurement, now: Measurement) -> float:
    total = 0.0
    for point in (then, now):
        e2e, ttft = np.asarray(point.sample_e2e_s or ()), np.asarray(point.sample_ttft_s or ())
        total += _half(tuple((e2e - ttft) / max(point.output_tokens - 1, 1)))
    return total


def _never(run: LoadRun) -> bool:
    return False


def _ignore(run: LoadRun) -> None:
    return None
