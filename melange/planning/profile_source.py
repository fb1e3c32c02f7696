"""From a workload's profile choice to a Profile: shipped sets, measurement files, estimates."""

from __future__ import annotations

from collections.abc import Sequence

from melange.capacity.profile import Profile, profile_from, read_profile_set
from melange.errors import InputError
from melange.measurements.file import MeasurementFile, read_measurements
from melange.perfmodel.measured import measured_curves, told_settings
from melange.planning.spec import ProfileChoice, WorkloadSpec
from melange.slo import Slo

ESTIMATED = "estimated/"


def load_profile(spec: WorkloadSpec, *, asked_slo: Slo | None = None) -> Profile:
    """The profile that a workload asks for, at its SLO.

    ``asked_slo`` is the workload file's own SLO when the caller replaced it: a table without an SLO that the file
    assumes to keep one SLO is refused for another (InputError). Where the serving section names ``nanoflow`` and
    nobody measured it, its predicted rows are added.
    """
    profile = _profile(spec, asked_slo)
    if "nanoflow" not in spec.serving.engines or any(key.engine == "nanoflow" for key in profile.configs):
        return profile
    from melange.nanoflow.profile import with_nanoflow
    from melange.perfmodel.calibration import read_calibration

    named = spec.profiles.calibration
    return with_nanoflow(profile, calibration=None if named is None else read_calibration(named))


def _profile(spec: WorkloadSpec, asked_slo: Slo | None) -> Profile:
    choice, slo = spec.profiles, spec.workload.slo
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
    if bare and choice.assume_slo and asked_slo is not None and asked_slo != slo:
        raise InputError(
            f"the profile holds saturation throughputs without an SLO; the workload assumes they keep "
            f"{asked_slo.describe()}, not {slo.describe()}",
            fix="keep the workload's SLO, measure, or use --fill estimated",
        )
    try:
        profile = profile_from(points, slo, assume_slo=choice.assume_slo)
    except InputError as error:
        raise spec.located(error, "profiles") from error
    return Profile(
        slo=profile.slo,
        configs=profile.configs,
        warnings=profile.warnings,
        provenance={
            "set": choice.set,
            "files": list(choice.files),
            "headers": [header.to_dict() for file in files for header in file.headers],
            "reason": choice.reason,
            "curves": [curve.to_dict() for curve in measured_curves(files)],
        },
    )


def _files(choice: ProfileChoice) -> Sequence[MeasurementFile]:
    shipped = read_profile_set(choice.set) if choice.set is not None else ()
    return (*shipped, *(read_measurements(file) for file in choice.files))
