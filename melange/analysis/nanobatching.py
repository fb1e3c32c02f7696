"""NanoBatching: what engines that overlap nano-batches would change in a fleet and its cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from melange.capacity.profile import Profile
from melange.plan.nanobatching import NanoBatchingEffect
from melange.plan.plan import Plan
from melange.planning.options import SolveOptions
from melange.planning.planner import plan_fleet
from melange.planning.profile_source import load_profile
from melange.planning.spec import WorkloadSpec

ENGINE = "nanoflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoBatching:
    """The same workload solved without and with ``engine: nanoflow`` configurations. The gain is a prediction.

    ``fleet_change`` maps an instance to (count without, count with) where the two differ.
    """

    without: Plan
    mixed: Plan

    @property
    def saving_usd_per_hour(self) -> float | None:
        """Cost without less cost with; None unless both were solved."""
        if self.without.cost_usd_per_hour is None or self.mixed.cost_usd_per_hour is None:
            return None
        return self.without.cost_usd_per_hour - self.mixed.cost_usd_per_hour

    @property
    def fleet_change(self) -> dict[str, tuple[int, int]]:
        before, after = self.without.instances, self.mixed.instances
        names = dict.fromkeys((*before, *after))
        counts = {name: (before.get(name, 0), after.get(name, 0)) for name in names}
        return {name: pair for name, pair in counts.items() if pair[0] != pair[1]}

    @property
    def plan(self) -> Plan:
        """The mixed plan, with what nano-batching changes in the fleet and its cost as ``nanobatching``."""
        changed = NanoBatchingEffect(
            without_usd_per_hour=self.without.cost_usd_per_hour,
            saving_usd_per_hour=self.saving_usd_per_hour,
            fleet_change=self.fleet_change,
            summary=self.describe(),
        )
        return replace(self.mixed, nanobatching=changed)

    def describe(self) -> str:
        """One line for people: what changes, and that nobody measured it."""
        saving = self.saving_usd_per_hour
        if saving is None:
            return f"nano-batching: not compared, {self.without.status} without it and {self.mixed.status} with it"
        before, after = self.without.cost_usd_per_hour or 0.0, self.mixed.cost_usd_per_hour or 0.0
        change = ", ".join(f"{name} {low} -> {high}" for name, (low, high) in self.fleet_change.items())
        share = 100 * saving / before if before else 0.0
        text = f"nano-batching (predicted, not measured): ${before:.2f}/h -> ${after:.2f}/h, {share:.1f}% less"
        return f"{text}; {change}" if change else f"{text}; the same fleet"


def compare_nanobatching(spec: WorkloadSpec, options: SolveOptions | None = None) -> NanoBatching:
    """Solve a workload twice: with the profile's own engines, and with ``nanoflow`` rows beside them.

    Profiles that hold ``nanoflow`` rows already keep them; the others get predicted ones. Raises what plan_fleet does.
    """
    from melange.nanoflow.profile import with_nanoflow
    from melange.perfmodel.calibration import Calibration, read_calibration

    engines = tuple(engine for engine in spec.serving.engines if engine != ENGINE)
    profile = load_profile(spec.with_engines(engines))
    named = spec.profiles.calibration
    calibration = Calibration() if named is None else read_calibration(named)
    both = (*engines, ENGINE) if engines else ()
    return NanoBatching(
        without=plan_fleet(spec.with_engines(engines), options, profile=_without(profile)),
        mixed=plan_fleet(spec.with_engines(both), options, profile=with_nanoflow(profile, calibration=calibration)),
    )


def _without(profile: Profile) -> Profile:
    return replace(profile, configs={key: table for key, table in profile.configs.items() if key.engine != ENGINE})
