"""Kernel times: what a GPU's matrix products, experts, attention and all-reduces were measured to take.

The figures of each GPU type are distilled from public measurements (profiles/kernels/nvidia.yaml, NOTICE): a matrix
product of n x k weights takes a launch, a time in proportion to n k and smaller ones to n and k while few tokens only
read the weights, and the same per token where many compute. A GPU that was not measured takes the shape of its nearest
kin, scaled by bandwidth and by the dense rate that its matrix products sustain; a format that was not measured takes
what it was worth, relative to 16 bits, where it was.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

from melange.catalog.hardware import Gpu, load_catalog
from melange.catalog.precisions import BYTES_PER_PARAMETER
from melange.errors import InputError
from melange.files.shipped import shipped_yaml
from melange.serving.efficiencies import DEFAULT_GEMM_SHARE, GEMM_SHARE, PRIORS

# Where no kernels were measured: the GPU whose architecture and kind of memory come nearest. Ampere's and Volta's data
# centre chips as the A100; GDDR cards that their power holds down as the L40S, the others as the RTX PRO 6000; Hopper's
# variants as the H100 or the H200; AMD's as the H200 or the B200, whose engines' costs are their own.
_KIN: Mapping[str, str] = MappingProxyType(
    {
        "A100-40GB": "A100-80GB", "A800-80GB": "A100-80GB", "V100-16GB": "A100-80GB", "V100-32GB": "A100-80GB",
        "V100S-32GB": "A100-80GB", "T4": "L40S", "L4": "L40S", "A10G": "L40S", "L20": "L40S", "A6000": "L40S",
        "RTX6000-Ada": "L40S", "RTX3090": "RTX-PRO-6000", "RTX4090": "RTX-PRO-6000", "RTX4090D": "RTX-PRO-6000",
        "RTX5090": "RTX-PRO-6000", "H100-PCIe": "H100", "H100-NVL": "H100", "H20": "H100", "H20-141GB": "H200",
        "GH200": "H100", "GH200-144GB": "H200", "MI300X": "H200", "MI325X": "H200", "MI355X": "B200",
    }
)  # fmt: skip
# The table's A100 reads 16-bit weights at 74% of its bandwidth, every other GPU of it at 78% or more; served, A100s of
# three public sources and two engines decode as if it were 83%, the share of an H100 (bench_public_points.py).
_SERVED_READ: Mapping[str, float] = MappingProxyType({"A100-80GB": 0.74 / 0.83})
_PCIE_MEASURED, _PCIE_OWN = ("L40S", "RTX-PRO-6000"), "RTX-PRO-6000"
# A described GPU that is farther from all of the catalog's, by bandwidth times compute, is no kin of any.
FARTHEST_KIN = 3.0
# Formats that only store weights were measured on the A100 alone, fp8 on every GPU that computes it.
_STORED_ON, _STORED = "A100-80GB", {"fp8": "w8a16", "int8": "w8a16", "nvfp4": "int4", "mxfp4": "int4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """A dense matrix product. Seconds: a launch; reading, by n k, n and k; computing a token, by n k, n and k."""

    launch_s: float
    read_s: tuple[float, float, float]
    compute_s: tuple[float, float, float]

    def read(self, nk: float, n: float, k: float) -> float:
        """Seconds of reading weights of these sums over several products, launches left out."""
        return self.read_s[0] * nk + self.read_s[1] * n + self.read_s[2] * k

    def compute(self, nk: float, n: float, k: float) -> float:
        """Seconds of computing one token among many, of these sums over several products."""
        return self.compute_s[0] * nk + self.compute_s[1] * n + self.compute_s[2] * k

    def scaled(self, read: float, compute: float, launch: float = 1.0) -> Gemm:
        """Reading, computing and launching as many times longer."""
        return Gemm(
            launch_s=self.launch_s * launch,
            read_s=_times(self.read_s, read),
            compute_s=_times(self.compute_s, compute),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A layer's routed experts: launches in seconds, seconds per byte of weights read and per FLOP."""

    launch_s: float
    s_per_byte: float
    s_per_flop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """Everything that was measured, or taken from a kin, of one GPU type. Rates in bytes/s and FLOP/s.

    ``kv_bytes_s`` by the bytes of a KV element (2.0 and 1.0); ``all_reduce`` by GPUs: (latency in seconds, bytes/s of a
    link by a ring's count), empty where no link was measured. ``measured`` says whether it is this GPU's own.
    """

    gemms: Mapping[str, Gemm]
    experts: Mapping[str, Experts]
    attention_launch_s: float
    kv_bytes_s: Mapping[float, float]
    prefill_flops: float
    all_reduce: Mapping[int, tuple[float, float]]
    measured: bool

    def gemm(self, precision: str) -> Gemm:
        """The product in a precision; one that is only stored here takes what it is worth where it was measured."""
        own = self.gemms.get(_BF16.get(precision, precision))
        if own is not None:
            return own
        return self.gemms["bf16"].scaled(*_worth(_STORED.get(precision, precision)))

    def expert(self, precision: str) -> Experts:
        """Experts in a precision; where that was not measured here, 16 bits of fewer bytes."""
        own = self.experts.get(_BF16.get(precision, precision))
        if own is not None:
            return own
        sixteen = self.experts["bf16"]
        # As dense products: narrow weights are read at a lesser rate than wide ones.
        read, compute, _ = _worth(_STORED.get(precision, precision))
        return replace(
            sixteen,
            s_per_byte=sixteen.s_per_byte * read * 2.0 / BYTES_PER_PARAMETER[precision],
            s_per_flop=sixteen.s_per_flop * compute,
        )


