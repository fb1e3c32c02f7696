"""estimated_profile: a whole workload's profile from the model alone, computed when it is asked for.

The shipped sets ``estimated/<model>`` are this function, not files: rates depend on the SLO and on the cached share of
the prompts, and computing a configuration takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from melange.catalog import Catalog, Gpu, Model, load_catalog
from melange.errors import InputError
from melange.measurements import ConfigKey
from melange.perfmodel.calibration import Calibration, read_calibration
from melange.perfmodel.estimate import Rates, config_key, deploy, fitting, rates_with_band
from melange.perfmodel.hardware import Deployment
from melange.profiles import ConfigProfile, Profile
from melange.sizes import PAPER_INPUT_EDGES_TOKENS, PAPER_OUTPUT_EDGES_TOKENS
from melange.slo import Slo
from melange.workload import Workload
from melange.workload_file import WorkloadSpec

FloatArray = NDArray[np.float64]

SET_PREFIX = "estimated/"
USUAL_GPUS = ("L4", "A10G", "L40S", "A100-80GB", "H100", "H200")
USUAL_PRECISIONS = ("fp16", "fp8")
USUAL_TP = (1, 2, 4, 8)
_DEGREES_PER_GPU = 3  # the smallest that fits and the next ones; larger degrees buy latency at a falling return


def estimated_profile(spec: WorkloadSpec, *, catalog: Catalog | None = None) -> Profile:
    """The profile that the model gives for a workload at its SLO, with ``source`` estimated throughout.

    Configurations: the GPUs that the fleet section names, else :data:`USUAL_GPUS`; the precisions and tensor-parallel
    degrees that the serving section names, else fp16 and fp8 and the three smallest degrees that fit. Sizes: the
    paper's edges, extended by doubling to the workload's largest request. A calibration named in the profiles section
    is used. InputError where the model is unknown or fits nowhere.
    """
    catalog = catalog or load_catalog()
    model = _model(spec, catalog)
    calibration = _calibration(spec)
    deployments = _deployments(spec, model, catalog, calibration)
    inputs, outputs = profile_sizes(spec.workload)
    cached = cached_tokens_at(spec.workload, inputs)
    configs = {
        config_key(deployment): estimated_table(
            deployment, spec.workload.slo, inputs, outputs, cached_tokens=cached, calibration=calibration
        )
        for deployment in deployments
    }
    return Profile(
        slo=spec.workload.slo,
        configs=configs,
        warnings=warnings_of(calibration, spec.workload.slo),
        provenance={
            "set": spec.profiles.set,
            "source": "estimated",
            "calibration": calibration.describe(),
            "efficiencies": calibration.efficiencies.to_dict(),
            "engine_settings": None if calibration.settings is None else calibration.settings.to_dict(),
        },
    )


def warnings_of(calibration: Calibration, slo: Slo) -> tuple[str, ...]:
    """What a reader of an estimated rate must know."""
    first = f"rates are estimated by the performance model, {calibration.describe()}, not measured"
    if calibration.label == "throughput-only" and slo.thresholds_s:
        return (
            first,
            "the calibration saw throughput only: how latency limits the rate rests on priors",
        )
    return (first,)


def estimated_table(
    deployment: Deployment,
    slo: Slo,
    input_tokens: Sequence[float],
    output_tokens: Sequence[float],
    *,
    cached_tokens: Sequence[float] | FloatArray | None = None,
    calibration: Calibration | None = None,
) -> ConfigProfile:
    """One configuration's table over the sizes; ``cached_tokens`` has one entry per input size."""
    inputs, outputs = np.asarray(input_tokens, float), np.asarray(output_tokens, float)
    i, o = np.meshgrid(inputs, outputs, indexing="ij")
    cached = np.zeros(len(inputs)) if cached_tokens is None else np.asarray(cached_tokens, float)
    rates = rates_with_band(deployment, slo, i, o, np.broadcast_to(cached[:, None], i.shape), calibration=calibration)
    return table_of(config_key(deploy(deployment, calibration)), inputs, outputs, rates)


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


def _model(spec: WorkloadSpec, catalog: Catalog) -> Model:
    named = (spec.profiles.set or "").removeprefix(SET_PREFIX)
    model = catalog.model(named or spec.workload.model or "")
    if spec.workload.model is not None and catalog.model(spec.workload.model).name != model.name:
        raise InputError(
            f"the workload is for {spec.workload.model}, its profiles are for {model.name}", fix="name the same model"
        )
    return model


def _calibration(spec: WorkloadSpec) -> Calibration:
    return Calibration() if spec.profiles.calibration is None else read_calibration(spec.profiles.calibration)


def _gpus(spec: WorkloadSpec, catalog: Catalog) -> list[Gpu]:
    known = {name.lower(): gpu for gpu in catalog.gpus.values() for name in (gpu.name, *gpu.aliases)}
    named = [known[name.lower()] for name in spec.fleet or () if name.lower() in known]
    return (list(dict.fromkeys(gpu.name for gpu in named)) and named) or [catalog.gpu(name) for name in USUAL_GPUS]


def _deployments(spec: WorkloadSpec, model: Model, catalog: Catalog, calibration: Calibration) -> Iterable[Deployment]:
    reasons: list[str] = []
    found: list[Deployment] = []
    for gpu in _gpus(spec, catalog):
        for precision in spec.serving.precisions or USUAL_PRECISIONS:
            degrees = [tp for tp in spec.serving.tp or USUAL_TP if model.heads % tp == 0]
            candidates = [
                deploy(Deployment(model=model, gpu=gpu, tp=tp, precision=precision), calibration) for tp in degrees
            ]
            fit, why = fitting(candidates)
            found += fit if spec.serving.tp else fit[:_DEGREES_PER_GPU]
            reasons += why
    if not found:
        raise InputError(
            f"{model.name} fits none of the configurations asked for: {reasons[-1]}", fix="allow more GPUs"
        )
    return found
