"""Measurement: one load point of one configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Literal, get_args

from melange.catalog.hardware import PRECISIONS
from melange.errors import InputError
from melange.serving.config import ConfigKey

Source = Literal["measured", "estimated", "published"]
Loop = Literal["open", "closed", "capacity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyStats:
    """Statistics of one latency over a load point's requests, in seconds; None where not known.

    ``mean_upper`` is the one-sided 95% upper confidence bound of the stationary mean.
    """

    mean: float
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    mean_upper: float | None = None

    def percentiles(self) -> dict[float, float]:
        """Known percentiles, share -> seconds."""
        given = {0.5: self.p50, 0.9: self.p90, 0.95: self.p95, 0.99: self.p99}
        return {share: value for share, value in given.items() if value is not None}

    def share_within(self, threshold_s: float) -> float:
        """Largest known share of requests at or under the threshold (a lower bound of the true share)."""
        return max((share for share, value in self.percentiles().items() if value <= threshold_s), default=0.0)

    def share_at_most(self, threshold_s: float) -> float:
        """Smallest known share whose latency exceeds the threshold (an upper bound of the true share within it)."""
        return min((share for share, value in self.percentiles().items() if value > threshold_s), default=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One load point.

    ``loop`` is ``open`` (offered rate), ``closed`` (fixed concurrency) or ``capacity`` (a bare highest throughput
    without latencies: every statistic None, ``achieved_rps`` the capacity, 0 when even a lone request cannot be
    served). ``offered_rps`` is None for a closed loop. ``queue_growth_rps`` is the trend of the requests in the
    system, per second. ``low_rps``/``high_rps`` bound ``achieved_rps`` where it is an estimate. ``saturated`` says
    that the point failed to keep up or its queue grew. ``sample_*`` hold per-request values, in arrival order, where
    kept: they answer joint attainment exactly.
    """

    model: str
    gpu: str
    tp: int = 1
    precision: str = "fp16"
    engine: str = "vllm"
    input_tokens: float
    output_tokens: float
    cached_tokens: float = 0.0
    loop: Loop = "open"
    offered_rps: float | None = None
    achieved_rps: float
    concurrency: float | None = None
    ttft_s: LatencyStats | None = None
    tpot_decode_s: LatencyStats | None = None
    tpot_e2e_per_token_s: LatencyStats | None = None
    e2e_s: LatencyStats | None = None
    samples: int = 0
    failures: int = 0
    duration_s: float | None = None
    queue_growth_rps: float | None = None
    saturated: bool = False
    valid: bool = True
    invalid_reason: str | None = None
    source: Source = "measured"
    low_rps: float | None = None
    high_rps: float | None = None
    engine_version: str | None = None
    date: str | None = None
    sample_ttft_s: tuple[float, ...] | None = None
    sample_e2e_s: tuple[float, ...] | None = None
    sample_output_tokens: tuple[int, ...] | None = None
    extra: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("input_tokens", "output_tokens"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"measurement: {name} is {value}", fix="sizes are positive")
        if not (math.isfinite(self.achieved_rps) and self.achieved_rps >= 0):
            raise InputError(f"measurement: achieved_rps is {self.achieved_rps}", fix="rates are finite and >= 0")
        if self.precision not in PRECISIONS:
            raise InputError(f"measurement: precision is {self.precision!r}", fix=f"use {', '.join(PRECISIONS)}")
        if self.source not in get_args(Source) or self.loop not in get_args(Loop):
            raise InputError(
                f"measurement: source {self.source!r}, loop {self.loop!r}",
                fix=f"source is one of {', '.join(get_args(Source))}, loop one of {', '.join(get_args(Loop))}",
            )
        if self.tp < 1:
            raise InputError(f"measurement: tp is {self.tp}", fix="give at least 1")
        object.__setattr__(self, "extra", MappingProxyType(dict(self.extra)))

    @property
    def key(self) -> ConfigKey:
        return ConfigKey(self.model, self.gpu, self.tp, self.precision, self.engine)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, absent fields left out; the inverse of :meth:`from_dict`."""
        row: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or (item.name == "extra" and not value):
                continue
            if isinstance(value, LatencyStats):
                value = {key: v for key, v in asdict(value).items() if v is not None}
            row[item.name] = dict(value) if isinstance(value, Mapping) else value
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, object]) -> Measurement:
        """Read what :meth:`to_dict` wrote; unknown fields and wrong types raise InputError."""
        names = {item.name for item in fields(cls)}
        unknown = set(row) - names
        if unknown:
            raise InputError(
                f"measurement: unknown field {sorted(unknown)[0]!r}", fix="see 'melange schema measurements'"
            )
        values: dict[str, object] = dict(row)
        _check_types(values)
        try:
            for name in ("ttft_s", "tpot_decode_s", "tpot_e2e_per_token_s", "e2e_s"):
                if name in values:
                    values[name] = LatencyStats(**values[name])  # type: ignore[arg-type]
            for name in ("sample_ttft_s", "sample_e2e_s", "sample_output_tokens"):
                if name in values:
                    values[name] = tuple(values[name])  # type: ignore[arg-type]
            return cls(**values)  # type: ignore[arg-type]
        except TypeError as error:
            raise InputError(f"measurement: {error}", fix="see 'melange schema measurements'") from error


_TEXTS = {"model", "gpu", "precision", "engine", "loop", "source", "invalid_reason", "engine_version", "date"}
_COUNTS = {"tp", "samples", "failures"}
_FLAGS = {"saturated", "valid"}
_STATISTICS = {"ttft_s", "tpot_decode_s", "tpot_e2e_per_token_s", "e2e_s"}
_SAMPLES = {"sample_ttft_s", "sample_e2e_s", "sample_output_tokens"}


def _check_types(row: Mapping[str, object]) -> None:
    for name, value in row.items():
        fits, wanted = _fit(name, value)
        if value is not None and not fits:
            raise InputError(f"measurement: {name} is {str(value)[:60]!r}", fix=f"give {wanted}")


def _fit(name: str, value: object) -> tuple[bool, str]:
    """Whether a record's value has the type of its field, and what that is."""
    if name in _TEXTS:
        return isinstance(value, str), "a text"
    if name in _FLAGS:
        return isinstance(value, bool), "true or false"
    if name in _COUNTS:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0, "a whole number from 0"
    if name in _STATISTICS:
        fits = isinstance(value, Mapping) and all(_is_number(item) for item in value.values())
        return fits, "statistics in seconds, such as {mean: 0.1}"
    if name in _SAMPLES:
        return isinstance(value, list | tuple) and all(_is_number(item) for item in value), "a list of numbers"
    return (isinstance(value, Mapping), "a mapping") if name == "extra" else (_is_number(value), "a number")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
