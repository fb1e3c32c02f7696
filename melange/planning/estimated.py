"""Profiles that the performance model gives for a workload, or fills where measurements have gaps.

The shipped sets ``estimated/<model>`` are computed when they are asked for, not files: rates depend on the SLO and on
the cached share of the prompts, and computing a configuration takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from melange.capacity.profile import Profile, profile_from
from melange.catalog.hardware import Catalog
from melange.catalog.models import Model
from melange.errors import InputError
from melange.measurements.curve import MIN_POINTS
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibrate import calibrate
from melange.perfmodel.calibration import Calibration, basis_of, read_calibration
from melange.perfmodel.fill import filled_table
from melange.perfmodel.profile import bare_tables, cached_tokens_at, estimated_tables, profile_sizes, warnings_of
from melange.planning.candidates import Machines, candidates, machines_of, refused, useful
from melange.planning.owned import usable_offers
from melange.planning.spec import WorkloadSpec
from melange.serving.config import ConfigKey
from melange.serving.engine_settings import EngineSettings

SET_PREFIX = "estimated/"


def estimated_profile(spec: WorkloadSpec, *, catalog: Catalog | None = None) -> Profile:
    """The profile that the model gives for a workload at its SLO, with ``source`` estimated throughout.

    Configurations: :func:`melange.planning.candidates.candidates` of every machine that the workload's price choice and
    limits leave, of the token budgets those that are :func:`useful`; what is left out is the profile's ``left_out``.
    Sizes: the paper's edges, extended by doubling to the workload's largest request. A calibration named in the
    profiles section is used. InputError where the model is unknown or fits nowhere.
    """
    catalog, slo = spec.catalog(catalog), spec.slo
    model = _model(spec, catalog)
    calibration = _calibration(spec)
    found, left_out = candidates(model, _machines(spec, catalog), spec.serving, calibration, catalog)
    if not found:
        raise refused(model, left_out)
    inputs, outputs = profile_sizes(spec.workload)
    cached = cached_tokens_at(spec.workload, inputs)
    bare = bare_tables(found, slo, inputs, outputs, cached_tokens=cached, calibration=calibration)
    buckets = spec.workload.buckets()
    loads = np.array([(bucket.load_input_tokens, bucket.load_output_tokens) for bucket in buckets], dtype=float).T
    tables = estimated_tables(
        useful(found, bare, *loads), slo, inputs, outputs, cached_tokens=cached, calibration=calibration
    )
    return Profile(
        slo=slo,
        configs={table.key: table for table in tables},
        warnings=warnings_of(calibration, slo, model, found),
        left_out=left_out,
        basis=basis_of(calibration),
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


def _machines(spec: WorkloadSpec, catalog: Catalog) -> Machines:
    return machines_of(usable_offers(spec, catalog)[1], spec.limits, catalog)


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
    catalog = spec.catalog(catalog)
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
        basis=basis_of(calibration),
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
