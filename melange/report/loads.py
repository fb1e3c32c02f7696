"""Estimates under stated loads as a table, JSON or CSV, each beside the nearest public measurement."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from melange.perfmodel.at_load import LoadEstimate, LoadEstimates
from melange.perfmodel.nearest import Nearest
from melange.perfmodel.published import load_of
from melange.report.tables import rendered, table

_ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "tensorrt-llm": "TensorRT-LLM"}
_COLUMNS = (
    "in/out", "load", "req/s", "tok/s", "80% band", "per GPU", "TPOT ms", "TTFT s", "E2E s", "slots", "bound",
)  # fmt: skip
_LOADS = {"closed": "{:g} at once", "open": "{:g} req/s", "highest": "highest"}
_BOUNDS = {"kv cache": "KV", "sequences": "seqs", "token budget": "budget"}
_MEANING = "TPOT is the decode mean, (latency - TTFT) / (output tokens - 1); TTFT and E2E are means."


def render_loads(estimates: LoadEstimates, output: str = "table") -> str:
    """Throughput, latencies and slots of one replica per size and load; JSON also holds each row's nearest point."""
    if output == "json":
        head = {"schema_version": 1, "calibration": estimates.calibration.describe()}
        loads = [row.to_dict() for row in estimates.rows]
        return json.dumps({**head, "loads": loads, "notes": list(estimates.notes)}, indent=2)
    if output == "csv":
        return _csv(estimates.rows)
    parts: list[Any] = []
    for key, group in groupby(estimates.rows, key=lambda row: row.key):
        rows = list(group)
        alone = all(row.is_prompt_alone for row in rows)
        what = "prompts alone, prompt tok/s" if alone else "one replica, output tok/s"
        parts.append(table(f"{key.describe()}: {what}", _COLUMNS, [_cells(row, alone) for row in rows], left=2))
        parts += [*_remarks(rows), nearest_line(rows), ""]
    parts += estimates.notes
    parts.append(f"Estimated, {estimates.calibration.describe()}; tok/s with an 80% band. {_MEANING}")
    return rendered(*parts)


def _csv(rows: Sequence[LoadEstimate]) -> str:
    cells = [row.row() for row in rows]
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in cells for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue().rstrip("\n")


def _cells(row: LoadEstimate, alone: bool) -> tuple[str, ...]:
    size = f"{row.input_tokens:g}/{row.output_tokens:g}"
    load = _LOADS[row.load.kind].format(row.load.concurrency or row.load.rate_rps)
    if not row.fits:
        return (size, load, "0", *["-"] * (len(_COLUMNS) - 3))
    tokens = row.input_tokens if alone else row.output_tokens
    return (
        size,
        load,
        f"{row.rate_rps:.3g}",
        _count(row.rate_rps * tokens),
        f"{_brief(row.low_rps * tokens)}-{_brief(row.high_rps * tokens)}",
        _count(row.rate_rps * tokens / row.key.tp),
        _ms(row.tpot_decode_s),
        _seconds(row.ttft_s) if row.kept else "not kept",
        _seconds(row.e2e_s),
        f"{row.slots:.0f}",
        _BOUNDS[row.bound] if row.bound else "-",
    )


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _brief(value: float) -> str:
    return f"{value / 1e3:.3g}k" if value >= 1e3 else f"{value:.3g}"


def _ms(value_s: float | None) -> str:
    return "-" if value_s is None else _count(1e3 * value_s)


def _seconds(value_s: float | None) -> str:
    return "-" if value_s is None else _count(value_s)


def _remarks(rows: Sequence[LoadEstimate]) -> list[str]:
    """Sizes that do not fit, and rates above saturation."""
    sizes = [(f"{row.input_tokens:g}/{row.output_tokens:g}", row) for row in rows]
    unfit = dict.fromkeys(size for size, row in sizes if not row.fits)
    return [f"{size} does not fit: it is longer than the model's context or the KV cache" for size in unfit] + [
        f"{size}: {row.load.describe()} is above saturation, {row.saturation_rps:.3g} req/s: queues grow without end, "
        "and what is shown is saturation"
        for size, row in sizes
        if row.fits and not row.kept
    ]


def nearest_line(rows: Sequence[LoadEstimate]) -> str:
    """The nearest public measurement to any of a configuration's rows, and how near it is."""
    known = [(row.nearest.distance, n) for n, row in enumerate(rows) if row.nearest is not None]
    if not known:
        what = "of a TTFT on" if all(row.is_prompt_alone for row in rows) else "of"
        return f"nearest public measurement: none is known {what} the {rows[0].key.gpu}"
    row = rows[min(known)[1]]
    assert row.nearest is not None
    which = f" (to {row.input_tokens:g}/{row.output_tokens:g}, {row.load.describe()})" if len(rows) > 1 else ""
    return f"nearest public measurement{which}: {nearest_text(row.nearest)}"


def nearest_text(nearest: Nearest) -> str:
    """Engine, GPU, size and load: measured, predicted there, the source, and what differs from the estimate."""
    point, measured, predicted = nearest.point, nearest.measured, nearest.predicted
    engine = " ".join(filter(None, (_ENGINES.get(point.engine, point.engine), point.engine_version)))
    gpus = point.gpu if point.tp == 1 else f"{point.tp}x{point.gpu}"
    pairs = [
        ("", measured.output_tokens_per_s, predicted.output_tokens_per_s, 1.0, " tok/s"),
        ("TTFT ", measured.ttft_s, predicted.ttft_s, 1e3, " ms"),
        ("TPOT ", measured.tpot_decode_s, predicted.tpot_decode_s, 1e3, " ms"),
    ]
    figures = [
        f"{name}measured {_count(one * scale)}{unit}, predicted there {'-' if two is None else _count(two * scale)}"
        for name, one, two, scale, unit in pairs
        if one is not None
    ]
    kind = "median latencies; " if point.is_median and (measured.ttft_s or measured.tpot_decode_s) else ""
    load = "a batch of " + f"{point.concurrency:g}" if point.load == "batch" else load_of(point).describe()
    differs = (
        "; differs: " + "; ".join(nearest.differs) if nearest.differs else "; the same model, engine, size and load"
    )
    return (
        f"{engine}, {gpus}, {point.model} {point.precision}, {point.input_tokens:g}/{point.output_tokens:g} at {load}: "
        f"{'; '.join(figures)} ({kind}{point.source}, {point.date or 'no date'}){differs}"
    )