_BF16: Mapping[str, str] = {"fp16": "bf16"}


def _times(values: tuple[float, float, float], factor: float) -> tuple[float, float, float]:
    return values[0] * factor, values[1] * factor, values[2] * factor


@cache
def _worth(precision: str) -> tuple[float, float, float]:
    """Times that reading, computing and launching take in a format relative to 16 bits, on the A100."""
    wide, narrow = (_own(_STORED_ON).gemms[kind] for kind in ("bf16", precision))
    return (
        narrow.read_s[0] / wide.read_s[0],
        narrow.compute_s[0] / wide.compute_s[0],
        narrow.launch_s / wide.launch_s,
    )


@cache
def _rows() -> Mapping[str, Any]:
    rows: Mapping[str, Any] = shipped_yaml("profiles/kernels/nvidia.yaml")["gpus"]
    return rows


@cache
def _own(name: str) -> Kernels:
    row = _rows()[name]
    return Kernels(
        gemms={
            kind: Gemm(
                launch_s=1e-6 * one["launch_us"],
                read_s=_times(_units(one["read_us"], 1e-6), _SERVED_READ.get(name, 1.0) if kind == "bf16" else 1.0),
                compute_s=_units(one["compute_us"], 1e-9),  # a file's microseconds are of 1000 tokens
            )
            for kind, one in row["gemm"].items()
        },
        experts={
            kind: Experts(
                launch_s=1e-6 * one["launch_us"],
                s_per_byte=1e-9 / one["read_gb_s"],
                s_per_flop=1e-12 / one["tflops"],
            )
            for kind, one in row["experts"].items()
        },
        attention_launch_s=1e-6 * row["attention"]["launch_us"],
        kv_bytes_s={{"bf16": 2.0, "fp8": 1.0}[kind]: 1e9 * rate for kind, rate in row["attention"]["kv_gb_s"].items()},
        prefill_flops=1e12 * row["attention"]["prefill_tflops"],
        all_reduce={
            int(gpus): (1e-6 * one["latency_us"], 1e9 * one["gb_s"]) for gpus, one in row["all_reduce"].items()
        },
        measured=True,
    )


def _units(values: list[float], unit: float) -> tuple[float, float, float]:
    """A file's figures are of 1e6 of n k, and of 1e3 of n and of k."""
    return values[0] * unit * 1e-6, values[1] * unit * 1e-3, values[2] * unit * 1e-3


@cache
def kin_of(gpu: Gpu) -> str | None:
    """The GPU type whose kernels were measured and whose shape this one takes: itself, its kin, or None.

    A GPU that the catalog lacks takes the kin of the one that its name holds, else of the catalog's nearest of its
    vendor, by the logarithms of bandwidth and dense 16-bit rate; None where that is more than :data:`FARTHEST_KIN`
    times away, as a CPU is.
    """
    known = _known(gpu)
    if known is None:
        return None
    return known.name if known.name in _rows() else _KIN[known.name]


def _known(gpu: Gpu) -> Gpu | None:
    """The catalog's GPU of this name, or that it holds, else the nearest by its figures; None where that is far."""
    catalog = load_catalog().gpus
    if gpu.name in catalog:
        return catalog[gpu.name]

    def distance(other: Gpu) -> float:
        figures = ((gpu.bandwidth_gb_s, other.bandwidth_gb_s), (gpu.tflops["fp16"], other.tflops["fp16"]))
        return sum(abs(math.log(own / its)) for own, its in figures)

    alike = [other for other in catalog.values() if other.vendor == gpu.vendor]
    named = [other for other in alike if _holds(gpu.name, other.name)]
    if named:
        return max(named, key=lambda other: len(other.name))
    nearest = min(alike, key=distance, default=None)
    return nearest if nearest is not None and distance(nearest) <= math.log(FARTHEST_KIN) else None


def _holds(name: str, other: str) -> bool:
    """Whether a name holds another as a word of its own: L40 does not hold L4."""
    return re.search(rf"(?<![a-z0-9]){re.escape(other.lower())}(?![a-z0-9])", name.lower()) is not None


