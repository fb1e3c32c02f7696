"""The SLO of a workload file, in either of its two shapes.

Thresholds with one statistic of all, ``{ttft_ms: 500, tpot_ms: 50, tpot_definition: decode, attainment: 0.99}``, or a
statistic each, ``{ttft: {p95_ms: 500}, tpot: {p95_ms: 50, definition: decode}}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from melange.errors import InputError
from melange.files.documents import Document
from melange.slo import METRICS, Slo, percentile_name, percentile_of


def read_slo(document: Document) -> Slo:
    """The SLO of a file, in either shape: thresholds with a statistic of all, or a statistic each."""
    row = document.data.get("slo", {})
    each = [name for name in METRICS if name in row]
    joint = [
        key for key in ("tpot_ms", "tpot_definition", "ttft_ms", "e2e_ms", "statistic", "attainment") if key in row
    ]
    if each and joint:
        raise document.error(
            ("slo", each[0]),
            f"slo has both {each[0]}, promised by itself, and {joint[0]}, of a promise for all limits together",
            "keep one shape",
        )
    values = _each_by_itself(document, row, each) if each else _all_together(document, row)
    try:
        return Slo(**values, **{key: row[key] for key in ("attainment", "scope") if key in row})
    except InputError as error:
        raise document.error(("slo",), error.problem, error.fix) from error


def _all_together(document: Document, row: Mapping[str, Any]) -> dict[str, Any]:
    if row.get("statistic") == "attainment" and "attainment" not in row:
        raise document.error(("slo", "statistic"), "slo.attainment is missing", "give the share, for example 0.99")
    if row.get("statistic") == "mean" and "attainment" in row:
        raise document.error(
            ("slo", "attainment"), "slo has both statistic: mean and an attainment", "keep one of them"
        )
    if "tpot_ms" in row and "tpot_definition" not in row:
        raise document.error(
            ("slo",), "slo.tpot_definition is missing", "say decode (vLLM's TPOT) or e2e_per_token (the paper's)"
        )
    values = {f"{name}_s": row[f"{name}_ms"] / 1000 for name in METRICS if f"{name}_ms" in row}
    return values | ({"tpot_definition": row["tpot_definition"]} if "tpot_definition" in row else {})


def _each_by_itself(document: Document, row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """``ttft: {p95_ms: 500}``, ``tpot: {mean_ms: 50, definition: decode}`` -> fields of an SLO."""
    values: dict[str, Any] = {}
    for name in names:
        limits = [key for key in row[name] if key != "definition"]
        if len(limits) != 1:
            held = " and ".join(limits) or "no limit"
            raise document.error(("slo", name), f"slo.{name} has {held}", "give one, such as p95_ms: 500")
        values[f"{name}_s"] = row[name][limits[0]] / 1000
        quantile = percentile_of(limits[0].removesuffix("_ms"))
        if quantile is not None:
            values[f"{name}_quantile"] = quantile
        elif limits[0] != "mean_ms":
            raise document.error(("slo", name, limits[0]), f"{limits[0]} is no percentile", "give p50_ms to p99.9_ms")
    return values | ({"tpot_definition": row["tpot"]["definition"]} if "tpot" in row else {})


def slo_row(slo: Slo) -> dict[str, Any]:
    """What :func:`read_slo` reads as this SLO."""
    if slo.quantiles:
        return _percentiles_row(slo)
    row: dict[str, Any] = {f"{name}_ms": _ms(value) for name, value in slo.thresholds_s.items()}
    if slo.tpot_s is not None:
        row["tpot_definition"] = slo.tpot_definition
    row["statistic"] = slo.statistic
    if slo.attainment is not None:
        row |= {"attainment": slo.attainment, "scope": slo.scope}
    return row


def _percentiles_row(slo: Slo) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: {f"{percentile_name(quantile)}_ms": _ms(slo.thresholds_s[name])}
        for name, quantile in slo.quantiles.items()
    }
    if "tpot" in row:
        row["tpot"]["definition"] = slo.tpot_definition
    return row if slo.scope == "workload" else row | {"scope": slo.scope}


def _ms(seconds: float) -> float | int:
    rounded = float(f"{1000 * seconds:.10g}")
    return int(rounded) if rounded == int(rounded) else rounded
