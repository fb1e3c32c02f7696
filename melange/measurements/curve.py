"""Measured curves: the load points with latencies of one configuration, in the few figures that a clock is fitted to.

A plan carries them, so that simulating it needs neither the measurements nor the machine that they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from melange.catalog.hardware import Catalog, load_catalog
from melange.catalog.models import Model
from melange.files.records import from_plain
from melange.measurements.file import Header, MeasurementFile
from melange.measurements.measurement import LatencyStats, Loop, Measurement
from melange.serving.config import ConfigKey
from melange.serving.engine_args import settings_from_args
from melange.serving.engine_settings import EngineSettings

MIN_POINTS = 8  # fewer do not tell the clock's parts from each other


class CurvePoint(NamedTuple):
    """One load point of a :class:`MeasuredCurve`: a Measurement's sizes, load and mean latencies in seconds.

    A row of a table in plan.json; None where a latency was not measured.
    """

    input_tokens: float
    output_tokens: float
    cached_tokens: float
    loop: Loop
    achieved_rps: float
    concurrency: float | None
    saturated: bool
    tpot_decode_s: float | None
    ttft_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCurve:
    """Valid load points of one configuration that know TPOT or TTFT, and the limits of the engine that they ran on.

    ``model`` to ``engine``, and ``kv_dtype`` to ``max_num_seqs``, name the configuration. ``engine_settings`` None:
    the measurements' header does not say how the engine was started. ``model_shape``: the model's figures where it was
    served from a folder, for models that the catalog does not know.
    """

    model: str
    gpu: str
    tp: int
    precision: str
    engine: str
    points: tuple[CurvePoint, ...]
    engine_settings: EngineSettings | None = None
    model_shape: Model | None = None
    kv_dtype: str = "auto"
    max_batched_tokens: int | None = None
    max_num_seqs: int | None = None

    @property
    def key(self) -> ConfigKey:
        return ConfigKey.of(self)

    @property
    def deciding(self) -> tuple[Measurement, ...]:
        """The points to fit a clock to: those under Poisson arrivals where there are enough, else all.

        The requests of a closed loop of one size start and end together, so none waits while another's prompt is
        computed: their TPOT is below that of the same number of requests that arrive one by one.
        """
        arrived = tuple(point for point in self.points if point.loop == "open")
        return tuple(
            _measurement(self.key, point) for point in (arrived if len(arrived) >= MIN_POINTS else self.points)
        )


def measured_curves(files: Sequence[MeasurementFile], catalog: Catalog | None = None) -> tuple[MeasuredCurve, ...]:
    """The curve of every configuration in these files whose load points know latencies; others are left out."""
    catalog = catalog or load_catalog()
    points = sorted((p for file in files for p in file.points if _is_usable(p)), key=lambda p: p.key.order)
    return tuple(_curve(key, tuple(group), files, catalog) for key, group in groupby(points, lambda p: p.key))


def told_settings(files: Sequence[MeasurementFile], catalog: Catalog | None = None) -> dict[ConfigKey, EngineSettings]:
    """Engine limits by the files' headers, of the configurations whose header tells them."""
    catalog = catalog or load_catalog()
    keys = {point.key for file in files for point in file.points if point.key.gpu in catalog.gpus}
    found = {key: _limits(key, _header(key, files), catalog) for key in keys}
    return {key: settings for key, settings in found.items() if settings is not None}


def _is_usable(point: Measurement) -> bool:
    has_latency = point.tpot_decode_s is not None or point.ttft_s is not None
    return point.valid and point.source == "measured" and point.achieved_rps > 0 and has_latency


def _curve(
    key: ConfigKey, points: tuple[Measurement, ...], files: Iterable[MeasurementFile], catalog: Catalog
) -> MeasuredCurve:
    """The points with what the newest header of this configuration says of the engine and the model."""
    header = _header(key, files)
    return MeasuredCurve(
        **key._asdict(),
        points=tuple(_point(point) for point in points),
        engine_settings=_limits(key, header, catalog) if key.gpu in catalog.gpus else None,
        model_shape=None
        if header.model_shape is None
        else from_plain(Model, header.model_shape, "model_shape of a measurements' header"),
    )


def _header(key: ConfigKey, files: Iterable[MeasurementFile]) -> Header:
    """The newest header of a configuration; an empty one where there is none."""
    own = [header for file in files for header in file.headers if header.is_of(key)]
    return own[-1] if own else Header()


def _limits(key: ConfigKey, header: Header, catalog: Catalog) -> EngineSettings | None:
    if not header.engine_command and header.kv_cache is None:
        return None
    gpu, version = catalog.gpu(key.gpu), header.engine_version
    settings = settings_from_args(header.engine_command or (), gpu=gpu, engine=key.engine, version=version)
    if header.max_model_len_tokens is not None:
        settings = replace(settings, max_model_len_tokens=header.max_model_len_tokens)
    if header.kv_cache is not None:
        cache = header.kv_cache
        settings = replace(settings, kv_cache_tokens=cache.tokens, block_tokens=cache.block_tokens)
    return settings


def _point(point: Measurement) -> CurvePoint:
    return CurvePoint(
        input_tokens=point.input_tokens,
        output_tokens=point.output_tokens,
        cached_tokens=point.cached_tokens,
        loop=point.loop,
        achieved_rps=point.achieved_rps,
        concurrency=point.concurrency,
        saturated=point.saturated,
        tpot_decode_s=None if point.tpot_decode_s is None else point.tpot_decode_s.mean,
        ttft_s=None if point.ttft_s is None else point.ttft_s.mean,
    )


def _measurement(key: ConfigKey, point: CurvePoint) -> Measurement:
    values: dict[str, Any] = point._asdict()
    for name in ("tpot_decode_s", "ttft_s"):
        if values[name] is not None:
            values[name] = LatencyStats(mean=values[name])
    return Measurement(**key._asdict(), **values)
