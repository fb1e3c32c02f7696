"""Tables of rates that the model alone gives for a configuration, at sizes that a workload needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from melange.arrays import FloatArray
from melange.capacity.profile import ConfigProfile
from melange.catalog.models import Model
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.engine_costs import is_fitted
from melange.perfmodel.estimate import Rates, all_max_rates_rps, all_rates_with_band, under_calibration
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.kernels import kernels_of, kin_of
from melange.serving.config import ConfigKey
from melange.slo import Slo
from melange.workload.sizes import PAPER_INPUT_EDGES_TOKENS, PAPER_OUTPUT_EDGES_TOKENS
from melange.workload.workload import Workload

RECENT = "2025"  # engines that were last measured before are told of


def kernel_notes(modelled_engines: Sequence[ModelledEngine]) -> list[str]:
    """Whose kernels GPUs take that were not measured, and of which engines nothing recent was."""
    kin: dict[str, list[str]] = {}
    old: dict[str, str] = {}
    for gpu, costs in {each.gpu.name: (each.gpu, each.costs) for each in modelled_engines}.values():
        if costs is None:
            continue
        if not kernels_of(gpu).measured:
            kin.setdefault(str(kin_of(gpu)), []).append(gpu.name)
        if costs.measured_until < RECENT:
            old[gpu.vendor.upper()] = costs.measured_until
    lent = {
        each.engine.name
        for each in modelled_engines
        if each.costs is not None and not is_fitted(each.gpu, each.engine.name, each.engine_version)
    }
    told = [f"what {engine} adds to its kernels was not fitted: it is the newest vLLM's" for engine in sorted(lent)]
    told += [f"kernels of {', '.join(names)} are those of the {other}, scaled" for other, names in kin.items()]
    return told + [
        f"what engines add on {vendor} GPUs was last measured in {until}: newer ones may be faster"
        for vendor, until in old.items()
    ]


def warnings_of(
    calibration: Calibration,
    slo: Slo,
    model: Model | None = None,
    modelled_engines: Sequence[ModelledEngine] = (),
) -> tuple[str, ...]:
    """What a reader of an estimated rate must know.

    Of the model, what its config.json says and nobody understood; of the engines' GPUs, whose kernels are others'.
    """
    told = [f"rates are estimated by the performance model, {calibration.describe()}, not measured"]
    told += kernel_notes(modelled_engines)
    if calibration.label == "throughput-only" and slo.thresholds_s:
        told.append("the calibration saw throughput only: how latency limits the rate rests on priors")
    if model is not None and model.unread:
        told.append(
            f"{model.name}: its config.json has keys that may change what it costs and are not modelled: "
            f"{', '.join(model.unread)}"
        )
    return tuple(told)


def estimated_table(
    modelled: ModelledEngine,
    slo: Slo,
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    *,
    cached_tokens: Sequence[float] | FloatArray | None = None,
    calibration: Calibration | None = None,
) -> ConfigProfile:
    """One configuration's table over the sizes; ``cached_tokens`` has one entry per input size."""
    return estimated_tables(
        [modelled], slo, input_tokens, output_tokens, cached_tokens=cached_tokens, calibration=calibration
    )[0]


def estimated_tables(
    modelled_engines: Sequence[ModelledEngine],
    slo: Slo,
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    *,
    cached_tokens: Sequence[float] | FloatArray | None = None,
    calibration: Calibration | None = None,
) -> list[ConfigProfile]:
    """:func:`estimated_table` of many configurations, in their order: a hundred take about a second.

    Where the SLO lets requests miss, with their rates without a limit.
    """
    inputs, outputs, cells = _cells(input_tokens, output_tokens, cached_tokens)
    rates = all_rates_with_band(modelled_engines, slo, *cells, calibration=calibration)
    calibrated = [under_calibration(modelled, calibration) for modelled in modelled_engines]
    tables = [table_of(each.key, inputs, outputs, found) for each, found in zip(calibrated, rates, strict=True)]
    if not slo.may_miss:
        return tables
    unlimited = all_max_rates_rps(calibrated, Slo(), *cells, calibration=calibration)
    return [replace(table, unlimited_rps=found) for table, found in zip(tables, unlimited, strict=True)]


