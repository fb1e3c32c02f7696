"""Profile: for one SLO, the highest sustainable request rate per size and configuration."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray, IntArray, TextArray
from melange.capacity.basis import Basis
from melange.capacity.interval import Interval, interval_of
from melange.capacity.rates import Rates, RateTable
from melange.errors import InputError
from melange.files.shipped import data_path
from melange.files.shown import html_table, number, short_repr
from melange.measurements.file import MeasurementFile, read_measurements
from melange.measurements.measurement import Measurement
from melange.serving.config import ConfigKey
from melange.serving.considered import LeftOut
from melange.slo import Slo

if TYPE_CHECKING:
    from pandas import DataFrame

WIDE = 1.5  # high / low of a measured interval, from which on a reader is warned
DOUBTS_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfigProfile:
    """One configuration's table.

    ``input_tokens``: (n,) and ``output_tokens``: (m,) ascending sizes. Arrays of shape (n, m):
    ``max_rate_rps`` (requests/s of one replica; 0 = cannot meet the SLO at any load, NaN = none is known to hold),
    ``next_failing_rps`` (the other end of its interval: the lowest rate known to fail; NaN = none is known),
    ``low_rps`` and ``high_rps`` (band of an estimate; NaN = none), ``source`` (``measured``, ``estimated``,
    ``published``; empty = no value).
    ``assumed_slo`` says that bare capacities without an SLO were taken for this SLO. ``unlimited_rps`` is the highest
    rate without any latency limit, at which requests that the SLO lets miss may be served (NaN = not known; None where
    it was not asked for, as under an SLO that lets none miss).
    """

    key: ConfigKey
    input_tokens: FloatArray
    output_tokens: FloatArray
    max_rate_rps: FloatArray
    next_failing_rps: FloatArray
    low_rps: FloatArray
    high_rps: FloatArray
    source: TextArray
    assumed_slo: bool = False
    unlimited_rps: FloatArray | None = None

    def rate_at(self, input_tokens: ArrayLike, output_tokens: ArrayLike) -> FloatArray:
        """Max rate of one replica at these sizes, elementwise, in requests/s.

        GPU-seconds per request are interpolated bilinearly in the logarithms of sizes and seconds. Sizes under the
        smallest profiled one take its rate (conservative). NaN above the largest profiled size, and where a
        neighbouring cell with weight is NaN; 0 where one is 0.
        """
        return _interpolate(self, self.max_rate_rps, np.asarray(input_tokens, float), np.asarray(output_tokens, float))

    def unlimited_rate_at(self, input_tokens: ArrayLike, output_tokens: ArrayLike) -> FloatArray:
        """:meth:`rate_at` without any latency limit; NaN also where that is not known."""
        inputs, outputs = np.asarray(input_tokens, float), np.asarray(output_tokens, float)
        if self.unlimited_rps is None:
            return np.full(np.broadcast(inputs, outputs).shape, np.nan)
        return _interpolate(self, self.unlimited_rps, inputs, outputs)

    def source_at(self, input_tokens: float, output_tokens: float) -> str:
        """What the rate at one size rests on: ``estimated`` if any cell with weight is, else their source, or ""."""
        i0, i1, wi = _brackets(self.input_tokens, np.array([input_tokens]))
        o0, o1, wo = _brackets(self.output_tokens, np.array([output_tokens]))
        rows = {int(i0[0])} | ({int(i1[0])} if wi[0] > 0 else set())
        columns = {int(o0[0])} | ({int(o1[0])} if wo[0] > 0 else set())
        found = {str(self.source[i, o]) for i in rows for o in columns} - {""}
        return "estimated" if "estimated" in found else min(found, default="")

    def table(self) -> RateTable:
        """The table without arrays; NaN becomes None."""
        return RateTable(
            input_tokens=tuple(self.input_tokens.tolist()),
            output_tokens=tuple(self.output_tokens.tolist()),
            max_rate_rps=_tuples(self.max_rate_rps),
            low_rps=_tuples(self.low_rps),
            high_rps=_tuples(self.high_rps),
            source=tuple(tuple(row) for row in self.source.tolist()),
            assumed_slo=self.assumed_slo,
        )

    @property
    def sources(self) -> tuple[str, ...]:
        """The distinct sources of its values."""
        return tuple(sorted({str(s) for s in self.source.ravel() if s}))

    def __repr__(self) -> str:
        n, m = self.max_rate_rps.shape
        return short_repr(
            "ConfigProfile", f"{self.key.describe()}: {n} x {m} sizes, {', '.join(self.sources) or 'empty'}"
        )

    def _repr_html_(self) -> str:
        rows = [
            (f"{size:g}", *("" if np.isnan(rate) else f"{rate:.3g}" for rate in rates))
            for size, rates in zip(self.input_tokens, self.max_rate_rps, strict=True)
        ]
        columns = ("input \\ output tokens", *(f"{size:g}" for size in self.output_tokens))
        sources = ", ".join(self.sources) or "no values"
        return html_table(f"{self.key.describe()}: highest requests/s of a replica ({sources})", columns, rows)

    def to_frame(self) -> DataFrame:
        """One row a profiled size.

        Index: ``input_tokens``, ``output_tokens``. Columns: ``max_rate_rps``, ``next_failing_rps``, ``low_rps``,
        ``high_rps``, ``source``, as the fields of those names. ``to_frame().max_rate_rps.unstack()`` is the table.
        """
        import pandas as pd

        names = ["input_tokens", "output_tokens"]
        index = pd.MultiIndex.from_product([self.input_tokens, self.output_tokens], names=names)
        rates = ("max_rate_rps", "next_failing_rps", "low_rps", "high_rps")
        columns = {name: getattr(self, name).ravel() for name in rates}
        return pd.DataFrame(columns, index=index).assign(source=self.source.ravel())


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The tables of every configuration for one SLO, with warnings about what they rest on.

    ``left_out`` is what an estimate might have tried and did not. ``basis`` is what later commands compute with;
    ``provenance`` is for reading only.
    """

    slo: Slo
    configs: Mapping[ConfigKey, ConfigProfile]
    warnings: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    basis: Basis = field(default_factory=Basis)
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "configs", MappingProxyType(dict(self.configs)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __repr__(self) -> str:
        return short_repr("Profile", f"{self.slo.describe()}: {', '.join(key.describe() for key in self.configs)}")

    def _repr_html_(self) -> str:
        rows = [
            (key.describe(), config.max_rate_rps.size, number(_largest(config.max_rate_rps)), ", ".join(config.sources))
            for key, config in self.configs.items()
        ]
        columns = ("config", "sizes", "highest requests/s of a replica", "source")
        return html_table(f"Profile for {self.slo.describe()}", columns, rows, self.warnings)

    def to_frame(self) -> DataFrame:
        """Every configuration's table, one row a size.

        Index: the fields of ConfigKey (``max_batched_tokens`` and ``max_num_seqs`` 0 where the engine chooses),
        ``input_tokens``, ``output_tokens``. Columns as those of :meth:`ConfigProfile.to_frame`.
        """
        import pandas as pd

        frames = {key: config.to_frame() for key, config in self.configs.items()}
        return pd.concat(frames.values(), keys=[key.order for key in frames], names=list(ConfigKey._fields))


def _largest(rates: FloatArray) -> float | None:
    return None if np.isnan(rates).all() else float(np.nanmax(rates))


def profile_from(points: Iterable[Measurement], slo: Slo, *, assume_slo: bool = False) -> Profile:
    """The profile that load points give for an SLO.

    Per configuration and size: the lower end of :func:`melange.capacity.interval.interval_of`, the highest rate
    confirmed (open loops decide where there are any, closed ones otherwise); 0 only when a lone request fails, NaN
    where no rate is known to hold. Wide intervals are among the warnings. Bare capacities count when the SLO has no
    threshold or ``assume_slo`` says so; otherwise InputError. Points with cached prefixes are left to the performance
    model. Where the SLO lets requests miss, the tables hold what the same points show without a limit as well.
    """
    plain = [point for point in points if not point.cached_tokens]
    if not plain:
        raise InputError(
            "the profile has no load points without cached prefix", fix="measure some with melange profile"
        )
    by_key = sorted(plain, key=lambda p: p.key.order)
    configs, warnings = {}, []
    for key, group in groupby(by_key, lambda p: p.key):
        configs[key], doubts = _config_profile(key, list(group), slo, assume_slo)
        warnings += [_doubts_text(key, doubts)] if doubts else []
    if any(config.assumed_slo for config in configs.values()):
        warnings.append(
            f"published saturation throughputs without an SLO are assumed to keep {slo.describe()} (assume_slo: true)"
        )
    if any("estimated" in config.sources for config in configs.values()):
        warnings.append("rates are estimated by the performance model, not measured")
    return Profile(slo=slo, configs=configs, warnings=tuple(warnings))


def _doubts_text(key: ConfigKey, doubts: Sequence[str]) -> str:
    more = f" and {len(doubts) - DOUBTS_NAMED} more" if len(doubts) > DOUBTS_NAMED else ""
    named = "; ".join(doubts[:DOUBTS_NAMED])
    return (
        f"{key.describe()}: rates known only roughly, the lower end is used: {named}{more}; measure on to narrow them"
    )


def _config_profile(
    key: ConfigKey, points: Sequence[Measurement], slo: Slo, assume_slo: bool
) -> tuple[ConfigProfile, list[str]]:
    """One configuration's table, and in words the sizes whose rate is known only roughly."""
    inputs = sorted({p.input_tokens for p in points})
    outputs = sorted({p.output_tokens for p in points})
    shape = (len(inputs), len(outputs))
    rate, failing, low, high = (np.full(shape, np.nan) for _ in range(4))
    source = np.full(shape, "", dtype="<U9")
    assumed, doubts = False, []
    cells: dict[tuple[int, int], list[Measurement]] = {}
    for point in points:
        cells.setdefault((inputs.index(point.input_tokens), outputs.index(point.output_tokens)), []).append(point)
    for cell, group in cells.items():
        best = _cell(key, group, slo, assume_slo)
        rate[cell], failing[cell], low[cell], high[cell], source[cell] = best.values()
        assumed |= best.assumed
        doubts += [f"{inputs[cell[0]]:g} -> {outputs[cell[1]]:g} tokens {best.doubt}"] if best.doubt else []
    table = ConfigProfile(
        key=key,
        input_tokens=np.array(inputs, float),
        output_tokens=np.array(outputs, float),
        max_rate_rps=rate,
        next_failing_rps=failing,
        low_rps=low,
        high_rps=high,
        source=source,
        assumed_slo=assumed,
        unlimited_rps=_unlimited(key, shape, cells) if slo.may_miss else None,
    )
    return table, doubts


def _unlimited(
    key: ConfigKey, shape: tuple[int, int], cells: Mapping[tuple[int, int], Sequence[Measurement]]
) -> FloatArray:
    """(n, m) the highest rate that the same load points show without any latency limit."""
    rates = np.full(shape, np.nan)
    for cell, group in cells.items():
        rates[cell] = _cell(key, group, Slo(), assume_slo=False).rate
    return rates


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    rate: float = np.nan
    failing: float = np.nan
    low: float = np.nan
    high: float = np.nan
    source: str = ""
    assumed: bool = False
    doubt: str = ""

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
    known = interval_of(curve, slo)
    high = np.nan if known.high_rps is None else known.high_rps
    if known.point is None:
        return _Cell(failing=high)
    return _Cell(
        rate=known.low_rps,
        failing=high,
        low=_band_end(known, known.point.low_rps),
        high=_band_end(known, known.point.high_rps),
        source=known.point.source,
        doubt=_doubt(known) if known.point.source == "measured" else "",
    )


def _band_end(known: Interval, end_rps: float | None) -> float:
    """An end of the band of the point that the rate rests on; 0 where that point only shows that no load keeps it."""
    if end_rps is None:
        return float("nan")
    return end_rps if known.low_rps > 0 else 0.0


def _doubt(known: Interval) -> str:
    """What a reader of a measured rate must know; empty for a narrow interval."""
    if known.basis == "closed loops":
        return f"{known.low_rps:.3g} req/s from closed loops only"
    return f"{known.describe()} req/s" if known.width > WIDE else ""


def _interpolate(config: ConfigProfile, rates: FloatArray, inputs: FloatArray, outputs: FloatArray) -> FloatArray:
    """Rates (n, m) of the config's sizes at other sizes."""
    inputs, outputs = np.broadcast_arrays(inputs, outputs)
    i0, i1, wi = _brackets(config.input_tokens, inputs)
    o0, o1, wo = _brackets(config.output_tokens, outputs)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_s = -np.log(rates)  # +inf where the rate is 0, NaN where not measured
        total = np.zeros(inputs.shape)
        for i, weight_i in ((i0, 1 - wi), (i1, wi)):
            for o, weight_o in ((o0, 1 - wo), (o1, wo)):
                weight = weight_i * weight_o
                total = total + np.where(weight > 0, weight * log_s[i, o], 0.0)
        rate = np.exp(-total)
    outside = (inputs > config.input_tokens[-1] * (1 + 1e-9)) | (outputs > config.output_tokens[-1] * (1 + 1e-9))
    return np.where(outside | np.isnan(inputs) | np.isnan(outputs), np.nan, rate)


def _brackets(sizes: FloatArray, values: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    clipped = np.clip(np.nan_to_num(values, nan=sizes[0]), sizes[0], sizes[-1])
    upper = np.clip(np.searchsorted(sizes, clipped, side="left"), 0, len(sizes) - 1)
    lower = np.where(sizes[upper] == clipped, upper, np.maximum(upper - 1, 0))
    span = np.log(sizes[upper]) - np.log(sizes[lower])
    weight = np.where(span > 0, (np.log(clipped) - np.log(sizes[lower])) / np.where(span > 0, span, 1.0), 0.0)
    return lower, upper, weight


def _tuples(array: FloatArray) -> Rates:
    return tuple(tuple(row) for row in nested(array))


def nested(array: FloatArray) -> list[list[float | None]]:
    """Rows of a table, JSON-ready: NaN becomes None."""
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
