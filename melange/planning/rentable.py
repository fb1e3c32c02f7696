"""What may be rented for a workload: offers on sale, names as people write them, caps and floors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from melange.catalog.hardware import Catalog
from melange.catalog.instances import InstanceType
from melange.catalog.offers import DroppedOffer, offer_names, offers_on_sale, without_dominated
from melange.errors import InputError
from melange.planning.spec import TypeLimit, WorkloadSpec
from melange.serving.config import ConfigKey
from melange.solver.problem import GroupLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may be rented beyond the workload file: caps and floors by GPU or instance name, and a budget."""

    maximum: Mapping[str, int] = field(default_factory=dict)
    minimum: Mapping[str, int] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_cost_usd_per_hour: float | None = None

    def __post_init__(self) -> None:
        for kind in ("maximum", "minimum"):
            for name, count in getattr(self, kind).items():
                if count < 0:
                    raise InputError(f"the {kind} of {name} is {count}", fix="give a whole number from 0")


def type_limits(spec: WorkloadSpec, limits: Limits, catalog: Catalog) -> dict[str, TypeLimit]:
    """Caps and floors by the catalog's names, those of ``limits`` in place of the file's."""
    merged: dict[str, TypeLimit] = {}
    for written, limit in (spec.fleet or {}).items():
        name = _gpu_name(written, catalog) or written
        old = merged.get(name, TypeLimit())
        highs = [high for high in (old.maximum, limit.maximum) if high is not None]
        merged[name] = TypeLimit(minimum=max(old.minimum, limit.minimum), maximum=min(highs, default=None))
    for written, count in limits.maximum.items():
        name = _gpu_name(written, catalog) or written
        merged[name] = TypeLimit(minimum=min(merged.get(name, TypeLimit()).minimum, count), maximum=count)
    for written, count in limits.minimum.items():
        name = _gpu_name(written, catalog) or written
        merged[name] = TypeLimit(minimum=count, maximum=merged.get(name, TypeLimit()).maximum)
    return merged


def _names(offer: InstanceType) -> set[str]:
    return {offer.gpu, *offer_names(offer)}


def offers_in_play(
    spec: WorkloadSpec,
    limits: Limits,
    keys: Sequence[ConfigKey],
    listed: tuple[InstanceType, ...],
    caps: Mapping[str, TypeLimit],
    warnings: list[str],
    catalog: Catalog,
) -> tuple[tuple[InstanceType, ...], tuple[DroppedOffer, ...]]:
    """Offers that may be rented and fit what is profiled, and those dropped for a cheaper one of the same kind.

    ``listed`` is the whole price list, ``caps`` the limits of :func:`type_limits`. What is left out for want of an
    offer goes to ``warnings``. InputError: a name in a limit that nothing here carries, or nothing is left.
    """
    least_tp = {gpu: min(key.tp for key in keys if key.gpu == gpu) for gpu in {key.gpu for key in keys}}
    try:
        on_sale = offers_on_sale(listed, spec.prices)
    except InputError as error:
        raise spec.located(error, "prices") from error
    usable = [offer for offer in on_sale if offer.gpu in least_tp and offer.gpus >= least_tp[offer.gpu]]
    priced = "the price file" if spec.prices.file else f"price set {spec.prices.price_set}"
    if not usable:
        profiled = ", ".join(f"{gpu} from TP {tp}" for gpu, tp in sorted(least_tp.items()))
        raise InputError(
            f"{priced} has no offer that fits what is profiled: {profiled}", fix="add one, or measure more"
        )
    for name in dict.fromkeys((*(spec.fleet or {}), *limits.maximum, *limits.minimum, *limits.only, *limits.exclude)):
        try:
            _check_name(name, usable, listed, set(least_tp), priced, catalog)
        except InputError as error:
            raise spec.located(error, f"fleet.{name}") from error
    if spec.fleet is None and not limits.only:
        missing = sorted(set(least_tp) - {offer.gpu for offer in usable})
        warnings.extend(f"{gpu} is profiled but {priced} has no offer that fits it: left out" for gpu in missing)
    wanted = limits.only or spec.fleet
    allowed = [
        offer
        for offer in usable
        if (wanted is None or _canonical(wanted, catalog) & _names(offer))
        and not _canonical(limits.exclude, catalog) & _names(offer)
    ]
    if not allowed:
        raise InputError("no GPU type is left to rent", fix="check fleet, --only, --exclude and the price set")
    capped = [name for name, limit in caps.items() if limit.maximum is not None]
    return without_dominated(allowed, capped=capped, kept=caps)


def _canonical(names: Iterable[str], catalog: Catalog) -> set[str]:
    return {_gpu_name(name, catalog) or name for name in names}


def _gpu_name(name: str, catalog: Catalog) -> str | None:
    try:
        return catalog.gpu(name).name
    except InputError:
        return None


def _check_name(
    name: str,
    chosen: Sequence[InstanceType],
    listed: Sequence[InstanceType],
    profiled: set[str],
    priced: str,
    catalog: Catalog,
) -> None:
    """Raise when a name in a limit is neither a GPU nor an instance that could be rented here."""
    gpu = _gpu_name(name, catalog)
    if any((gpu or name) in _names(offer) for offer in chosen):
        return
    known = sorted({n for offer in chosen for n in _names(offer)})
    near = difflib.get_close_matches(gpu or name, known, n=1, cutoff=0.4)
    fix = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    if gpu is None and not any(name == offer.name for offer in listed):
        raise InputError(f"unknown GPU or instance type {name!r}", fix=fix)
    if gpu is not None and gpu not in profiled:
        raise InputError(
            f"{name} ({gpu}) is not in the profile" if name != gpu else f"{gpu} is not in the profile", fix=fix
        )
    raise InputError(f"{priced} has no offer of {name} that can be used here", fix=fix)


def group_limits(
    caps: Mapping[str, TypeLimit], offers: Sequence[InstanceType], asked: Limits, catalog: Catalog
) -> tuple[GroupLimit, ...]:
    """Limits over the offers in play; a floor ``asked`` for must be met, the file's own lapse with what is left out."""
    floors = _canonical(asked.minimum, catalog)
    result = []
    for name, limit in caps.items():
        weights = {o.key: o.gpus for o in offers if o.gpu == name} or {o.key: 1 for o in offers if name in _names(o)}
        if not weights and limit.minimum and name in floors:
            raise InputError(
                f"at least {limit.minimum} of {name} is asked for, but it may not be rented",
                fix="allow it in the file's fleet or --only, or drop the minimum",
            )
        if weights and (limit.maximum is not None or limit.minimum):
            result.append(GroupLimit(name=name, weights=weights, minimum=limit.minimum, maximum=limit.maximum))
    return tuple(result)
