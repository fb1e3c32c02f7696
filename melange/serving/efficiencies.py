"""Efficiencies: the few figures between a datasheet and a serving engine, each with a physical prior.

Everything else in the model is arithmetic on the catalog. Figures that differ between GPUs for a physical reason (a
power cap that keeps tensor cores below their printed rate) sit in :data:`GEMM_SHARE`, known before any calibration;
what is calibrated is common to all GPUs, which is what lets measurements on one GPU speak about another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray
from melange.errors import InputError

# Share of the printed dense fp16 rate that large matrix products sustain, by public microbenchmarks, none of them a
# serving measurement. Means over squares of 4096 to 10240 (zzc0721/torch-performance-test-data, issues 126, 120, 79):
# A10G 65.9 of 70 TFLOPS, L4 53.1 of 121 (held down by its 72 W), H100 722 of 989 (the H200 has the same chip).
# L40S 269 of 362 (its best; issue 43). A100 260-262 of 312 (NanoFlow, arXiv 2408.12757). B200 1745 of 2250, MI300X 782
# of 1307: the "maximum achievable matmul FLOPS" table of stas00/ml-engineering. T4: taken as the L4, with a 70 W cap.
# H100 NVL: 0.63 measured in tf32 under its 400 W. RTX PRO 6000, B300, GB200, GB300: 0.84, 0.76, 0.70, 0.77, medians of
# the kernels that aiconfigurator-core 0.12.0 measured at 4096 and 8192 tokens (vLLM 0.24). The rest by their nearest
# kin: a chip that its power does not hold down (consumer cards' rates with 32-bit sums, H20) 0.90, one that it does as
# the L40S or the H100 NVL, AMD's successors as the MI300X, V100 as the A100.
GEMM_SHARE: Mapping[str, float] = MappingProxyType(
    {
        "T4": 0.44,
        "V100-16GB": 0.80,
        "V100-32GB": 0.80,
        "V100S-32GB": 0.80,
        "RTX3090": 0.90,
        "A6000": 0.74,
        "L20": 0.74,
        "RTX4090": 0.90,
        "RTX4090D": 0.90,
        "RTX6000-Ada": 0.74,
        "A800-80GB": 0.835,
        "H20": 0.90,
        "H20-141GB": 0.90,
        "H100-PCIe": 0.63,
        "GH200": 0.73,
        "GH200-144GB": 0.73,
        "B300": 0.76,
        "GB200": 0.70,
        "GB300": 0.77,
        "RTX5090": 0.90,
        "RTX-PRO-6000": 0.84,
        "MI325X": 0.60,
        "MI355X": 0.60,
        "L4": 0.44,
        "A10G": 0.94,
        "L40S": 0.74,
        "A100-40GB": 0.835,
        "A100-80GB": 0.835,
        "H100": 0.73,
        "H100-NVL": 0.63,
        "H200": 0.73,
        "B200": 0.776,
        "MI300X": 0.60,
    }
)
DEFAULT_GEMM_SHARE = 0.70


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is believed of one efficiency before any measurement: log-normal around ``mean``, cut at the bounds.

    ``spread`` is the standard deviation of its natural logarithm.
    """

    mean: float
    spread: float
    low: float
    high: float
    meaning: str


