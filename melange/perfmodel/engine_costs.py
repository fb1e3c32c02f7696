"""EngineCosts: what a kind of engine adds to its kernels' times, fitted on public measurements."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from melange.catalog.hardware import Gpu
from melange.errors import InputError
from melange.files.shipped import shipped_yaml
from melange.serving.engine_settings import is_vllm_0, version_numbers

NEWEST = "vllm-0.14"
_SCHEDULES_AHEAD = (0, 14)  # asynchronous scheduling is vLLM's default since


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCosts:
    """Seconds of the host: an iteration, a sequence of one, a request, a token; and outside the engine, a request.

    Kernels take ``kernel_time`` times what was measured of them alone. ``model_error`` is the standard deviation of the
    log error of throughputs on groups of measurements that were held out, were it normal (from its 80% quantile).
    ``measured_until`` is the date of the newest of them (ISO, as precise as its source), empty where there are none.
    """

    kernel_time: float = 1.0
    host_s: float = 1e-3
    host_per_sequence_s: float = 1e-5
    host_per_request_s: float = 2e-3
    host_per_token_s: float = 2e-6
    front_s: float = 1e-2
    model_error: float = 0.4
    measured_until: str = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, str):
                continue
            if not (math.isfinite(value) and value >= 0) or (item.name == "kernel_time" and not value):
                raise InputError(f"engine costs: {item.name} is {value}", fix="give a figure of at least 0")


def engine_costs(gpu: Gpu, engine: str = "vllm", version: str | None = None) -> EngineCosts:
    """The costs of an engine's kind on a GPU: its vendor's where that is AMD, its family's and generation's elsewhere.

    An engine of which nothing was fitted counts as the newest vLLM; so does vLLM without a version.
    """
    kind = engine_kind(gpu, engine, version)
    return _costs(kind if kind in _rows() else NEWEST)


def is_fitted(gpu: Gpu, engine: str, version: str | None = None) -> bool:
    """Whether public measurements of an engine's kind were enough to fit its costs."""
    return engine_kind(gpu, engine, version) in _rows()


def engine_kind(gpu: Gpu, engine: str, version: str | None) -> str:
    """``amd``, or an engine's name, or of vLLM ``vllm-0``, ``vllm-1`` and, since it schedules ahead, ``vllm-0.14``."""
    if gpu.vendor == "amd":
        return "amd"
    if engine not in ("vllm", "nanoflow"):
        return engine
    if is_vllm_0(engine, version):
        return "vllm-0"
    numbers = version_numbers(version)
    return "vllm-1" if numbers and numbers < _SCHEDULES_AHEAD else NEWEST


@cache
def _rows() -> dict[str, Any]:
    rows: dict[str, Any] = shipped_yaml("profiles/kernels/engines.yaml")["engines"]
    return rows


@cache
def _costs(kind: str) -> EngineCosts:
    row = _rows()[kind]
    return EngineCosts(**{item.name: row[item.name] for item in fields(EngineCosts) if item.name in row})
