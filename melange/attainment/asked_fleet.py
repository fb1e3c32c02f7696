"""Any fleet of a workload, also one that the integer program would call too small: its configs, and its plan.

Every part of the fleet is a choice of its own: what its machines run is the best of what the workload leaves open, less
what the part names. Replicas and shares of the whole are those of most slack (:mod:`melange.solver.slack`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.attainment.fleets import Counts
from melange.attainment.ground import Ground, ground_of
from melange.capacity.profile import Profile
from melange.catalog.instances import InstanceType
from melange.catalog.offers import PriceChoice, keyed
from melange.errors import InputError
from melange.plan.plan import Plan
from melange.planning.choices import Choices, choose
from melange.planning.fleet_notation import FleetPart, machine_of
from melange.planning.limits import Limits
from melange.planning.options import SolveOptions
from melange.planning.owned import usable_offers
from melange.planning.profile_source import ESTIMATED, load_profile
from melange.planning.spec import WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskedFleet:
    """Machines that were asked for: ``counts`` of each of the ground's instances, in their order."""

    ground: Ground
    counts: Counts

    def plan(self) -> Plan:
        """The fleet as a plan, replicas and shares with the most slack; InputError where it can serve nothing.

        Nothing is proven of it and nothing compared: it was asked for.
        """
        plan = self.ground.plan(self.counts)
        if plan is None:
            raise InputError("the fleet can hold no request of the workload", fix="name larger machines, or more")
        return replace(plan, considered=None, bound_usd_per_hour=None, gap=None, dropped_offers=())


def asked_fleet(spec: WorkloadSpec, parts: Sequence[FleetPart], options: SolveOptions | None = None) -> AskedFleet:
    """A workload's whole mix on these machines; what its own limits say of what may be rented is not looked at.

    InputError: a name that nothing carries, a machine without an offer, a choice that does not fit or is not profiled.
    """
    catalog, spec = spec.catalog(), spec.for_windows(None)
    counted: dict[tuple[InstanceType, tuple[object, ...]], FleetPart] = {}
    _, offers = usable_offers(spec, catalog)
    for part in parts:
        kind = (machine_of(part, offers, catalog, priced=priced(spec)), part.choices)
        old = counted.get(kind)
        counted[kind] = part if old is None else replace(part, count=part.count + old.count)
    machines = _told_apart([machine for machine, _ in counted])
    shared = None if (spec.profiles.set or "").startswith(ESTIMATED) else load_profile(spec)
    chosen = [
        _choices(spec, machine, part, options, shared) for machine, part in zip(machines, counted.values(), strict=True)
    ]
    ground = ground_of(_joined(spec, chosen), keep_late=True)
    number = {machine.key: part.count for machine, part in zip(machines, counted.values(), strict=True)}
    return AskedFleet(ground=ground, counts=tuple(number[key] for key in ground.in_time.instances))


def priced(spec: WorkloadSpec) -> str:
    """What messages call the workload's price list."""
    return "the price file" if spec.prices.file else f"price set {spec.prices.price_set}"


def _told_apart(machines: Sequence[InstanceType]) -> list[InstanceType]:
    """The machines with keys that differ, also where parts ask different things of one machine."""
    distinct = list(dict.fromkeys(machines))
    key = dict(zip(distinct, (offer.key for offer in keyed(distinct)), strict=True))
    seen: list[InstanceType] = []
    named = []
    for machine in machines:
        again = seen.count(machine) + 1
        named.append(replace(machine, key=key[machine] + (f"#{again}" if again > 1 else "")))
        seen.append(machine)
    return named


def _choices(
    spec: WorkloadSpec, machine: InstanceType, part: FleetPart, options: SolveOptions | None, shared: Profile | None
) -> Choices:
    """What a part's machines may run."""
    asked = {
        "tp": part.tp,
        "precisions": part.precision,
        "kv_dtypes": part.kv_dtype,
        "batched_tokens": part.batched_tokens,
        "sequences": part.sequences,
    }
    own = replace(spec, limits=Limits(), places={}).with_offers([machine])
    if machine.owned:  # an offer in its stead, at a price that nothing compares, of whatever list
        own = own.with_offers([replace(machine, owned=False, price_usd_per_hour=1.0)])
        own = own.with_prices(PriceChoice(file=machine.provider))
    own = own.with_serving(**{name: (value,) for name, value in asked.items() if value is not None})  # type: ignore[arg-type]
    try:
        found = choose(own, shared or load_profile(own), options)
    except InputError as error:
        fix = "name a larger machine, as in 1xH100:8, or other choices, as in /fp8"
        raise InputError(f"fleet: {part.machines}: {error.problem}", fix=fix) from error
    configs = tuple(replace(config, instance=machine) for config in found.configs)
    return replace(found, offers=(machine,), configs=configs)


def _joined(spec: WorkloadSpec, chosen: Sequence[Choices]) -> Choices:
    """The choices of all parts as those of one fleet, every machine with its own configs."""
    first = chosen[0]
    profile = replace(
        first.profile,
        configs={key: table for choices in chosen for key, table in choices.profile.configs.items()},
        warnings=tuple(dict.fromkeys(text for choices in chosen for text in choices.profile.warnings)),
    )
    return replace(
        first,
        spec=spec,
        profile=profile,
        configs=tuple(config for choices in chosen for config in choices.configs),
        offers=tuple(offer for choices in chosen for offer in choices.offers),
        dropped=(),
        limits=(),
        max_rate_rps=np.concatenate([choices.max_rate_rps for choices in chosen], axis=1),
        unlimited_rps=np.concatenate([choices.unlimited_rps for choices in chosen], axis=1),
        headroom=np.concatenate([choices.headroom for choices in chosen]),
        warnings=tuple(dict.fromkeys(text for choices in chosen for text in choices.warnings)),
    )