PRIORS: Mapping[str, Prior] = MappingProxyType(
    {
        "gemm_scale": Prior(
            mean=0.85, spread=0.2, low=0.02, high=1.1, meaning="engine's GEMMs relative to the GPU's best matmul rate"
        ),
        "dequantised_gemm_share": Prior(
            mean=0.8,
            spread=0.15,
            low=0.2,
            high=1.0,
            meaning="GEMM rate kept when weights are only stored in a precision",
        ),
        # H200 73.4% of peak in fp8 against 80.3% in bf16, B200 76.3% against 77.6% (stas00/ml-engineering); less the
        # quantising of activations.
        "eight_bit_gemm_share": Prior(
            mean=0.88, spread=0.12, low=0.2, high=1.0, meaning="share of the 8-bit peak relative to that of 16 bits"
        ),
        "bandwidth_share": Prior(
            mean=0.85, spread=0.1, low=0.05, high=0.98, meaning="share of peak bandwidth when weights are read"
        ),
        "kv_bandwidth_share": Prior(
            mean=0.7,
            spread=0.35,
            low=0.02,
            high=0.98,
            meaning="share of peak bandwidth when the paged KV cache is read",
        ),
        "vector_attention_share": Prior(
            mean=0.2,
            spread=0.5,
            low=0.02,
            high=1.0,
            meaning="share of the fp32 rate that per-head decode attention reaches",
        ),
        "attention_share": Prior(
            mean=0.5, spread=0.4, low=0.02, high=1.0, meaning="prefill attention relative to the GPU's best matmul rate"
        ),
        "activation_passes": Prior(
            mean=1.0, spread=0.5, low=0.05, high=10.0, meaning="activation traffic relative to one pass per operation"
        ),
        "overhead_s": Prior(
            mean=2e-3, spread=1.0, low=1e-5, high=0.1, meaning="host and launch time of an iteration, in seconds"
        ),
        "per_sequence_s": Prior(
            mean=2e-5, spread=1.5, low=1e-7, high=0.01, meaning="host time per sequence of an iteration, in seconds"
        ),
        "per_request_s": Prior(mean=2e-3, spread=1.5, low=1e-5, high=0.5, meaning="host time per request, in seconds"),
        "per_token_s": Prior(
            mean=2e-6,
            spread=1.0,
            low=1e-8,
            high=1e-3,
            meaning="host time per token (tokenising, slot mapping), in seconds",
        ),
        "collective_latency_s": Prior(
            mean=1.5e-5, spread=0.7, low=1e-6, high=1e-3, meaning="fixed time of one all-reduce, in seconds"
        ),
        "network_share": Prior(
            mean=0.7, spread=0.3, low=0.05, high=1.0, meaning="share of the link's one-way rate in an all-reduce"
        ),
        "kv_usable_share": Prior(
            mean=0.95,
            spread=0.04,
            low=0.3,
            high=1.0,
            meaning="share of the KV cache that holds live tokens at saturation",
        ),
        "recompute_share": Prior(
            mean=0.4, spread=0.7, low=0.01, high=1.0, meaning="share of the prefills repeated after preemption"
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiencies:
    """One value for every entry of :data:`PRIORS`; the defaults are the prior means."""

    gemm_scale: float = PRIORS["gemm_scale"].mean
    dequantised_gemm_share: float = PRIORS["dequantised_gemm_share"].mean
    eight_bit_gemm_share: float = PRIORS["eight_bit_gemm_share"].mean
    bandwidth_share: float = PRIORS["bandwidth_share"].mean
    kv_bandwidth_share: float = PRIORS["kv_bandwidth_share"].mean
    vector_attention_share: float = PRIORS["vector_attention_share"].mean
    attention_share: float = PRIORS["attention_share"].mean
    activation_passes: float = PRIORS["activation_passes"].mean
    overhead_s: float = PRIORS["overhead_s"].mean
    per_sequence_s: float = PRIORS["per_sequence_s"].mean
    per_request_s: float = PRIORS["per_request_s"].mean
    per_token_s: float = PRIORS["per_token_s"].mean
    collective_latency_s: float = PRIORS["collective_latency_s"].mean
    network_share: float = PRIORS["network_share"].mean
    kv_usable_share: float = PRIORS["kv_usable_share"].mean
    recompute_share: float = PRIORS["recompute_share"].mean

    def __post_init__(self) -> None:
        for item in fields(self):
            value, prior = getattr(self, item.name), PRIORS[item.name]
            if not (math.isfinite(value) and prior.low * (1 - 1e-9) <= value <= prior.high * (1 + 1e-9)):
                raise InputError(
                    f"efficiency {item.name} is {value}", fix=f"it lies between {prior.low:g} and {prior.high:g}"
                )

    def logs(self) -> FloatArray:
        """Natural logarithms, shape (number of efficiencies,), in the order of :data:`PRIORS`."""
        return np.log([getattr(self, name) for name in PRIORS])

    @classmethod
    def from_logs(cls, logs: ArrayLike) -> Efficiencies:
        """The inverse of :meth:`logs`; values beyond a bound are cut at it."""
        values = np.exp(np.asarray(logs, float))
        return cls(
            **{
                name: float(min(max(value, prior.low), prior.high))
                for (name, prior), value in zip(PRIORS.items(), values, strict=True)
            }
        )
