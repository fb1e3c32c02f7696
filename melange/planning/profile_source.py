"""From a workload's profile choice to a Profile: shipped sets, measurement files, estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from melange.capacity.basis import Basis
from melange.capacity.profile import Profile, profile_from, read_profile_set
from melange.errors import InputError
from melange.measurements.curve import measured_curves, told_settings
from melange.measurements.file import Header, MeasurementFile, read_measurements
from melange.planning.spec import ProfileChoice, WorkloadSpec

ESTIMATED = "estimated/"


def load_profile(spec: WorkloadSpec) -> Profile:
    """The profile that a workload asks for, at its SLO.

    A table without an SLO that the file assumes to keep its own SLO (``spec.stated_slo``) is refused for another one
    (InputError). Where the serving section names ``nanoflow`` and nobody measured it, its predicted rows are added.
    """
    profile = _profile(spec)
    if "nanoflow" not in spec.serving.engines or any(key.engine == "nanoflow" for key in profile.configs):
        return profile
    from melange.nanoflow.profile import with_nanoflow
    from melange.perfmodel.calibration import read_calibration

    named = spec.profiles.calibration
    return with_nanoflow(
        profile, calibration=None if named is None else read_calibration(named), catalog=spec.catalog()
    )


def _profile(spec: WorkloadSpec) -> Profile:
    choice, slo, stated = spec.profiles, spec.slo, spec.stated_slo
    if choice.set is not None and choice.set.startswith(ESTIMATED):
        from melange.planning.estimated import estimated_profile

        try:
            return estimated_profile(spec)
        except InputError as error:
            raise spec.located(error, "profiles.set" if "profiles.set" in spec.places else "model") from error
    try:
        files = _files(choice)
    except InputError as error:
        raise spec.located(error, "profiles.set") from error
    points = [point for file in files for point in file.points]
    bare = any(point.loop == "capacity" and point.achieved_rps for point in points)
    if choice.fill == "estimated":
        from melange.perfmodel.calibrate import points_of
        from melange.planning.estimated import filled_profile

        settings = told_settings(files)
        return filled_profile(spec, [point for file in files for point in points_of(file)], settings=settings)
    if bare and choice.assume_slo and stated is not None and stated != slo:
        raise InputError(
            f"the profile holds saturation throughputs without an SLO; the workload assumes they keep "
            f"{stated.describe()}, not {slo.describe()}",
            fix="keep the workload's SLO, measure, or use --fill estimated",
        )
    try:
        profile = profile_from(points, slo, assume_slo=choice.assume_slo)
    except InputError as error:
        raise spec.located(error, "profiles") from error
    headers = [header for file in files for header in file.headers]
    return replace(
        profile,
        warnings=(*profile.warnings, *(doubt for file in files for doubt in file.warnings)),
        basis=Basis(curves=measured_curves(files), engine_version=_engine_version(headers), clock="kernels"),
        provenance={
            "set": choice.set,
            "files": list(choice.files),
            "headers": [header.to_dict() for header in headers],
            "reason": choice.reason,
        },
    )


def _engine_version(headers: Sequence[Header]) -> str | None:
    """The engine version that all headers name, None where they differ or name none."""
    versions = {header.engine_version for header in headers}
    return versions.pop() if len(versions) == 1 else None


def _files(choice: ProfileChoice) -> Sequence[MeasurementFile]:
    shipped = read_profile_set(choice.set) if choice.set is not None else ()
    return (*shipped, *(read_measurements(file) for file in choice.files))
