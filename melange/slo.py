"""Service-level objectives, and the only place where TPOT is defined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import BoolArray, FloatArray
from melange.errors import InputError

TpotDefinition = Literal["e2e_per_token", "decode"]
Scope = Literal["workload", "bucket"]
Statistic = Literal["mean", "attainment"]

TPOT_DEFINITIONS: tuple[TpotDefinition, ...] = get_args(TpotDefinition)


def tpot_s(definition: TpotDefinition, *, e2e_s: ArrayLike, ttft_s: ArrayLike, output_tokens: ArrayLike) -> FloatArray:
    """Time per output token of requests, elementwise.

    ``e2e_per_token`` is latency / output tokens (the Mélange paper, section 5; includes TTFT and queueing).
    ``decode`` is (latency - TTFT) / (output tokens - 1) (vLLM and most tools); NaN for a single output token,
    which has no decode step and therefore meets any ``decode`` threshold.
    """
    e2e, ttft, tokens = np.broadcast_arrays(
        np.asarray(e2e_s, float), np.asarray(ttft_s, float), np.asarray(output_tokens, float)
    )
    if definition == "e2e_per_token":
        return np.asarray(e2e / tokens)
    steps = np.where(tokens > 1, tokens - 1, np.nan)
    return np.asarray((e2e - ttft) / steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """A latency promise: thresholds in seconds, the statistic that must keep them, and its scope.

    ``attainment`` None means the *mean* of each thresholded quantity keeps its threshold (the paper's reading);
    a share p in (0, 1) means at least p of the requests meet *all* thresholds *jointly*.
    ``scope`` says whether the promise holds over the whole workload or within each size bucket.
    """

    tpot_s: float | None = None
    tpot_definition: TpotDefinition = "decode"
    ttft_s: float | None = None
    e2e_s: float | None = None
    attainment: float | None = None
    scope: Scope = "workload"

    def __post_init__(self) -> None:
        for name in ("tpot_s", "ttft_s", "e2e_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"slo: {name} is {value}", fix="give a positive time or leave it out")
        if self.tpot_definition not in TPOT_DEFINITIONS:
            raise InputError(
                f"slo: tpot_definition is {self.tpot_definition!r}", fix=f"use one of {', '.join(TPOT_DEFINITIONS)}"
            )
        if self.scope not in get_args(Scope):
            raise InputError(f"slo: scope is {self.scope!r}", fix="use workload or bucket")
        if self.attainment is not None and not 0 < self.attainment < 1:
            raise InputError(
                f"slo: attainment is {self.attainment}", fix="give a share between 0 and 1, for example 0.99"
            )

    @property
    def statistic(self) -> Statistic:
        return "mean" if self.attainment is None else "attainment"

    @property
    def thresholds_s(self) -> dict[str, float]:
        """The thresholds that are set, by name (``tpot``, ``ttft``, ``e2e``), in seconds."""
        given = {"tpot": self.tpot_s, "ttft": self.ttft_s, "e2e": self.e2e_s}
        return {name: value for name, value in given.items() if value is not None}

    def describe(self) -> str:
        """One line for people: ``mean TPOT (e2e_per_token) <= 120 ms``."""
        if not self.thresholds_s:
            return "no latency limit (saturation throughput)"
        label = {"tpot": f"TPOT ({self.tpot_definition})", "ttft": "TTFT", "e2e": "E2E"}
        parts = [f"{label[name]} <= {1000 * value:g} ms" for name, value in self.thresholds_s.items()]
        if self.attainment is None:
            return "mean " + " and mean ".join(parts)
        where = "of each bucket's requests" if self.scope == "bucket" else "of all requests"
        return f"{100 * self.attainment:g}% {where} jointly meet " + " and ".join(parts)

    def met(self, *, e2e_s: ArrayLike, ttft_s: ArrayLike, output_tokens: ArrayLike) -> BoolArray:
        """Per request, whether it meets every threshold. Missing (NaN) latencies count as missed."""
        e2e, ttft = np.asarray(e2e_s, float), np.asarray(ttft_s, float)
        ok = ~(np.isnan(e2e) | np.isnan(ttft))
        if self.tpot_s is not None:
            tpot = tpot_s(self.tpot_definition, e2e_s=e2e, ttft_s=ttft, output_tokens=output_tokens)
            ok = ok & ((tpot <= self.tpot_s) | (np.asarray(output_tokens) <= 1) & np.isnan(tpot))
        if self.ttft_s is not None:
            ok = ok & (ttft <= self.ttft_s)
        if self.e2e_s is not None:
            ok = ok & (e2e <= self.e2e_s)
        return np.asarray(ok, dtype=np.bool_)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready, in seconds; the inverse of :meth:`from_dict`."""
        return {
            "tpot_s": self.tpot_s,
            "tpot_definition": self.tpot_definition,
            "ttft_s": self.ttft_s,
            "e2e_s": self.e2e_s,
            "statistic": self.statistic,
            "attainment": self.attainment,
            "scope": self.scope,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Slo:
        """Read what :meth:`to_dict` wrote (``statistic`` is derived and ignored)."""
        return cls(**{key: value for key, value in data.items() if key != "statistic"})  # type: ignore[arg-type]
