"""Profiles that the performance model gives for a workload, or fills where measurements have gaps.

The shipped sets ``estimated/<model>`` are computed when they are asked for, not files: rates depend on the SLO and on
the cached share of the prompts, and computing a configuration takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from melange.capacity.basis import Basis
from melange.capacity.profile import Profile, profile_from
from melange.catalog.hardware import Catalog, Gpu, Model, load_catalog
from melange.errors import InputError
from melange.measurements.curve import MIN_POINTS
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibrate import calibrate
from melange.perfmodel.calibration import Calibration, read_calibration
from melange.perfmodel.estimate import fitting, under_calibration
from melange.perfmodel.fill import filled_table
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.profile import cached_tokens_at, estimated_table, profile_sizes, warnings_of
from melange.planning.spec import WorkloadSpec
from melange.serving.config import ConfigKey
from melange.serving.engine_settings import EngineSettings

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
    modelled_engines = _modelled_engines(spec, model, catalog, calibration)
    inputs, outputs = profile_sizes(spec.workload)
    cached = cached_tokens_at(spec.workload, inputs)
    configs = {
        modelled.key: estimated_table(
            modelled, spec.workload.slo, inputs, outputs, cached_tokens=cached, calibration=calibration
        )
        for modelled in modelled_engines
    }
    return Profile(
        slo=spec.workload.slo,
        configs=configs,
        warnings=warnings_of(calibration, spec.workload.slo),
        basis=Basis(efficiencies=calibration.efficiencies, engine_settings=calibration.settings),
        provenance={
            "set": spec.profiles.set,
            "source": "estimated",
            "calibration": calibration.describe(),
        },
    )


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
    named = [known[name.lower()] for name in spec.limits.fleet or () if name.lower() in known]
    return (list(dict.fromkeys(gpu.name for gpu in named)) and named) or [catalog.gpu(name) for name in USUAL_GPUS]


def _modelled_engines(
    spec: WorkloadSpec, model: Model, catalog: Catalog, calibration: Calibration
) -> Iterable[ModelledEngine]:
    reasons: list[str] = []
    found: list[ModelledEngine] = []
    for gpu in _gpus(spec, catalog):
        for precision in spec.serving.precisions or USUAL_PRECISIONS:
            degrees = [tp for tp in spec.serving.tp or USUAL_TP if model.heads % tp == 0]
            candidates = [
                under_calibration(ModelledEngine(model=model, gpu=gpu, tp=tp, precision=precision), calibration)
                for tp in degrees
            ]
            fit, why = fitting(candidates)
            found += fit if spec.serving.tp else fit[:_DEGREES_PER_GPU]
            reasons += why
    if not found:
        raise InputError(
            f"{model.name} fits none of the configurations asked for: {reasons[-1]}", fix="allow more GPUs"
        )
    return found


def filled_profile(
    spec: WorkloadSpec,
    points: Sequence[Measurement],
    *,
    catalog: Catalog | None = None,
    settings: Mapping[ConfigKey, EngineSettings] | None = None,
) -> Profile:
    """The measured profile of a workload with the calibrated model in its gaps.

    A measured rate under the SLO stays. A saturation throughput without an SLO becomes the lesser of itself and the
    model's rate under the SLO. A size without a value takes the model's rate. Sizes that the workload needs and the
    measurements lack are regridded through the model. Every value that the model supplied has the source ``estimated``
    and a band. The calibration is the one that the profiles section names, else it is fitted to the points.
    ``settings`` are the measured engines' limits where they are known, else the engine's defaults are taken.
    """
    catalog = catalog or load_catalog()
    slo = spec.workload.slo
    told = settings or {}
    calibration = _fitted_calibration(spec, points, catalog, told)
    measured = profile_from(points, slo, assume_slo=True)
    inputs, outputs = profile_sizes(spec.workload)
    configs = {
        key: filled_table(key, table, points, slo, calibration, catalog, told.get(key), inputs, outputs)
        for key, table in measured.configs.items()
    }
    estimated = sum(int((table.source == "estimated").sum()) for table in configs.values())
    cells = sum(table.source.size for table in configs.values())
    return Profile(
        slo=slo,
        configs=configs,
        warnings=(f"{estimated} of {cells} profile cells are filled by the model", *warnings_of(calibration, slo)),
        basis=Basis(efficiencies=calibration.efficiencies, engine_settings=calibration.settings),
        provenance={
            "set": spec.profiles.set,
            "files": list(spec.profiles.files),
            "fill": "estimated",
            "calibration": calibration.describe(),
        },
    )


def _fitted_calibration(
    spec: WorkloadSpec,
    points: Sequence[Measurement],
    catalog: Catalog,
    settings: Mapping[ConfigKey, EngineSettings],
) -> Calibration:
    if spec.profiles.calibration is not None:
        return read_calibration(spec.profiles.calibration)
    usable = [point for point in points if point.valid and point.achieved_rps > 0 and point.source != "estimated"]
    if len(usable) < MIN_POINTS:
        return Calibration()
    return calibrate(usable, name=spec.profiles.set or "the measurements", catalog=catalog, settings=settings, folds=3)
