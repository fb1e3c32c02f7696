"""What may be rented for a workload: the offers on sale that its limits allow, and the limits over them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from melange.catalog.hardware import Catalog
from melange.catalog.instances import InstanceType
from melange.catalog.offers import DroppedOffer, keyed, offer_names, without_dominated
from melange.errors import InputError
from melange.planning.limits import Limits, catalog_name
from melange.planning.owned import OwnedMachines, owned_machines, usable_offers
from melange.planning.spec import WorkloadSpec
from melange.serving.config import ConfigKey
from melange.serving.considered import LeftOut
from melange.solver.problem import GroupLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class Rentable:
    """Offers that may be rented and fit what is profiled, owned machines among them.

    ``dropped`` are those that a cheaper one of the same kind keeps out, ``limits`` caps and floors over the offers,
    ``warnings`` name what is left out for want of an offer.
    """

    offers: tuple[InstanceType, ...]
    dropped: tuple[DroppedOffer, ...]
    limits: tuple[GroupLimit, ...]
    warnings: tuple[str, ...]


def rentable(
    spec: WorkloadSpec,
    keys: Sequence[ConfigKey],
    catalog: Catalog,
    left_out: Sequence[LeftOut] = (),
) -> Rentable:
    """What may be rented of a whole price list to run what is profiled; ``left_out`` is what a profile has not tried.

    InputError: a name in a limit that nothing here carries, a floor that must be met on what may not be rented, or
    nothing is left.
    """
    least_tp = {gpu: min(key.tp for key in keys if key.gpu == gpu) for gpu in {key.gpu for key in keys}}
    listed, on_sale = usable_offers(spec, catalog)
    usable = [offer for offer in on_sale if offer.gpu in least_tp and offer.gpus >= least_tp[offer.gpu]]
    priced = "the price file" if spec.prices.file else f"price set {spec.prices.price_set}"
    if not usable:
        profiled = ", ".join(f"{gpu} from TP {tp}" for gpu, tp in sorted(least_tp.items()))
        raise InputError(
            f"{priced} has no offer that fits what is profiled: {profiled}", fix="add one, or measure more"
        )
    for name in spec.limits.names:
        try:
            _check_name(name, usable, listed, set(least_tp), priced, catalog, left_out)
        except InputError as error:
            raise spec.located(error, f"fleet.{name}") from error
    limits = spec.limits.resolved(catalog)
    allowed = [
        offer
        for offer in usable
        if not offer.owned
        and (limits.allowed is None or not _names(offer).isdisjoint(limits.allowed))
        and _names(offer).isdisjoint(limits.exclude)
    ]
    own = [row for row in owned_machines(spec, catalog) if row.machine in usable]
    if not allowed and not own:
        raise InputError("no GPU type is left to rent", fix="check fleet, --only, --exclude and the price set")
    capped = [name for name, limit in limits.types.items() if limit.maximum is not None]
    rented, dropped = without_dominated(allowed, capped=capped, kept=limits.types)
    chosen = keyed((*rented, *(row.machine for row in own)))
    missing = sorted(set(least_tp) - {offer.gpu for offer in usable}) if limits.allowed is None else ()
    return Rentable(
        offers=chosen,
        dropped=dropped,
        limits=(*_group_limits(limits, chosen), *_owned_limits(own, chosen)),
        warnings=(
            *(f"{gpu} is profiled but {priced} has no offer that fits it: left out" for gpu in missing),
            *_idle_warnings(spec, own, catalog),
        ),
    )


def _owned_limits(own: Sequence[OwnedMachines], offers: Sequence[InstanceType]) -> tuple[GroupLimit, ...]:
    """No more of an owned machine than there are."""
    keys = [offer.key for offer in offers if offer.owned]
    return tuple(GroupLimit(name=key, weights={key: 1}, maximum=row.count) for key, row in zip(keys, own, strict=True))


def _idle_warnings(spec: WorkloadSpec, own: Sequence[OwnedMachines], catalog: Catalog) -> list[str]:
    """A sentence for owned machines that nothing profiled fits."""
    return [
        f"{row.count} owned {row.machine.key} stay idle: nothing that is profiled fits {row.machine.gpus} GPUs of it "
        "(gpus_per_machine says how many a machine has)"
        for row in owned_machines(spec, catalog)
        if row not in own
    ]


def _names(offer: InstanceType) -> set[str]:
    return {offer.gpu, *offer_names(offer)}


def _check_name(
    name: str,
    chosen: Sequence[InstanceType],
    listed: Sequence[InstanceType],
    profiled: set[str],
    priced: str,
    catalog: Catalog,
    left_out: Sequence[LeftOut],
) -> None:
    """Raise when a name in a limit is neither a GPU nor an instance that could be rented here."""
    meant = catalog_name(name, catalog)
    if any(meant in _names(offer) for offer in chosen):
        return
    not_tried = {entry.gpu for entry in left_out if entry.reason != "no offer"}
    if any(meant in _names(offer) and offer.gpu in not_tried for offer in listed):
        return
    not_offered = {entry.gpu for entry in left_out if entry.reason == "no offer"}
    known = sorted({n for offer in chosen for n in _names(offer)})
    near = difflib.get_close_matches(meant, known, n=1, cutoff=0.4)
    fix = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    is_gpu = meant in catalog.gpus
    if not is_gpu and not any(name == offer.name for offer in listed):
        raise InputError(f"unknown GPU or instance type {name!r}", fix=fix)
    if is_gpu and meant not in profiled | not_offered:
        raise InputError(
            f"{name} ({meant}) is not in the profile" if name != meant else f"{name} is not in the profile", fix=fix
        )
    raise InputError(f"{priced} has no offer of {name} that can be used here", fix=fix)


def _group_limits(limits: Limits, offers: Sequence[InstanceType]) -> tuple[GroupLimit, ...]:
    """Caps and floors over the offers in play; a floor that must be met on what is not among them raises."""
    result = []
    for name, limit in limits.types.items():
        rented = [offer for offer in offers if not offer.owned]
        weights = {o.key: o.gpus for o in rented if o.gpu == name} or {o.key: 1 for o in rented if name in _names(o)}
        if not weights and limit.minimum and name in limits.required:
            raise InputError(
                f"at least {limit.minimum} of {name} is asked for, but it may not be rented",
                fix="allow it in the file's fleet or --only, or drop the minimum",
            )
        if weights and (limit.maximum is not None or limit.minimum):
            result.append(GroupLimit(name=name, weights=weights, minimum=limit.minimum, maximum=limit.maximum))
    return tuple(result)
