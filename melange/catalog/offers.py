"""Offers: the price list, the choice that a workload makes among it, and which offers dominate which."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from melange.catalog.hardware import Catalog, load_catalog
from melange.catalog.instances import InstanceType
from melange.errors import InputError
from melange.files.shipped import data_path
from melange.files.text import read_text

DEFAULT_PRICE_SET = "2026-11"
REQUIRED_COLUMNS = ("instance", "gpu", "on_demand_usd_per_hour")
KNOWN_COLUMNS = (
    "price_set", "provider", "instance", "gpu", "gpu_count", "on_demand_usd_per_hour",
    "spot_usd_per_hour_low", "spot_usd_per_hour_high", "region", "read_on", "source",
)  # fmt: skip


MOST_GPUS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChoice:
    """Which offers a workload may rent: a price set or a file, optionally some providers and regions, and spot."""

    price_set: str = DEFAULT_PRICE_SET
    file: str | None = None
    providers: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedOffer:
    """An offer left out, and why."""

    offer: InstanceType
    reason: str


def read_prices(file: str | os.PathLike[str] | None = None, catalog: Catalog | None = None) -> tuple[InstanceType, ...]:
    """Every offer of a price file (the shipped one by default), on-demand and spot as separate offers.

    A spot range counts at its upper end. Bad rows raise InputError with file and line.
    """
    path = data_path("profiles/catalog/prices.csv") if file is None else file
    reader = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    catalog = catalog or load_catalog()
    offers: list[InstanceType] = []
    try:
        header = [name.strip() for name in (reader.fieldnames or [])]
        _check_columns(header, path)
        reader.fieldnames = header
        for row in reader:
            offers += _offers_of(row, path, reader.line_num, catalog)
    except csv.Error as error:
        raise InputError(f"not a CSV file: {error}", file=path, line=reader.line_num) from error
    if not offers:
        raise InputError("it holds no prices", file=path, fix="give at least one row")
    return tuple(offers)


def _check_columns(header: Sequence[str], path: str | os.PathLike[str]) -> None:
    for name in REQUIRED_COLUMNS:
        if name not in header:
            raise InputError(
                f"the column {name} is missing", file=path, line=1, fix=f"known: {', '.join(KNOWN_COLUMNS)}"
            )
    for name in header:
        if header.count(name) > 1:
            raise InputError(f"the column {name} occurs twice", file=path, line=1, fix="keep one of them")
        if name not in KNOWN_COLUMNS:
            raise InputError(f"unknown column {name!r}", file=path, line=1, fix=f"known: {', '.join(KNOWN_COLUMNS)}")


def _offers_of(
    row: Mapping[str, str | None], path: str | os.PathLike[str], line: int, catalog: Catalog
) -> list[InstanceType]:
    def number(column: str, default: float | None = None) -> float | None:
        text = (row.get(column) or "").strip()
        if not text:
            return default
        try:
            return float(text)
        except ValueError:
            at = list(row).index(column) + 1
            raise InputError(
                f"{column} is {text!r}", file=path, line=line, column=at, fix="give a number of USD per hour"
            ) from None

    def text(column: str) -> str:
        return (row.get(column) or "").strip()

    if None in row or None in row.values():
        raise InputError("the row has not as many columns as the header", file=path, line=line, fix="check the commas")
    try:
        gpu = catalog.gpu(text("gpu"))
        count = number("gpu_count", 1.0) or 0.0
        if not (count.is_integer() and count <= MOST_GPUS):
            raise InputError(f"gpu_count is {count}", fix="give a whole number")
        if not text("instance"):
            raise InputError("the instance has no name", fix="give one")
        prices = {False: number("on_demand_usd_per_hour"), True: number("spot_usd_per_hour_high")}
        prices[True] = prices[True] if prices[True] is not None else number("spot_usd_per_hour_low")
        return [
            InstanceType(
                name=text("instance"),
                gpu=gpu.name,
                gpus=int(count),
                price_usd_per_hour=price,
                memory_gib=gpu.memory_gib,
                provider=text("provider"),
                region=text("region") or None,
                spot=spot,
                price_set=text("price_set"),
                read_on=text("read_on") or None,
                source=text("source"),
            )
            for spot, price in prices.items()
            if price is not None
        ]
    except InputError as error:
        raise error.located(path, line) from error


def without_dominated(
    offers: Iterable[InstanceType], *, capped: Iterable[str] = (), kept: Iterable[str] = ()
) -> tuple[tuple[InstanceType, ...], tuple[DroppedOffer, ...]]:
    """Offers keyed for a plan, and those dropped because another dominates them.

    An offer is dominated by a cheaper one of the same GPU and size, unless the cheaper one is capped by a name of its
    own (``capped``) or a limit asks for the offer itself (``kept``); both hold names as :func:`offer_names` gives them.
    """
    capped, kept = set(capped), set(kept)
    groups: dict[tuple[str, int], list[InstanceType]] = {}
    for offer in offers:
        groups.setdefault((offer.gpu, offer.gpus), []).append(offer)
    stay: list[InstanceType] = []
    dropped: list[DroppedOffer] = []
    for group in groups.values():
        best: InstanceType | None = None
        for offer in sorted(group, key=lambda o: (o.price_usd_per_hour, o.spot, o.provider, o.name)):
            names = offer_names(offer)
            if best is None or names & (kept | capped):
                stay.append(offer)
            else:
                reason = f"{_label(best)} costs ${best.price_usd_per_hour:g}/h, this ${offer.price_usd_per_hour:g}/h"
                dropped.append(DroppedOffer(offer=offer, reason=reason))
            if best is None and not names & capped:
                best = offer
    return keyed(stay), tuple(dropped)


def offers_on_sale(offers: Iterable[InstanceType], choice: PriceChoice) -> list[InstanceType]:
    """Offers that the choice admits; raises InputError for a price set, provider or region that names nothing."""
    listed = list(offers)
    if choice.file is None:
        sets = sorted({o.price_set for o in listed})
        if choice.price_set not in sets:
            raise InputError(f"unknown price set {choice.price_set!r}", fix=f"shipped sets: {', '.join(sets)}")
        listed = [o for o in listed if o.price_set == choice.price_set]
    for what, names, of in (("provider", choice.providers, "provider"), ("region", choice.regions, "region")):
        known = sorted({str(getattr(o, of)) for o in listed if getattr(o, of)})
        for name in names:
            if name not in known:
                raise InputError(f"no offer of the {what} {name!r}", fix=f"known: {', '.join(known) or 'none'}")
    if choice.providers:
        listed = [o for o in listed if o.provider in choice.providers]
    if choice.regions:
        listed = [o for o in listed if o.region in choice.regions]
    return [o for o in listed if choice.spot or not o.spot]


def _label(offer: InstanceType) -> str:
    return f"{offer.name}{'@' + offer.provider if offer.provider else ''}{' (spot)' if offer.spot else ''}"


# From the shortest name of an offer to the one that says everything.
_STYLES: tuple[Callable[[InstanceType], str], ...] = (
    lambda o: (o.gpu if o.gpus == 1 else o.name) + ("@owned" if o.owned else ""),
    lambda o: f"{o.gpu if o.gpus == 1 else o.name}@{o.provider}",
    lambda o: f"{o.name}@{o.provider}",
    lambda o: f"{o.name}@{o.provider}/{o.region}",
    lambda o: f"{o.name}@{o.provider}/{o.region}{'+spot' if o.spot else '+on-demand'}",
)


def offer_names(offer: InstanceType) -> set[str]:
    """Every name that a limit may call an offer by, that of its GPU type left out: ``g6.xlarge``, ``L4@aws``, ..."""
    return {offer.name, *(style(offer) for style in _STYLES)} - {offer.gpu}


def keyed(offers: Sequence[InstanceType]) -> tuple[InstanceType, ...]:
    """Give each offer the shortest name that tells it from the others in play."""
    result = []
    for offer in offers:
        for style in _STYLES:
            key = style(offer)
            if sum(style(other) == key for other in offers) == 1:
                break
        result.append(replace(offer, key=key))
    if len({offer.key for offer in result}) < len(result):
        raise InputError("two offers have the same instance, provider and region", fix="remove one of the rows")
    return tuple(result)


def price_age_days(read_on: str | None, today: date) -> int | None:
    """Days since a price was read; a partial date counts from its first day, None where it is unknown."""
    parts = (read_on or "").split("-")
    try:
        numbers = [int(part) for part in parts]
        return (today - date(numbers[0], *[*numbers[1:], 1, 1][:2])).days
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