def bare_tables(
    modelled_engines: Sequence[ModelledEngine],
    slo: Slo,
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    *,
    cached_tokens: Sequence[float] | FloatArray | None = None,
    calibration: Calibration,
) -> list[ConfigProfile]:
    """The rates of :func:`estimated_tables` without their bands, at a tenth of the time."""
    inputs, outputs, cells = _cells(input_tokens, output_tokens, cached_tokens)
    calibrated = [under_calibration(modelled, calibration) for modelled in modelled_engines]
    rates = all_max_rates_rps(calibrated, slo, *cells, calibration=calibration)
    return [
        table_of(modelled.key, inputs, outputs, Rates(rate_rps=rate, low_rps=rate, high_rps=rate))
        for modelled, rate in zip(calibrated, rates, strict=True)
    ]


def _cells(
    input_tokens: Sequence[float], output_tokens: Sequence[float], cached_tokens: Sequence[float] | FloatArray | None
) -> tuple[FloatArray, FloatArray, tuple[FloatArray, FloatArray, FloatArray]]:
    """The axes, and (inputs, outputs) arrays of the input, output and cached tokens of every cell."""
    inputs, outputs = np.asarray(input_tokens, float), np.asarray(output_tokens, float)
    i, o = np.meshgrid(inputs, outputs, indexing="ij")
    cached = np.zeros(len(inputs)) if cached_tokens is None else np.asarray(cached_tokens, float)
    return inputs, outputs, (i, o, np.broadcast_to(cached[:, None], i.shape))


def table_of(key: ConfigKey, inputs: FloatArray, outputs: FloatArray, rates: Rates) -> ConfigProfile:
    """A ConfigProfile whose every value is estimated."""
    shape = (len(inputs), len(outputs))
    return ConfigProfile(
        key=key,
        input_tokens=inputs,
        output_tokens=outputs,
        max_rate_rps=rates.rate_rps,
        next_failing_rps=np.full(shape, np.nan),
        low_rps=rates.low_rps,
        high_rps=rates.high_rps,
        source=np.full(shape, "estimated"),
    )


def profile_sizes(workload: Workload) -> tuple[list[float], list[float]]:
    """Input and output sizes of an estimated profile: they reach the workload's largest request, edges included."""
    edges_in, edges_out = workload.representative_tokens()
    busy = workload.rate_rps > 0
    largest = float(np.max(edges_in[busy])), float(np.max(edges_out[busy]))
    grid = workload.grid.input_edges_tokens, workload.grid.output_edges_tokens
    paper = PAPER_INPUT_EDGES_TOKENS, PAPER_OUTPUT_EDGES_TOKENS
    sizes = []
    for base, edges, most in zip(paper, grid, largest, strict=True):
        axis = {float(size) for size in base}
        while max(axis) < most:
            axis.add(2 * max(axis))
        if workload.representative == "upper_edge":
            axis.update(float(edge) for edge in edges if edge <= most)
        sizes.append(sorted(size for size in axis if size < 2 * most or size == min(axis)))
    return sizes[0], sizes[1]


def cached_tokens_at(workload: Workload, input_tokens: Sequence[float]) -> FloatArray:
    """Prefix-hit tokens of a prompt of each size, shape (sizes,): the workload's cached share at that length."""
    weight = np.where(workload.rate_rps > 0, workload.rate_rps, 0.0)
    prompt = (weight * np.nan_to_num(workload.mean_input_tokens)).sum(axis=1)
    cached = (weight * np.nan_to_num(workload.mean_cached_tokens)).sum(axis=1)
    busy = prompt > 0
    requests = weight.sum(axis=1)
    share = (cached / np.where(busy, prompt, 1.0))[busy]
    mean_prompt = prompt[busy] / requests[busy]
    share = np.interp(np.log(np.asarray(input_tokens, float)), np.log(mean_prompt), share)
    return np.asarray(share * np.asarray(input_tokens, float))
