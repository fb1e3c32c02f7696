"""Measurement: one load point of one configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from melange.catalog.precisions import PRECISIONS
from melange.errors import InputError
from melange.files.records import from_plain, to_plain
from melange.serving.config import ConfigKey
from melange.slo import Slo

MOST_TOKENS = 1e12  # beyond any request; whole numbers may be beyond all floats

Source = Literal["measured", "estimated", "published"]
Loop = Literal["open", "closed", "capacity"]
TOLERATED_FAILURES = 0.01  # share of a load's requests: single ones fail in long runs of sound servers


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

    def __post_init__(self) -> None:
        _check_finite(self, "latency")

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
class Question:
    """What a search asks of a size: the SLO, the widest bracket that answers it, and the most that a load may take."""

    slo: Slo
    resolution: float
    requests: int
    point_s: float

    def __post_init__(self) -> None:
        _check_finite(self, "question")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One load point.

    ``loop`` is ``open`` (offered rate), ``closed`` (fixed concurrency) or ``capacity`` (a bare highest throughput
    without latencies: every statistic None, ``achieved_rps`` the capacity, 0 when even a lone request cannot be
    served). ``offered_rps`` is what arrived, None for a closed loop; ``nominal_rps`` the rate of the Poisson process
    that was asked for. ``queue_growth_rps`` is the trend of the requests in the system, per second, with its bounds
    ``queue_growth_low_rps`` and ``queue_growth_high_rps``. ``confidence`` is what the load was stopped with; None for
    one that another tool measured, which knows no bounds. ``asked`` is the question that the point was run for, None
    for any. ``low_rps``/``high_rps`` bound ``achieved_rps`` where it is an estimate. ``saturated`` says that the point
    failed to keep up or its queue grew. ``sample_*`` hold per-request values, in arrival order, where kept: they
    answer joint attainment exactly. ``extra`` is for readers: no code looks into it.

    ``valid`` False says that the point is no evidence of anything, and ``invalid_reason`` why. A point of which more
    requests failed than :func:`too_many_failed` tolerates is never valid, whoever made it: an error says nothing of a
    latency, and a server that answers with errors is ill, not slow.
    """

    model: str
    gpu: str
    tp: int = 1
    precision: str = "fp16"
    engine: str = "vllm"
    kv_dtype: str = "auto"
    max_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    input_tokens: float
    output_tokens: float
    cached_tokens: float = 0.0
    loop: Loop = "open"
    offered_rps: float | None = None
    nominal_rps: float | None = None
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
    queue_growth_low_rps: float | None = None
    queue_growth_high_rps: float | None = None
    confidence: float | None = None
    asked: Question | None = None
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_finite(self, "measurement")
        for name in ("input_tokens", "output_tokens"):
            value = getattr(self, name)
            if not 0 < value <= MOST_TOKENS:
                raise InputError(f"measurement: {name} is {value}", fix="give a positive number of tokens")
        for name in ("achieved_rps", "samples", "failures"):
            value = getattr(self, name)
            if not value >= 0:
                raise InputError(f"measurement: {name} is {value}", fix="rates and counts are not negative")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise InputError(f"measurement: confidence is {self.confidence}", fix="give a share between 0 and 1")
        if self.precision not in PRECISIONS:
            raise InputError(f"measurement: precision is {self.precision!r}", fix=f"use {', '.join(PRECISIONS)}")
        if self.source not in get_args(Source) or self.loop not in get_args(Loop):
            raise InputError(
                f"measurement: source {self.source!r}, loop {self.loop!r}",
                fix=f"source is one of {', '.join(get_args(Source))}, loop one of {', '.join(get_args(Loop))}",
            )
        lengths = {len(held) for held in (self.sample_ttft_s, self.sample_e2e_s, self.sample_output_tokens) if held}
        if len(lengths) > 1:
            raise InputError(
                f"measurement: samples of {' and '.join(map(str, sorted(lengths)))} requests",
                fix="give each request's TTFT, latency and output tokens, or leave all of one kind out",
            )
        if self.tp < 1:
            raise InputError(f"measurement: tp is {self.tp}", fix="give at least 1")
        if self.valid and too_many_failed(self.failures, self.samples):
            object.__setattr__(self, "valid", False)
            if self.invalid_reason is None:
                total = self.failures + self.samples
                object.__setattr__(self, "invalid_reason", f"{self.failures} of {total} requests failed")
        object.__setattr__(self, "extra", MappingProxyType(dict(self.extra)))

    @property
    def key(self) -> ConfigKey:
        return ConfigKey.of(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, absent fields left out; the inverse of :meth:`from_dict`."""
        row: dict[str, Any] = to_plain(self, keep_none=False)
        row.pop("extra")
        if self.kv_dtype == "auto":
            row.pop("kv_dtype")
        return {**row, "extra": to_plain(self.extra)} if self.extra else row

    @classmethod
    def from_dict(cls, row: Mapping[str, object]) -> Measurement:
        """Read what :meth:`to_dict` wrote; unknown fields and wrong types raise InputError."""
        return from_plain(cls, row, "measurement", fix="see 'melange schema measurements'")


def too_many_failed(failures: int, samples: int) -> bool:
    """Whether so many requests failed, beside ``samples`` that did not, that a load shows nothing.

    One is always tolerated, and up to 1%: the searches of a night would else be lost to a connection that was reset.
    Those tolerated are counted, and counted as having missed the SLO wherever that is to be kept.
    """
    return failures > 0 and (samples == 0 or failures > max(1.0, TOLERATED_FAILURES * (failures + samples)))


def _check_finite(value: object, what: str) -> None:
    """Refuse NaN and infinity in a value's numbers, also in those that it lists: JSON cannot hold them."""
    for item in fields(value):  # type: ignore[arg-type]
        held = getattr(value, item.name)
        numbers = held if isinstance(held, tuple) else (held,) if isinstance(held, float) else ()
        if not all(map(math.isfinite, numbers)):
            raise InputError(f"{what}: {item.name} is not finite", fix="leave out what is not known")
