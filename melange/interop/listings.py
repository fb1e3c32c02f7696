"""Listings: what providers say that they rent out, in their own words, and the price rows of it that a plan can use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from melange.catalog.hardware import Catalog, Gpu
from melange.catalog.instances import MOST_USD_PER_HOUR
from melange.catalog.price_rows import PriceRow
from melange.errors import InputError

# Usable memory over the memory that a data sheet prints: drivers keep some, and some sheets count in 1e9 bytes. Parts
# of a GPU, which are rented out under its name, fall outside.
_USABLE = (0.88, 1.03)
_MEMORY_IN_NAME = re.compile(r"-[0-9]+GB$")
_SUSPICIOUS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One machine at one price. ``gpu`` and ``gpu_memory_gib`` (of one GPU, None: not said) are the source's words.

    ``special`` says why it cannot be rented by the machine and hour, where it cannot; ``read_on`` is ISO 8601.
    """

    provider: str
    instance: str
    region: str
    gpu: str
    gpu_memory_gib: float | None
    gpu_count: int
    price_usd_per_hour: float
    spot: bool
    read_on: str
    source: str
    special: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Rows for a price file, and how many listings stay out of it.

    ``unknown_gpus``: by the name of a GPU, or part of one, that the catalog does not hold. ``left_out``: by any other
    reason. ``suspicious``: rows at less than half of what every other
    provider, asked for or not, wants for such a GPU.
    """

    rows: tuple[PriceRow, ...]
    unknown_gpus: Mapping[str, int]
    left_out: Mapping[str, int]
    suspicious: tuple[PriceRow, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "unknown_gpus", MappingProxyType(dict(self.unknown_gpus)))
        object.__setattr__(self, "left_out", MappingProxyType(dict(self.left_out)))


def price_list(
    listings: Iterable[Listing], catalog: Catalog, *, gpus: Collection[str] = (), providers: Collection[str] = ()
) -> PriceList:
    """The rows of these GPUs (names or aliases) and providers, all without any; InputError where a name is unknown."""
    wanted = {catalog.gpu(name).name for name in gpus}
    listed = list(listings)
    known = {listing.provider for listing in listed}
    for provider in sorted(set(providers) - known):
        raise InputError(f"no offer of the provider {provider!r}", fix=f"known: {', '.join(sorted(known)) or 'none'}")
    unknown: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    kept: list[tuple[Listing, Gpu]] = []
    find = _GpuFinder(catalog)
    for listing in listed:
        gpu, asked = find(listing), not providers or listing.provider in providers
        if gpu is None:
            unknown[listing.gpu or "without a name"] += asked
        elif reason := _unusable(listing):
            left_out[reason] += asked and (not wanted or gpu.name in wanted)
        else:
            kept.append((listing, gpu))
    rows = [
        (row, odd)
        for row, odd in _judged(_rows(kept))
        if (not wanted or row.gpu in wanted) and (not providers or row.provider in providers)
    ]
    return PriceList(
        rows=tuple(row for row, _ in rows),
        unknown_gpus={name: count for name, count in unknown.most_common() if count},
        left_out={reason: count for reason, count in left_out.items() if count},
        suspicious=tuple(row for row, odd in rows if odd),
    )


def _unusable(listing: Listing) -> str | None:
    if listing.special is not None:
        return listing.special
    return None if 0 < listing.price_usd_per_hour <= MOST_USD_PER_HOUR else "without a usable price"


class _GpuFinder:
    """Finds the catalog's GPU that a listing means: by name, then by memory and by what the instance's name says."""

    def __init__(self, catalog: Catalog) -> None:
        self._named: dict[str, list[Gpu]] = {}
        for gpu in catalog.gpus.values():
            for name in {_plain(n) for n in (gpu.name, _MEMORY_IN_NAME.sub("", gpu.name), *gpu.aliases)}:
                self._named.setdefault(name, []).append(gpu)

    def __call__(self, listing: Listing) -> Gpu | None:
        name = _plain(listing.gpu)
        found = self._named.get(name, [])
        if "pcie" in listing.instance.lower():
            # Sources call the SXM and the PCIe card by one name; only the instance tells them apart.
            found = self._named.get(f"{name}pcie", found)
        if listing.gpu_memory_gib is None:
            return found[0] if len(found) == 1 else None
        shares = [
            (gpu.memory_gib / listing.gpu_memory_gib if listing.gpu_memory_gib > 0 else 0.0, gpu) for gpu in found
        ]
        fitting = [(share, gpu) for share, gpu in shares if _USABLE[0] <= share <= _USABLE[1]]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _rows(kept: Sequence[tuple[Listing, Gpu]]) -> list[PriceRow]:
    """A row for each machine and region, on-demand and spot in one; sorted, so that the same prices make the same file.

    Where a machine is listed more than once in a region (by zone), spot prices are a range and the highest on-demand
    price counts, as the upper end of a range does.
    """
    sizes: dict[tuple[str, str], set[int]] = {}
    together: dict[tuple[str, str, str, str, int, str], list[Listing]] = {}
    for item, gpu in kept:
        sizes.setdefault((item.provider, item.instance), set()).add(item.gpu_count)
        key = (item.provider, item.instance, item.region, gpu.name, item.gpu_count, item.read_on)
        together.setdefault(key, []).append(item)
    rows = []
    for (provider, instance, region, gpu_name, count, read_on), items in together.items():
        on_demand = [item.price_usd_per_hour for item in items if not item.spot]
        spot = [item.price_usd_per_hour for item in items if item.spot]
        # Some providers call every size of machine by its GPU; a plan needs a name for each.
        several = count > 1 and len(sizes[provider, instance]) > 1
        rows.append(
            PriceRow(
                price_set=read_on,
                provider=provider,
                instance=f"{instance} x{count}" if several else instance,
                gpu=gpu_name,
                gpu_count=count,
                on_demand_usd_per_hour=max(on_demand, default=None),
                spot_usd_per_hour_low=min(spot, default=None),
                spot_usd_per_hour_high=max(spot, default=None),
                region=region,
                read_on=read_on,
                source=items[0].source,
            )
        )
    return sorted(rows, key=lambda row: (row.provider, row.gpu, row.gpu_count, row.instance, row.region, row.read_on))


def _judged(rows: Sequence[PriceRow]) -> list[tuple[PriceRow, bool]]:
    """Each row, and whether it is on demand at less than half of what every other provider asks per GPU.

    Catalogs have listed hosts without their GPUs, and a planner takes the cheapest offer, so it would find just those.
    """
    lowest: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.on_demand_usd_per_hour is not None:
            price, by_provider = row.on_demand_usd_per_hour / row.gpu_count, lowest.setdefault(row.gpu, {})
            by_provider[row.provider] = min(price, by_provider.get(row.provider, price))
    judged = []
    for row in rows:
        others = [low for provider, low in lowest.get(row.gpu, {}).items() if provider != row.provider]
        least = _SUSPICIOUS * min(others, default=0.0) * row.gpu_count
        judged.append((row, row.on_demand_usd_per_hour is not None and row.on_demand_usd_per_hour < least))
    return judged
