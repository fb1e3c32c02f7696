"""Profile: for one SLO, the highest sustainable request rate per size and configuration."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melange.datafiles import data_path
from melange.errors import InputError
from melange.measurements import ConfigKey, LatencyStats, Measurement, MeasurementFile, read_measurements
from melange.slo import Slo

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfigProfile:
    """One configuration's table.

    ``input_tokens``: (n,) and ``output_tokens``: (m,) ascending sizes. Arrays of shape (n, m):
    ``max_rate_rps`` (requests/s of one replica; 0 = cannot meet the SLO at any load, NaN = not measured),
    ``next_failing_rps`` (the lowest load above it that failed; NaN = none was tried), ``low_rps`` and ``high_rps``
    (band of an estimate; NaN = none), ``source`` (``measured``, ``estimated``, ``published``; empty = no value).
    ``assumed_slo`` says that bare capacities without an SLO were taken for this SLO.
    """

    key: ConfigKey
    input_tokens: FloatArray
    output_tokens: FloatArray
    max_rate_rps: FloatArray
    next_failing_rps: FloatArray
    low_rps: FloatArray
    high_rps: FloatArray
    source: NDArray[np.str_]
    assumed_slo: bool = False

    def rate_at(self, input_tokens: ArrayLike, output_tokens: ArrayLike) -> FloatArray:
        """Max rate of one replica at these sizes, elementwise, in requests/s.

        GPU-seconds per request are interpolated bilinearly in the logarithms of sizes and seconds. Sizes under the
        smallest profiled one take its rate (conservative). NaN above the largest profiled size, and where a
        neighbouring cell with weight is NaN; 0 where one is 0.
        """
        return _interpolate(self, np.asarray(input_tokens, float), np.asarray(output_tokens, float))

    def source_at(self, input_tokens: float, output_tokens: float) -> str:
        """What the rate at one size rests on: ``estimated`` if any cell with weight is, else their source, or ""."""
        i0, i1, wi = _brackets(self.input_tokens, np.array([input_tokens]))
        o0, o1, wo = _brackets(self.output_tokens, np.array([output_tokens]))
        rows = {int(i0[0])} | ({int(i1[0])} if wi[0] > 0 else set())
        columns = {int(o0[0])} | ({int(o1[0])} if wo[0] > 0 else set())
        found = {str(self.source[i, o]) for i in rows for o in columns} - {""}
        return "estimated" if "estimated" in found else min(found, default="")

    def to_dict(self) -> dict[str, object]:
        """JSON-ready table; NaN becomes None."""
        return {
            "input_tokens": self.input_tokens.tolist(),
            "output_tokens": self.output_tokens.tolist(),
            "max_rate_rps": _nested(self.max_rate_rps),
            "low_rps": _nested(self.low_rps),
            "high_rps": _nested(self.high_rps),
            "source": self.source.tolist(),
            "assumed_slo": self.assumed_slo,
        }

    @property
    def sources(self) -> tuple[str, ...]:
        """The distinct sources of its values."""
        return tuple(sorted({str(s) for s in self.source.ravel() if s}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The tables of every configuration for one SLO, with warnings about what they rest on."""

    slo: Slo
    configs: Mapping[ConfigKey, ConfigProfile]
    warnings: tuple[str, ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "configs", MappingProxyType(dict(self.configs)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))


def profile_from(points: Iterable[Measurement], slo: Slo, *, assume_slo: bool = False) -> Profile:
    """The profile that load points give for an SLO.

    Per configuration and size: the highest achieved rate among the sustainable points that keep the SLO (open-loop
    points decide where there are any, closed-loop ones otherwise), 0 only when a lone request fails, NaN else.
    Bare capacities count when the SLO has no threshold or ``assume_slo`` says so; otherwise InputError.
    Points with cached prefixes are left to the performance model.
    """
    plain = [point for point in points if not point.cached_tokens]
    if not plain:
        raise InputError(
            "the profile has no load points without cached prefix", fix="measure some with melange profile"
        )
    by_key = sorted(plain, key=lambda p: p.key)
    configs = {
        key: _config_profile(key, list(group), slo, assume_slo) for key, group in groupby(by_key, lambda p: p.key)
    }
    warnings = []
    if any(config.assumed_slo for config in configs.values()):
        warnings.append(
            f"published saturation throughputs without an SLO are assumed to keep {slo.describe()} (assume_slo: true)"
        )
    if any("estimated" in config.sources for config in configs.values()):
        warnings.append("rates are estimated by the performance model, not measured")
    return Profile(slo=slo, configs=configs, warnings=tuple(warnings))


