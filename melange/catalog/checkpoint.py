"""What a config.json says that its weights are stored in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from melange.catalog.precisions import Precision
from melange.errors import InputError

_DTYPES: Mapping[str, Precision] = {
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float": "fp32",
}
_WEIGHT_ONLY: Mapping[int, Precision] = {4: "int4", 8: "w8a16"}
_ALGORITHMS: tuple[tuple[str, Precision], ...] = (
    ("NVFP4", "nvfp4"), ("MXFP4", "mxfp4"), ("W4A16", "int4"), ("W4A8", "int4"), ("W8A16", "w8a16"), ("FP8", "fp8"),
    ("W8A8", "int8"), ("INT8", "int8"), ("FP4", "nvfp4"),
)  # fmt: skip


def checkpoint_precision(config: Mapping[str, Any]) -> Precision:
    """The precision by a config's ``quantization_config`` or ``compression_config``, else by its ``dtype``.

    Without either, fp16. Where its layers differ, that of most groups. A kind of quantisation that is not modelled
    raises InputError.
    """
    quantised = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(quantised, Mapping):
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "float16").removeprefix("torch.")
        if dtype not in _DTYPES:
            raise InputError(f"its dtype is {dtype!r}", fix=f"known: {', '.join(_DTYPES)}")
        return _DTYPES[dtype]
    method = str(quantised.get("quant_method") or quantised.get("quant_algo") or "").lower()
    found = _by_method(method, quantised)
    if found is None:
        raise InputError(
            f"its quantization_config ({method or 'no method'}) is not modelled",
            fix="give the config.json of the model it was made from, and say --precision",
        )
    return found


def _by_method(method: str, quantised: Mapping[str, Any]) -> Precision | None:
    if method == "mxfp4":
        return "mxfp4"
    if method in ("fp8", "fbgemm_fp8", "deepseek_fp8", "ptpc_fp8"):
        return "fp8"
    if method == "bitsandbytes":
        return "w8a16" if quantised.get("load_in_8bit") else "int4"
    if method.startswith("modelopt") or quantised.get("quant_algo"):
        return _by_algorithm(quantised)
    if method in ("compressed-tensors", "quark"):
        return _by_groups(quantised)
    bits = quantised.get("bits", quantised.get("w_bit"))
    return _WEIGHT_ONLY.get(bits) if isinstance(bits, int) else None


def _by_algorithm(quantised: Mapping[str, Any]) -> Precision | None:
    """ModelOpt's: one algorithm's name, or many of a mixed precision, of which the smallest weights decide."""
    stated = json.dumps(quantised).upper()
    named = str(quantised.get("quant_algo") or "").upper()
    text = named if named and "MIXED" not in named else stated
    return next((precision for sign, precision in _ALGORITHMS if sign in text), None)


def _by_groups(quantised: Mapping[str, Any]) -> Precision | None:
    """Those of compressed-tensors and Quark: weights' and activations' kinds, group by group."""
    groups = quantised.get("config_groups")
    rows = list(groups.values()) if isinstance(groups, Mapping) else []
    if not rows and isinstance(quantised.get("global_quant_config"), Mapping):
        rows = [quantised["global_quant_config"]]
    kinds = [_group(row) for row in rows if isinstance(row, Mapping)]
    return max(kinds, key=kinds.count) if kinds and None not in kinds else None


def _group(row: Mapping[str, Any]) -> Precision | None:
    weights = row.get("weights") or row.get("weight") or {}
    if not isinstance(weights, Mapping):
        return None
    bits, kind = weights.get("num_bits"), str(weights.get("type") or weights.get("dtype") or "")
    activations = row.get("input_activations") or row.get("input_tensors")
    form = str(row.get("format") or "")
    if (bits == 4 and (kind == "float" or "fp4" in form)) or "fp4" in kind:
        group = weights.get("group_size")
        return "mxfp4" if "mxfp4" in form or group == 32 else "nvfp4"
    if bits == 4 or "int4" in kind:
        return "int4"
    if (kind == "float" and bits == 8) or "fp8" in kind:
        return "fp8" if activations or "input_activations" not in row else "w8a16"
    if bits == 8 or "int8" in kind:
        return "int8" if activations else "w8a16"
    return None
