"""Measured curves: the load points with latencies of one configuration, in the few figures that a clock is fitted to.

A plan carries them, so that simulating it needs neither the measurements nor the machine that they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from melange.catalog.hardware import Catalog, load_catalog
from melange.errors import InputError
from melange.measurements.file import Header, MeasurementFile
from melange.measurements.measurement import ConfigKey, LatencyStats, Measurement
from melange.serving.engine_args import settings_from_args
from melange.serving.engine_settings import EngineSettings

_FIELDS = ("input_tokens", "output_tokens", "cached_tokens", "loop", "achieved_rps", "concurrency", "saturated")


MIN_POINTS = 8  # fewer do not tell the clock's parts from each other


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCurve:
    """Valid load points of one configuration that know TPOT or TTFT, and the limits of the engine that they ran on.

    ``settings`` None: the measurements' header does not say how the engine was started. ``model_shape``: the model's
    figures where it was served from a folder, for models that the catalog does not know.
    """

    key: ConfigKey
    points: tuple[Measurement, ...]
    settings: EngineSettings | None = None
    model_shape: Mapping[str, Any] | None = None

    @property
    def deciding(self) -> tuple[Measurement, ...]:
        """The points to fit a clock to: those under Poisson arrivals where there are enough, else all.

        The requests of a closed loop of one size start and end together, so none waits while another's prompt is
        computed: their TPOT is below that of the same number of requests that arrive one by one.
        """
        arrived = tuple(point for point in self.points if point.loop == "open")
        return arrived if len(arrived) >= MIN_POINTS else self.points

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; means in seconds, one row a load point."""
        return {
            **self.key._asdict(),
            "engine_settings": None if self.settings is None else self.settings.to_dict(),
            "model_shape": None if self.model_shape is None else dict(self.model_shape),
            "columns": [*_FIELDS, "tpot_decode_s", "ttft_s"],
            "points": [
                [*(getattr(p, name) for name in _FIELDS), _mean(p.tpot_decode_s), _mean(p.ttft_s)] for p in self.points
            ],
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> MeasuredCurve:
        """Read what :meth:`to_dict` wrote; anything else raises InputError."""
        try:
            key = ConfigKey(**{name: row[name] for name in ConfigKey._fields})
            settings = row["engine_settings"]
            return cls(
                key=key,
                points=tuple(_point(key, dict(zip(row["columns"], values, strict=True))) for values in row["points"]),
                settings=None if settings is None else EngineSettings.from_dict(settings),
                model_shape=row["model_shape"],
            )
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(f"measured curve: {error}", fix="solve the workload again") from error


def measured_curves(files: Sequence[MeasurementFile], catalog: Catalog | None = None) -> tuple[MeasuredCurve, ...]:
    """The curve of every configuration in these files whose load points know latencies; others are left out."""
    catalog = catalog or load_catalog()
    points = sorted((p for file in files for p in file.points if _is_usable(p)), key=lambda p: p.key)
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
        key=key,
        points=points,
        settings=_limits(key, header, catalog) if key.gpu in catalog.gpus else None,
        model_shape=header.model_shape,
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


def _mean(stats: LatencyStats | None) -> float | None:
    return None if stats is None else stats.mean


def _point(key: ConfigKey, row: Mapping[str, Any]) -> Measurement:
    values = dict(row)
    for name in ("tpot_decode_s", "ttft_s"):
        if values[name] is not None:
            values[name] = LatencyStats(mean=float(values[name]))
    return Measurement(**key._asdict(), **values)
