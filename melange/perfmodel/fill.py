"""Filling measured profiles from the model: gaps, saturation throughputs without an SLO, and other grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melange.arrays import BoolArray, FloatArray, TextArray
from melange.capacity.profile import ConfigProfile
from melange.catalog.hardware import Catalog
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimate import Rates, max_rates_rps, rates_with_band, under_calibration
from melange.perfmodel.hardware import ModelledEngine, missing_memory_gib
from melange.serving.config import ConfigKey
from melange.serving.engine_settings import EngineSettings, default_settings
from melange.slo import Slo


def filled_table(
    key: ConfigKey,
    table: ConfigProfile,
    points: Sequence[Measurement],
    slo: Slo,
    calibration: Calibration,
    catalog: Catalog,
    settings: EngineSettings | None,
    inputs: Sequence[float],
    outputs: Sequence[float],
) -> ConfigProfile:
    """A measured table with the model's rates in its gaps and at the sizes asked for beside its own."""
    own = [point for point in points if point.key == key and not point.cached_tokens]
    modelled = modelled_engine(key, own, calibration, catalog, settings)
    if missing_memory_gib(modelled):
        return table
    return regridded(
        table,
        modelled,
        slo,
        sorted({*table.input_tokens.tolist(), *inputs}),
        sorted({*table.output_tokens.tolist(), *outputs}),
        calibration,
        bare=bare_sizes(own) if slo.thresholds_s else frozenset(),
    )


def modelled_engine(
    key: ConfigKey,
    points: Sequence[Measurement],
    calibration: Calibration,
    catalog: Catalog,
    settings: EngineSettings | None = None,
) -> ModelledEngine:
    """What a measured configuration ran on: its own settings, else the calibration's, else its engine version's."""
    gpu = catalog.gpu(key.gpu)
    version = next((point.engine_version for point in points if point.engine_version), None)
    plain = ModelledEngine(
        model=catalog.model(key.model),
        gpu=gpu,
        tp=key.tp,
        precision=key.precision,
        settings=settings or default_settings(gpu, key.engine, version),
        kv_dtype=key.kv_dtype,
        max_batched_tokens=key.max_batched_tokens,
        engine_version=version,
    )
    return plain if settings is not None else under_calibration(plain, calibration)


def bare_sizes(points: Sequence[Measurement]) -> frozenset[tuple[float, float]]:
    """Sizes that are known by a capacity alone."""
    loaded = {(p.input_tokens, p.output_tokens) for p in points if p.loop != "capacity" and p.valid}
    bare = {(p.input_tokens, p.output_tokens) for p in points if p.loop == "capacity" and p.valid}
    return frozenset(bare - loaded)


def regridded(
    table: ConfigProfile,
    modelled: ModelledEngine,
    slo: Slo,
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    calibration: Calibration,
    *,
    bare: frozenset[tuple[float, float]] = frozenset(),
) -> ConfigProfile:
    """A table on other sizes: its own values where it has them, elsewhere the model's rate, corrected.

    The correction is the ratio of measured to modelled rate at the nearest measured size (in logarithms of sizes),
    taken from values that are not bare. Sizes in ``bare`` take the lesser of their value and the model's rate.
    The ratio is that of this SLO: a rate that is filled in from load points with latencies, unlike theirs and the
    model's own, may be higher under a tighter SLO. Rates
    without a limit, where the SLO lets requests miss, are the table's own where it has them, else the model's with the
    same correction.
    """
    inputs, outputs = np.asarray(input_tokens, float), np.asarray(output_tokens, float)
    i, o = np.meshgrid(inputs, outputs, indexing="ij")
    rates = rates_with_band(modelled, slo, i, o, calibration=calibration)
    known, source = _on_grid(table, table.max_rate_rps, inputs, outputs)
    is_bare = np.array([[(a, b) in bare for b in outputs.tolist()] for a in inputs.tolist()])
    factor = _nearest_ratio(i, o, known, rates.rate_rps, usable=~is_bare)
    model = Rates(rate_rps=rates.rate_rps * factor, low_rps=rates.low_rps * factor, high_rps=rates.high_rps * factor)
    unlimited = None
    if slo.may_miss:
        own = np.full(i.shape, np.nan)
        if table.unlimited_rps is not None:
            own, _ = _on_grid(table, table.unlimited_rps, inputs, outputs)
        free = max_rates_rps(modelled, Slo(), i, o, efficiencies=calibration.efficiencies_of(modelled.gpu.name))
        unlimited = np.where(np.isfinite(own), own, free * factor)
    keep = np.isfinite(known) & (~is_bare | (known <= model.rate_rps))
    return ConfigProfile(
        key=table.key,
        input_tokens=inputs,
        output_tokens=outputs,
        max_rate_rps=np.where(keep, known, model.rate_rps),
        next_failing_rps=np.full(i.shape, np.nan),
        low_rps=np.where(keep, np.nan, model.low_rps),
        high_rps=np.where(keep, np.nan, model.high_rps),
        source=np.where(keep, source, "estimated"),
        assumed_slo=False,
        unlimited_rps=unlimited,
    )


def _on_grid(
    table: ConfigProfile, rates: FloatArray, inputs: FloatArray, outputs: FloatArray
) -> tuple[FloatArray, TextArray]:
    """The table's ``rates`` and sources at the sizes it has; NaN and empty elsewhere."""
    values = np.full((len(inputs), len(outputs)), np.nan)
    source = np.full(values.shape, "", dtype="<U16")
    rows = {size: row for row, size in enumerate(inputs.tolist())}
    columns = {size: column for column, size in enumerate(outputs.tolist())}
    for a, size_in in enumerate(table.input_tokens.tolist()):
        for b, size_out in enumerate(table.output_tokens.tolist()):
            if size_in in rows and size_out in columns:
                values[rows[size_in], columns[size_out]] = rates[a, b]
                source[rows[size_in], columns[size_out]] = str(table.source[a, b])
    return values, source


def _nearest_ratio(
    i: FloatArray, o: FloatArray, known: FloatArray, model: FloatArray, *, usable: BoolArray
) -> FloatArray:
    good = usable & np.isfinite(known) & (known > 0) & (model > 0)
    if not good.any():
        return np.ones(i.shape)
    ratio = known[good] / model[good]
    far = (np.log(i)[..., None] - np.log(i[good])) ** 2 + (np.log(o)[..., None] - np.log(o[good])) ** 2
    return np.asarray(ratio[np.argmin(far, axis=-1)])
