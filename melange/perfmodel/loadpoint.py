"""LoadPoint: what requests experience at one steady load, as means, shares within a threshold, and quantiles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from melange.arrays import BoolArray, FloatArray
from melange.slo import Slo


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadPoint:
    """A replica under a steady load, elementwise over request sizes (arrays of one shape; means unless said otherwise).

    ``prefill_s`` is the time to first token without queueing, ``wait_s`` the queueing (infinite at saturation), which
    a share ``waiting_share`` of the requests meets; ``tpot_decode_s`` is the mean time between output tokens,
    ``tpot_sd_s`` its standard deviation between requests, ``tpot_max_s`` and ``tpot_max_sd_s`` both at saturation.
    ``decode_steps`` is output tokens less one.
    """

    rate_rps: FloatArray
    concurrency: FloatArray
    prefill_s: FloatArray
    wait_s: FloatArray
    waiting_share: FloatArray
    tpot_decode_s: FloatArray
    tpot_sd_s: FloatArray
    tpot_max_s: FloatArray
    tpot_max_sd_s: FloatArray
    decode_steps: FloatArray

    @property
    def output_tokens(self) -> FloatArray:
        return self.decode_steps + 1.0

    @property
    def ttft_s(self) -> FloatArray:
        return self.prefill_s + self.wait_s

    @property
    def e2e_s(self) -> FloatArray:
        return self.ttft_s + self.decode_steps * self.tpot_decode_s

    @property
    def tpot_e2e_per_token_s(self) -> FloatArray:
        return self.e2e_s / self.output_tokens

    def ttft_within(self, threshold_s: ArrayLike) -> FloatArray:
        """Share of requests whose TTFT is within the threshold: the wait is 0 or exponential."""
        return self._wait_within(np.asarray(threshold_s, float) - self.prefill_s)

    def tpot_within(self, threshold_s: ArrayLike) -> FloatArray:
        """Share of requests whose decode TPOT is within the threshold: normal, and no less than at saturation."""
        threshold = np.asarray(threshold_s, float)
        share = ndtr((threshold - self.tpot_decode_s) / np.maximum(self.tpot_sd_s, 1e-12))
        least = ndtr((threshold - self.tpot_max_s) / np.maximum(self.tpot_max_sd_s, 1e-12))
        return np.asarray(np.where(self.decode_steps < 1, 1.0, np.maximum(share, least)))

    def e2e_within(self, threshold_s: ArrayLike) -> FloatArray:
        """Share of requests whose latency is within the threshold; decode time integrated at 3 Gauss-Hermite nodes."""
        total = np.zeros(np.shape(self.prefill_s))
        for node, weight in ((-np.sqrt(3.0), 1 / 6), (0.0, 2 / 3), (np.sqrt(3.0), 1 / 6)):
            tpot = np.minimum(self.tpot_decode_s + node * self.tpot_sd_s, self.tpot_max_s)
            total += weight * self._wait_within(
                np.asarray(threshold_s, float) - self.prefill_s - self.decode_steps * tpot
            )
        return total

    def _wait_within(self, spare_s: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            late = self.waiting_share * np.exp(-spare_s * self.waiting_share / self.wait_s)
        late = np.where(np.isinf(self.wait_s), 1.0, np.where(self.wait_s > 0, late, 0.0))
        return np.asarray(np.where(spare_s >= 0, 1.0 - np.minimum(late, 1.0), 0.0))

    def ttft_quantile_s(self, share: float) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            tail = np.log(self.waiting_share / (1.0 - share)) * self.wait_s / self.waiting_share
        late = np.where(self.wait_s > 0, np.maximum(np.nan_to_num(tail), 0.0), 0.0)
        return np.asarray(self.prefill_s + late)

    def tpot_quantile_s(self, share: float) -> FloatArray:
        most = self.tpot_max_s + max(float(ndtri(share)), 0.0) * self.tpot_max_sd_s
        return np.asarray(np.minimum(self.tpot_decode_s + ndtri(share) * self.tpot_sd_s, most))

    def e2e_quantile_s(self, share: float) -> FloatArray:
        """Deviations of TTFT and decode time from their means, added as independent (root of the sum of squares).

        Infinite where the wait is.
        """
        if not np.isfinite(self.wait_s).all():
            finite = replace(self, wait_s=np.where(np.isfinite(self.wait_s), self.wait_s, 0.0))
            return np.asarray(np.where(np.isfinite(self.wait_s), finite.e2e_quantile_s(share), np.inf))
        ttft = self.ttft_quantile_s(share) - self.ttft_s
        decode = self.decode_steps * (self.tpot_quantile_s(share) - self.tpot_decode_s)
        deviation = np.where(ttft + decode >= 0, 1.0, -1.0) * np.hypot(ttft, decode)
        least = self.prefill_s + (self.decode_steps * self.tpot_decode_s if share >= 0.5 else 0.0)
        return np.asarray(np.maximum(self.e2e_s + deviation, least))

    def meets(self, slo: Slo) -> BoolArray:
        """Whether the load keeps the promise, elementwise.

        Means are compared for a mean SLO. For an attainment SLO the shares within each threshold are multiplied: late
        first tokens and slow decoding come from the same bursts, so the product errs on the safe side. Percentiles are
        compared one by one.
        """
        if slo.statistic == "mean":
            return self._means_within(slo)
        shares = {name: self._within(name, limit, slo) for name, limit in slo.thresholds_s.items()}
        if slo.attainment is not None:
            every = np.ones(np.shape(self.rate_rps))
            for share in shares.values():
                every = every * share
            return np.asarray(every >= slo.attainment)
        ok = np.ones(np.shape(self.rate_rps), dtype=bool)
        for name, quantile in slo.quantiles.items():
            ok &= shares[name] >= quantile
        return ok

    def _means_within(self, slo: Slo) -> BoolArray:
        ok = np.ones(np.shape(self.rate_rps), dtype=bool)
        for name, threshold in slo.thresholds_s.items():
            if name == "tpot" and slo.tpot_definition == "decode":
                ok &= (self.tpot_decode_s <= threshold) | (self.decode_steps < 1)
            elif name == "ttft":
                ok &= self.ttft_s <= threshold
            else:
                ok &= self.e2e_s <= self._e2e_limit_s(name, threshold)
        return ok

    def _within(self, name: str, threshold_s: float, slo: Slo) -> FloatArray:
        """Share of requests within one threshold of an SLO."""
        if name == "tpot" and slo.tpot_definition == "decode":
            return self.tpot_within(threshold_s)
        if name == "ttft":
            return self.ttft_within(threshold_s)
        return self.e2e_within(self._e2e_limit_s(name, threshold_s))

    def _e2e_limit_s(self, name: str, threshold_s: float) -> FloatArray:
        """The latency that a limit of it, or of it per output token, allows."""
        return np.asarray(
            threshold_s * self.output_tokens if name == "tpot" else np.full(self.rate_rps.shape, threshold_s)
        )
