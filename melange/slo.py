"""Service-level objectives, and the only place where TPOT is defined."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import BoolArray, FloatArray
from melange.errors import InputError

TpotDefinition = Literal["e2e_per_token", "decode"]
Scope = Literal["workload", "bucket"]
Statistic = Literal["mean", "attainment", "percentiles"]

METRICS = ("tpot", "ttft", "e2e")
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

    ``attainment`` None and no quantile: the *mean* of each thresholded latency keeps its threshold (the paper's
    reading). ``attainment`` p in (0, 1): at least p of the requests meet *all* thresholds *jointly*.
    ``tpot_quantile`` and its like: that quantile of each latency keeps its threshold, each *by itself*: 0.95 is a p95.
    Then every threshold has one; it is kept where at least that share of the requests is within the threshold (one
    output token is within any decode TPOT, a request that was never served within none).
    ``scope`` says whether the promise holds over the whole workload or within each size bucket.
    """

    tpot_s: float | None = None
    tpot_definition: TpotDefinition = "decode"
    ttft_s: float | None = None
    e2e_s: float | None = None
    attainment: float | None = None
    scope: Scope = "workload"
    tpot_quantile: float | None = None
    ttft_quantile: float | None = None
    e2e_quantile: float | None = None

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
        self._check_quantiles()

    def _check_quantiles(self) -> None:
        for name, quantile in self.quantiles.items():
            if not 0 < quantile < 1:
                raise InputError(
                    f"slo: {name}_quantile is {quantile}", fix="give a share between 0 and 1, 0.95 for the p95"
                )
            if getattr(self, f"{name}_s") is None:
                raise InputError(f"slo: {name}_quantile is {quantile}, of no limit", fix=f"give {name}_s too")
        if not self.quantiles:
            return
        if self.attainment is not None:
            raise InputError(
                "slo: it has percentiles, each of its own latency, and a joint attainment", fix="keep one of them"
            )
        bare = [name.upper() for name in self.thresholds_s if name not in self.quantiles]
        if bare:
            raise InputError(
                f"slo: {' and '.join(bare)} has no percentile beside {self._percentiles_text()}",
                fix="give every limit one, such as p95, or none",
            )

    @property
    def quantiles(self) -> dict[str, float]:
        """The quantiles that are promised one by one, by name as in ``thresholds_s``; empty for other statistics."""
        given = {name: getattr(self, f"{name}_quantile") for name in METRICS}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def statistic(self) -> Statistic:
        if self.quantiles:
            return "percentiles"
        return "mean" if self.attainment is None else "attainment"

    @property
    def share(self) -> float | None:
        """The share of requests that the promise is about: its attainment, or the highest of its quantiles.

        What :meth:`attained` must reach. None for a promise about means.
        """
        return max(self.quantiles.values()) if self.quantiles else self.attainment

    @property
    def may_miss(self) -> float:
        """The share of all requests that may miss every limit, however late they are.

        0 for means and within buckets, and where there is no limit to miss.
        For percentiles the least of their shares: who misses one limit may miss the others too.
        """
        none = self.share is None or self.scope == "bucket" or not self.thresholds_s
        return 0.0 if none else 1 - (self.share or 0.0)

    def is_as_tight_as(self, other: Slo) -> bool:
        """Whether whatever keeps this promise keeps the other one, as far as the two say so by themselves.

        Every limit of the other is there, at most as long and for no smaller share. A joint attainment is as tight as
        percentiles of no larger share. Means and shares do not compare, nor do the two TPOTs.
        """
        if not other.thresholds_s:
            return True
        ours, theirs = self.thresholds_s, other.thresholds_s
        if "tpot" in theirs and self.tpot_definition != other.tpot_definition:
            return False
        if any(name not in ours or ours[name] > limit for name, limit in theirs.items()):
            return False
        if self.scope == "workload" and other.scope == "bucket":
            return False
        return self._shares_as_tight_as(other)

    def _shares_as_tight_as(self, other: Slo) -> bool:
        if other.statistic == "mean" or self.statistic == "mean":
            return other.statistic == self.statistic
        if self.attainment is not None:  # who keeps all limits at once keeps each
            return all(self.attainment >= share for share in (other.quantiles.values() or [other.attainment or 0.0]))
        if other.attainment is None:
            return all(self.quantiles[name] >= quantile for name, quantile in other.quantiles.items())
        names = list(other.thresholds_s)  # of one latency, both shapes say the same
        return len(names) == 1 and self.quantiles[names[0]] >= other.attainment

    def replaced(self, **asked: Any) -> Slo:
        """This SLO with some fields replaced; a quantile in place of a joint attainment, and the other way round."""
        if any(name.endswith("_quantile") for name in asked):
            asked = {"attainment": None, **asked}
        elif asked.get("attainment") is not None:
            asked |= {f"{name}_quantile": None for name in METRICS}
        return replace(self, **asked)

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
        where = "of each bucket's requests" if self.scope == "bucket" else "of all requests"
        if self.quantiles:
            each = (
                f"{percentile_name(self.quantiles[name])} {part}"
                for name, part in zip(self.thresholds_s, parts, strict=True)
            )
            return " and ".join(each) + (f" {where}" if self.scope == "bucket" else "")
        if self.attainment is None:
            return "mean " + " and mean ".join(parts)
        return f"{100 * self.attainment:g}% {where} jointly meet " + " and ".join(parts)

    def _percentiles_text(self) -> str:
        return " and ".join(f"{percentile_name(value)} {name.upper()}" for name, value in self.quantiles.items())

    def within(self, *, e2e_s: ArrayLike, ttft_s: ArrayLike, output_tokens: ArrayLike) -> dict[str, BoolArray]:
        """Per threshold, by its name, and request, whether it is met. Missing (NaN) latencies count as missed."""
        e2e, ttft = np.asarray(e2e_s, float), np.asarray(ttft_s, float)
        values = self.latencies_s(e2e_s=e2e, ttft_s=ttft, output_tokens=output_tokens)
        return {name: np.asarray(values[name] <= limit, dtype=np.bool_) for name, limit in self.thresholds_s.items()}

    def latencies_s(self, *, e2e_s: ArrayLike, ttft_s: ArrayLike, output_tokens: ArrayLike) -> dict[str, FloatArray]:
        """Per threshold, by its name, and request, the latency that is held against it, in seconds.

        0 is the decode TPOT of a single output token, infinite the latency of a request that was never served (NaN).
        """
        e2e, ttft = np.asarray(e2e_s, float), np.asarray(ttft_s, float)
        tokens = np.asarray(output_tokens)
        tpot = tpot_s(self.tpot_definition, e2e_s=e2e, ttft_s=ttft, output_tokens=tokens)
        tpot = np.where((tokens <= 1) & np.isnan(tpot), 0.0, tpot)
        unserved = np.isnan(e2e) | np.isnan(ttft)
        every = {"tpot": tpot, "ttft": ttft, "e2e": e2e}
        return {name: np.where(unserved, np.inf, every[name]) for name in self.thresholds_s}

    def met(self, *, e2e_s: ArrayLike, ttft_s: ArrayLike, output_tokens: ArrayLike) -> BoolArray:
        """Per request, whether it meets every threshold. Missing (NaN) latencies count as missed."""
        e2e, ttft = np.asarray(e2e_s, float), np.asarray(ttft_s, float)
        ok = ~(np.isnan(e2e) | np.isnan(ttft))
        for kept in self.within(e2e_s=e2e, ttft_s=ttft, output_tokens=output_tokens).values():
            ok = ok & kept
        return np.asarray(ok, dtype=np.bool_)

    def attained(self, shares: Mapping[str, float], joint: float) -> float:
        """What of the promised :attr:`share` is reached: it is kept where that is no less than the share.

        ``shares``: of the requests, those within each threshold; ``joint``: those within all. For an attainment (and a
        mean, of which shares say nothing) ``joint``; for percentiles the least of their shares, where misses of a
        lower percentile are scaled to those that the highest one allows.
        """
        if not self.quantiles:
            return joint
        if len(set(self.quantiles.values())) == 1:
            return min(shares[name] for name in self.quantiles)
        worst = max((1 - shares[name]) / (1 - quantile) for name, quantile in self.quantiles.items())
        return max(0.0, round(1 - worst * (1 - max(self.quantiles.values())), 12))

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
            **{f"{name}_quantile": value for name, value in self.quantiles.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Slo:
        """Read what :meth:`to_dict` wrote (``statistic`` is derived and ignored)."""
        return cls(**{key: value for key, value in data.items() if key != "statistic"})  # type: ignore[arg-type]


def percentile_name(quantile: float) -> str:
    """0.95 -> ``p95``, 0.999 -> ``p99.9``."""
    return f"p{round(100 * quantile, 9):g}"


def lower_quantile(values: ArrayLike, quantile: float) -> float:
    """The least of these values, (n,), that at least the share ``quantile`` of them does not exceed.

    So it is within a limit exactly where that share of the values is; NaN without any.
    """
    ordered = np.sort(np.asarray(values, float))
    if not len(ordered):
        return math.nan
    return float(ordered[max(0, math.ceil(quantile * len(ordered) - 1e-9) - 1)])


def percentile_of(name: str) -> float | None:
    """``p95`` -> 0.95, ``p99.9`` -> 0.999: the inverse of :func:`percentile_name`; None for any other text."""
    found = _PERCENTILE.fullmatch(name)
    quantile = round(float(found[1]) / 100, 12) if found else 0.0
    return quantile if 0 < quantile < 1 else None


_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,6})?)")