@cache
def kernels_of(gpu: Gpu) -> Kernels:
    """The kernel times of a GPU type, measured or taken from its kin; InputError where :func:`kin_of` knows none."""
    kin = kin_of(gpu)
    if kin is None:
        raise InputError(f"no kernels were measured of a GPU like {gpu.name}", fix="use the datasheet's clock")
    other = load_catalog().gpu(kin)
    own = _own(kin) if other == gpu else _scaled(_own(kin), other, gpu)
    gemms, experts = dict(own.gemms), dict(own.experts)
    for precision, (like, read, compute) in _not_measured(gpu, own).items():
        gemms[precision] = own.gemms[like].scaled(read, compute)
        if like in own.experts:
            expert = own.experts[like]
            experts[precision] = replace(expert, s_per_flop=expert.s_per_flop * compute)
    return replace(own, gemms=gemms, experts=experts, all_reduce=_all_reduce(gpu, other, own), measured=gpu.name == kin)


def _scaled(own: Kernels, other: Gpu, gpu: Gpu) -> Kernels:
    """The kernels of a measured GPU as another one's, by bandwidth and by the rate of large products."""
    slower_read = other.bandwidth_gb_s / gpu.bandwidth_gb_s
    slower = _sustained(other) / _sustained(gpu)
    gemms = {}
    for kind, one in own.gemms.items():
        if kind in ("bf16", "w8a16", "int4") or kind in gpu.tflops:
            ratio = slower
            if kind in other.tflops and kind in gpu.tflops:  # what 8 bits gain over 16 differs between chips
                ratio *= (other.tflops[kind] / other.tflops["fp16"]) / (gpu.tflops[kind] / gpu.tflops["fp16"])
            gemms[kind] = one.scaled(slower_read, ratio)
    return replace(
        own,
        gemms=gemms,
        experts={
            kind: replace(one, s_per_byte=one.s_per_byte * slower_read, s_per_flop=one.s_per_flop * slower)
            for kind, one in own.experts.items()
            if kind in ("bf16", "int4", "mxfp4") or kind in gpu.tflops
        },
        kv_bytes_s={element: rate / slower_read for element, rate in own.kv_bytes_s.items()},
        prefill_flops=own.prefill_flops / slower,
    )


def _not_measured(gpu: Gpu, own: Kernels) -> dict[str, tuple[str, float, float]]:
    """Formats that a GPU computes in and that were not measured: like which, and times of reading and computing.

    32 bits as 16 of twice the bytes at the peaks' ratio; 8-bit integers as 8-bit floats at theirs, or, where there are
    none, as what they are worth on the A100.
    """
    found = {"fp32": ("bf16", 2.0, max(gpu.tflops["fp16"] / gpu.tflops.get("fp32", gpu.tflops["fp16"] / 8.0), 1.0))}
    if "int8" in gpu.tflops and "int8" not in own.gemms:
        if "fp8" in own.gemms and "fp8" in gpu.tflops:
            found["int8"] = ("fp8", 1.0, max(gpu.tflops["fp8"] / gpu.tflops["int8"], 1.0))
        else:
            found["int8"] = ("bf16", *_worth("int8")[:2])
    return found


def _all_reduce(gpu: Gpu, other: Gpu, own: Kernels) -> Mapping[int, tuple[float, float]]:
    """On NVLink a kin's by the links' rates; on PCIe the mean of :data:`_PCIE_MEASURED`, within the own link.

    What eight GPUs keep of PCIe is set by what lies between their slots: it differs tenfold between the two measured
    machines, one of which, the L40S's, keeps less than public points of slower cards do. The other's cards keep theirs.
    """
    family, kin_family = (_family(each.interconnect) for each in (gpu, other))
    faster = gpu.interconnect_gb_s / other.interconnect_gb_s
    if family == kin_family and (family == "nvlink" or gpu.name == other.name == _PCIE_OWN):
        return {gpus: (latency, rate * faster) for gpus, (latency, rate) in own.all_reduce.items()}
    if family != "pcie":
        return {}
    measured = [_own(name).all_reduce for name in _PCIE_MEASURED]
    most = PRIORS["network_share"].mean * gpu.interconnect_gb_s * 1e9
    found = {}
    for gpus in sorted(set.intersection(*(set(rows) for rows in measured))):
        latencies, rates = zip(*(rows[gpus] for rows in measured), strict=True)
        found[gpus] = max(latencies), min(math.prod(rates) ** (1.0 / len(rates)), most)
    return found


def _family(interconnect: str) -> str:
    """``pcie``, ``nvlink`` or the words themselves: a bridge of two is no switch of eight."""
    words = interconnect.lower()
    return next((kind for kind in ("pcie", "nvlink") if words.startswith(kind) and "bridge" not in words), words)


def _sustained(gpu: Gpu) -> float:
    """TFLOPS of large 16-bit products."""
    known = _known(gpu)
    return gpu.tflops["fp16"] * GEMM_SHARE.get("" if known is None else known.name, DEFAULT_GEMM_SHARE)