def _config_profile(key: ConfigKey, points: Sequence[Measurement], slo: Slo, assume_slo: bool) -> ConfigProfile:
    inputs = sorted({p.input_tokens for p in points})
    outputs = sorted({p.output_tokens for p in points})
    shape = (len(inputs), len(outputs))
    rate, failing, low, high = (np.full(shape, np.nan) for _ in range(4))
    source = np.full(shape, "", dtype="<U9")
    assumed = False
    cells: dict[tuple[int, int], list[Measurement]] = {}
    for point in points:
        cells.setdefault((inputs.index(point.input_tokens), outputs.index(point.output_tokens)), []).append(point)
    for cell, group in cells.items():
        best = _cell(key, group, slo, assume_slo)
        rate[cell], failing[cell], low[cell], high[cell], source[cell] = best.values()
        assumed |= best.assumed
    return ConfigProfile(
        key=key,
        input_tokens=np.array(inputs, float),
        output_tokens=np.array(outputs, float),
        max_rate_rps=rate,
        next_failing_rps=failing,
        low_rps=low,
        high_rps=high,
        source=source,
        assumed_slo=assumed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    rate: float = np.nan
    failing: float = np.nan
    low: float = np.nan
    high: float = np.nan
    source: str = ""
    assumed: bool = False

    def values(self) -> tuple[float, float, float, float, str]:
        return self.rate, self.failing, self.low, self.high, self.source


def _cell(key: ConfigKey, points: Sequence[Measurement], slo: Slo, assume_slo: bool) -> _Cell:
    curve = [p for p in points if p.loop != "capacity" and p.valid]
    if curve:
        return _from_curve(curve, slo)
    bare = [p for p in points if p.loop == "capacity" and p.valid]
    if not bare:
        return _Cell()
    if slo.thresholds_s and not assume_slo and any(p.achieved_rps for p in bare):
        raise InputError(
            f"the profile of {key.describe()} holds saturation throughputs without an SLO, "
            f"which say nothing about {slo.describe()}",
            fix="set profiles.assume_slo: true to take them for this SLO, or use --fill estimated",
        )
    best = max(bare, key=lambda p: p.achieved_rps)
    nan = float("nan")
    return _Cell(
        rate=best.achieved_rps,
        low=nan if best.low_rps is None else best.low_rps,
        high=nan if best.high_rps is None else best.high_rps,
        source=best.source,
        assumed=bool(slo.thresholds_s) and best.achieved_rps > 0,
    )


def _from_curve(curve: Sequence[Measurement], slo: Slo) -> _Cell:
    deciding = [p for p in curve if p.loop == "open"] or list(curve)
    passing = [p for p in deciding if keeps(p, slo)]
    failing = [p for p in deciding if not keeps(p, slo)]
    if not passing:
        lone = [p for p in curve if p.loop == "closed" and p.concurrency is not None and p.concurrency <= 1]
        lowest = min((_load_rps(p) for p in failing), default=np.nan)
        if any(not keeps(p, slo) for p in lone):
            return _Cell(rate=0.0, failing=lowest, source=lone[0].source)
        return _Cell(failing=lowest)
    best = max(passing, key=lambda p: p.achieved_rps)
    above = [_load_rps(p) for p in failing if _load_rps(p) > best.achieved_rps]
    return _Cell(
        rate=best.achieved_rps,
        failing=min(above, default=np.nan),
        low=np.nan if best.low_rps is None else best.low_rps,
        high=np.nan if best.high_rps is None else best.high_rps,
        source=best.source,
    )


def _load_rps(point: Measurement) -> float:
    return point.achieved_rps if point.offered_rps is None else max(point.offered_rps, point.achieved_rps)


def keeps(point: Measurement, slo: Slo) -> bool:
    """Whether a load point is sustainable and keeps the SLO.

    A mean SLO compares the upper confidence bound of the mean where known, else the mean. A joint attainment is
    counted from per-request samples where kept; else bounded from below by the marginal percentiles
    (1 - sum of the shares that may miss; Fréchet), so that a point never passes on hope.
    """
    if point.saturated or point.failures > 0.01 * max(1, point.samples):
        return False
    if not slo.thresholds_s:
        return True
    if slo.attainment is None:
        stats = _thresholded(point, slo)
        return all(s is not None and (s.mean if s.mean_upper is None else s.mean_upper) <= limit for s, limit in stats)
    return joint_attainment(point, slo) >= slo.attainment


def joint_attainment(point: Measurement, slo: Slo) -> float:
    """Share of a point's requests known to meet every threshold of the SLO (a lower bound without samples)."""
    if point.sample_e2e_s is not None and point.sample_ttft_s is not None:
        tokens: ArrayLike = point.sample_output_tokens or point.output_tokens
        met = slo.met(e2e_s=point.sample_e2e_s, ttft_s=point.sample_ttft_s, output_tokens=tokens)
        return float(np.mean(met))
    missing = sum(1.0 - (0.0 if s is None else s.share_within(limit)) for s, limit in _thresholded(point, slo))
    return max(0.0, 1.0 - missing)


def _thresholded(point: Measurement, slo: Slo) -> list[tuple[LatencyStats | None, float]]:
    tpot = point.tpot_decode_s if slo.tpot_definition == "decode" else point.tpot_e2e_per_token_s
    stats = {"tpot": tpot, "ttft": point.ttft_s, "e2e": point.e2e_s}
    pairs = [(stats[name], limit) for name, limit in slo.thresholds_s.items()]
    if slo.tpot_definition == "decode" and point.output_tokens <= 1:
        pairs = [(s, limit) for s, limit in pairs if s is not tpot]
    return pairs


def _interpolate(config: ConfigProfile, inputs: FloatArray, outputs: FloatArray) -> FloatArray:
    inputs, outputs = np.broadcast_arrays(inputs, outputs)
    i0, i1, wi = _brackets(config.input_tokens, inputs)
    o0, o1, wo = _brackets(config.output_tokens, outputs)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_s = -np.log(config.max_rate_rps)  # +inf where the rate is 0, NaN where not measured
        total = np.zeros(inputs.shape)
        for i, weight_i in ((i0, 1 - wi), (i1, wi)):
            for o, weight_o in ((o0, 1 - wo), (o1, wo)):
                weight = weight_i * weight_o
                total = total + np.where(weight > 0, weight * log_s[i, o], 0.0)
        rate = np.exp(-total)
    outside = (inputs > config.input_tokens[-1] * (1 + 1e-9)) | (outputs > config.output_tokens[-1] * (1 + 1e-9))
    return np.where(outside | np.isnan(inputs) | np.isnan(outputs), np.nan, rate)


def _brackets(sizes: FloatArray, values: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    clipped = np.clip(np.nan_to_num(values, nan=sizes[0]), sizes[0], sizes[-1])
    upper = np.clip(np.searchsorted(sizes, clipped, side="left"), 0, len(sizes) - 1)
    lower = np.where(sizes[upper] == clipped, upper, np.maximum(upper - 1, 0))
    span = np.log(sizes[upper]) - np.log(sizes[lower])
    weight = np.where(span > 0, (np.log(clipped) - np.log(sizes[lower])) / np.where(span > 0, span, 1.0), 0.0)
    return lower, upper, weight


def _nested(array: FloatArray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else float(v) for v in row] for row in array]


def read_profile_set(name: str) -> tuple[MeasurementFile, ...]:
    """The measurement files of a shipped set such as ``melange-2024/llama-2-7b`` (a folder under ``profiles/``)."""
    folder = data_path(f"profiles/{name}")
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        near = difflib.get_close_matches(name, profile_sets(), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(
            f"unknown profile set {name!r}",
            fix=f"{hint}shipped sets: {', '.join(profile_sets())}; "
            "or estimated/<model>, such as estimated/llama-3.1-8b",
        )
    return tuple(read_measurements(file) for file in files)


def profile_sets() -> tuple[str, ...]:
    """Names of the shipped profile sets."""
    root = data_path("profiles")
    found = {Path(os.path.relpath(file.parent, root)).as_posix() for file in root.glob("*/*/*.jsonl")}
    return tuple(sorted(found))
