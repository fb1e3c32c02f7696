"""Precisions: what weights are stored in, how many bytes that takes, and what a GPU computes them in.

``int8`` and ``fp8`` quantise activations too (W8A8); ``w8a16`` and ``int4`` only store the weights small (GPTQ, AWQ,
bitsandbytes) and multiply in 16 bits. ``mxfp4`` and ``nvfp4`` are 4-bit floats with a scale for each 32 (8 bits) or 16
(8 bits) of them, computed on 4-bit units where there are any, and only stored elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8", "w8a16", "nvfp4", "mxfp4", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FULL_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
# Scales included: 16 bits for each group of 128 in int4 (AWQ's and GPTQ's usual), 8 bits for each 32 and 16 in FP4.
BYTES_PER_PARAMETER: Mapping[str, float] = MappingProxyType(
    {
        "fp32": 4.0,
        "fp16": 2.0,
        "bf16": 2.0,
        "fp8": 1.0,
        "int8": 1.0,
        "w8a16": 1.0,
        "nvfp4": 0.5 + 1 / 16,
        "mxfp4": 0.5 + 1 / 32,
        "int4": 0.5 + 2 / 128,
    }
)
# What a datasheet gives a dense rate of; "fp4" serves both 4-bit floats.
RATES: tuple[str, ...] = ("fp32", "fp16", "bf16", "fp8", "int8", "int4", "fp4")
_COMPUTED_IN: Mapping[str, str | None] = MappingProxyType(
    {kind: kind for kind in PRECISIONS} | {"w8a16": None, "int4": None, "nvfp4": "fp4", "mxfp4": "fp4"}
)
# Formats that engines apply to the experts of a mixture alone, its attention and shared layers staying at 16 bits.
EXPERTS_ONLY: tuple[Precision, ...] = ("nvfp4", "mxfp4")


def computed_in(precision: str) -> str | None:
    """The rate of a datasheet that a precision computes at; None where weights are only stored in it."""
    return _COMPUTED_IN[precision]
