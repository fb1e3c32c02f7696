"""A workload from vLLM's Prometheus histograms of prompt and generation tokens.

The two histograms are marginals: which prompt went with which answer is lost. Sizes are taken as independent, and as
evenly spread within a histogram's bin. Both are said in the report's warnings.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.files.metrics import MetricSample, samples_of
from melange.slo import Slo
from melange.traces.report import REASONS, TraceReport, dropped_warning
from melange.traces.source import container_of, open_source
from melange.workload.sizes import SizeGrid
from melange.workload.workload import Representative, Workload

PROMPT, GENERATION = "vllm:request_prompt_tokens", "vllm:request_generation_tokens"


@dataclass(slots=True)
class _Histogram:
    """One of the two histograms, summed over a model's engines. ``counts``: upper bin edge -> requests up to it."""

    counts: dict[float, float] = field(default_factory=dict)
    total_tokens: float = 0.0

    def marginal(self, edges: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        """Share of the requests and mean tokens per bucket of ``edges``, each of shape (buckets,); NaN where none."""
        finite = sorted(edge for edge in self.counts if math.isfinite(edge))
        lows, highs = np.array([0.0, *finite[:-1]]), np.array(finite)
        requests = np.diff([0.0, *(self.counts[edge] for edge in finite)])
        bounds = np.array([0, *edges], dtype=float)
        # Whole numbers in (low, high], cut at each bound: how many, and their sum.
        cut = np.clip(np.floor(bounds)[:, None], lows, highs)
        width = highs - lows
        below = (requests / width * (cut - lows)).sum(axis=1)
        tokens = (requests / width * (cut - lows) * (cut + lows + 1) / 2).sum(axis=1)
        share, summed = np.diff(below) / self.counts[math.inf], np.diff(tokens) / self.counts[math.inf]
        return share, np.divide(summed, share, out=np.full(len(edges), np.nan), where=share > 0)

    @property
    def mean_tokens(self) -> float:
        return self.total_tokens / self.counts[math.inf]


def is_metrics(path: str | os.PathLike[str]) -> bool:
    """Whether the file is Prometheus' text format; a missing, empty or binary file raises InputError."""
    with open_source(path) as source:
        return container_of(source) == "prometheus"


def workload_from_metrics(
    path: str | os.PathLike[str],
    *,
    grid: SizeGrid,
    slo: Slo,
    rate_rps: float | None,
    name: str | None = None,
    model: str | None = None,
    representative: Representative = "mean",
) -> tuple[Workload, TraceReport]:
    """A workload from one scrape of vLLM's ``/metrics``, its sizes independent and evenly spread within a bin.

    ``rate_rps`` is the rate of the requests inside the grid. Requests above the last finite bin cannot be placed and
    count as above the grid. InputError: no rate, no such histograms or empty ones, several models, or a bad line.
    """
    if rate_rps is None or not (math.isfinite(rate_rps) and rate_rps > 0):
        problem = "Prometheus histograms tell no rate" if rate_rps is None else f"rate is {rate_rps}"
        raise InputError(problem, file=path, fix="give a positive number of requests per second: --rate R")
    prompt, generation = _read_histograms(path)
    input_share, input_mean = prompt.marginal(grid.input_edges_tokens)
    output_share, output_mean = generation.marginal(grid.output_edges_tokens)
    share = np.outer(input_share, output_share)
    if not share.any():
        raise InputError("no request lies inside the grid", file=path, fix="check the grid's edges")
    inputs, outputs = (np.where(share > 0, mean, np.nan) for mean in (input_mean[:, None], output_mean[None, :]))
    report = _report(prompt, generation, (input_share, output_share), (input_mean, output_mean), rate_rps)
    workload = Workload(
        name=name or Path(path).name.split(".")[0],
        grid=grid,
        rate_rps=share / share.sum() * rate_rps,
        mean_input_tokens=inputs,
        mean_output_tokens=outputs,
        mean_product_tokens2=inputs * outputs,
        mean_cached_tokens=np.where(share > 0, 0.0, np.nan),
        slo=slo,
        model=model,
        representative=representative,
        sample_requests=report.kept,
        provenance={"metrics": Path(path).name, **report.to_dict(), "rate": "given"},
    )
    return workload, report


def _report(
    prompt: _Histogram,
    generation: _Histogram,
    shares: tuple[FloatArray, FloatArray],
    means: tuple[FloatArray, FloatArray],
    rate_rps: float,
) -> TraceReport:
    rows = round(prompt.counts[math.inf])
    fitting = round(rows * float(shares[0].sum()))
    kept = round(fitting * float(shares[1].sum()))
    dropped = {**dict.fromkeys(REASONS, 0), "input_above_grid": rows - fitting, "output_above_grid": fitting - kept}
    inputs, outputs = (float(np.nansum(s * m) / s.sum()) for s, m in zip(shares, means, strict=True))
    told = (
        f"mean sizes are told as {prompt.mean_tokens:,.1f} input and {generation.mean_tokens:,.1f} output tokens; "
        f"bins evenly filled and cut to the grid give {inputs:,.1f} and {outputs:,.1f}"
    )
    lost = "Prometheus tells input and output sizes apart: their joint distribution is lost and taken as independent"
    warning = dropped_warning(kept, dropped)
    return TraceReport(
        rows=rows,
        kept=kept,
        dropped=dropped,
        rate_rps=rate_rps,
        mean_input_tokens=inputs,
        mean_output_tokens=outputs,
        warnings=(lost, told, *([] if warning is None else [warning])),
    )


def _read_histograms(path: str | os.PathLike[str]) -> tuple[_Histogram, _Histogram]:
    found = {PROMPT: _Histogram(), GENERATION: _Histogram()}
    models: set[str] = set()
    try:
        for sample in samples_of(_text(path), PROMPT, GENERATION):
            metric, _, part = sample.name.rpartition("_")
            if metric in found and part in ("bucket", "sum", "count"):
                models.add(sample.labels.get("model_name", ""))
                _add(found[metric], part, sample)
    except InputError as error:
        raise error.located(path) from error
    if len(models) > 1:
        raise InputError(
            f"the metrics are of {len(models)} models: {', '.join(sorted(models))}", file=path, fix="keep one's lines"
        )
    for name, histogram in found.items():
        _check(histogram, name, path)
    return found[PROMPT], found[GENERATION]


def _check(histogram: _Histogram, name: str, path: str | os.PathLike[str]) -> None:
    edges = sorted(histogram.counts)
    if len(edges) < 2 or edges[-1] != math.inf or edges[0] <= 0:
        raise InputError(
            f"no histogram {name} with positive finite bins and +Inf", file=path, fix="scrape vLLM's /metrics whole"
        )
    if any(histogram.counts[low] > histogram.counts[high] for low, high in pairwise(edges)):
        raise InputError(f"{name}: counts fall from bin to bin", file=path, fix="bins are cumulative; scrape again")
    if histogram.counts[math.inf] <= 0:
        raise InputError(f"{name} has counted no requests", file=path, fix="scrape after some traffic")


def _add(histogram: _Histogram, part: str, sample: MetricSample) -> None:
    if math.isnan(sample.value) or sample.value < 0:
        raise _no_count(str(sample.value), sample.line)
    if part == "sum":
        histogram.total_tokens += sample.value
    elif part == "bucket":
        edge = _edge(sample)
        histogram.counts[edge] = histogram.counts.get(edge, 0.0) + sample.value


def _edge(sample: MetricSample) -> float:
    text = sample.labels.get("le", "none")
    try:
        edge = float(text)
    except ValueError:
        edge = math.nan
    if math.isnan(edge) or edge < 0:
        raise _no_count(text, sample.line)
    return edge


def _no_count(text: str, line: int) -> InputError:
    return InputError(f"{text!r} is not a count", line=line, fix="scrape the metrics again")


def _text(path: str | os.PathLike[str]) -> str:
    with open_source(path) as source:
        data = b"".join(iter(lambda: source.read(1 << 20), b""))
    return data.decode("utf-8", "replace")
