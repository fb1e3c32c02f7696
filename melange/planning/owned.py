"""Owned machines: what is there anyway, as offers that cost nothing, and how many there are of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melange.catalog.hardware import Catalog
from melange.catalog.instances import InstanceType
from melange.catalog.offers import offer_names, offers_on_sale, read_prices
from melange.errors import InputError
from melange.planning.spec import WorkloadSpec

OWNED = "owned"
"""What stands in the place of a provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedMachines:
    """So many machines of one kind that are there anyway."""

    machine: InstanceType
    count: int


def owned_machines(spec: WorkloadSpec, catalog: Catalog) -> tuple[OwnedMachines, ...]:
    """The machines that a workload's limits call owned, whether or not the like are on offer.

    Of a GPU type they have ``gpus_per_machine`` of it each; an instance type is looked up in the whole price list.
    InputError for a name that is neither.
    """
    found = []
    for name, limit in spec.limits.resolved(catalog).types.items():
        if not limit.owned:
            continue
        if name in catalog.gpus:
            size = limit.gpus_per_machine or 1
            machine = _machine(f"{size}x{name}" if size > 1 else name, name, size, catalog)
            found.append(OwnedMachines(machine=machine, count=limit.owned // size))
        else:
            offer = _offer(spec, name, catalog)
            if limit.gpus_per_machine not in (None, offer.gpus):
                raise InputError(
                    f"fleet.{name}: the price list says {offer.gpus} GPUs, not {limit.gpus_per_machine}",
                    fix="leave gpus_per_machine out, or name the GPU type",
                )
            machine = _machine(offer.name, offer.gpu, offer.gpus, catalog)
            found.append(OwnedMachines(machine=machine, count=limit.owned))
    return tuple(found)


def _machine(name: str, gpu: str, gpus: int, catalog: Catalog) -> InstanceType:
    return InstanceType(
        name=name, gpu=gpu, gpus=gpus, price_usd_per_hour=0.0, memory_gib=catalog.gpu(gpu).memory_gib, provider=OWNED,
        owned=True, key=f"{gpu if gpus == 1 else name}@{OWNED}",
    )  # fmt: skip


def _offer(spec: WorkloadSpec, name: str, catalog: Catalog) -> InstanceType:
    listed = read_prices(spec.prices.file, catalog) if spec.offers is None else spec.offers
    for offer in listed:
        if name in {offer.key, *offer_names(offer)}:
            return offer
    unknown = InputError(
        f"unknown GPU or instance type {name!r} is owned", fix="name a GPU of 'melange gpus', with gpus_per_machine"
    )
    raise spec.located(unknown, f"fleet.{name}")


def usable_offers(spec: WorkloadSpec, catalog: Catalog) -> tuple[Sequence[InstanceType], list[InstanceType]]:
    """The whole price list, and what of it the price choice admits; owned machines are in both."""
    listed = read_prices(spec.prices.file, catalog) if spec.offers is None else spec.offers
    own = [row.machine for row in owned_machines(spec, catalog)]
    try:
        on_sale = offers_on_sale(listed, spec.prices)
    except InputError as error:
        raise spec.located(error, "prices") from error
    return (*listed, *own), [*on_sale, *own]
