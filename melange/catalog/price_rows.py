"""PriceRow: one row of a price file as a value, and the file that rows make."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields

from melange.catalog.instances import MOST_USD_PER_HOUR
from melange.catalog.offers import MOST_GPUS
from melange.errors import InputError

_PRICES = ("on_demand_usd_per_hour", "spot_usd_per_hour_low", "spot_usd_per_hour_high")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """A machine's prices at one provider, in one region, on one day; None is not on sale.

    The fields are the columns of a price file, as :func:`melange.catalog.offers.read_prices` reads them.
    """

    price_set: str
    provider: str
    instance: str
    gpu: str
    gpu_count: int
    on_demand_usd_per_hour: float | None
    spot_usd_per_hour_low: float | None
    spot_usd_per_hour_high: float | None
    region: str
    read_on: str
    source: str

    def __post_init__(self) -> None:
        if not 1 <= self.gpu_count <= MOST_GPUS:
            raise InputError(f"instance {self.instance}: it has {self.gpu_count} GPUs", fix="give at least 1")
        prices = {name: getattr(self, name) for name in _PRICES if getattr(self, name) is not None}
        if not prices:
            raise InputError(f"instance {self.instance}: it has no price", fix="give one")
        for name, price in prices.items():
            if not 0 < price <= MOST_USD_PER_HOUR:
                raise InputError(f"instance {self.instance}: {name} is {price}", fix="give a positive price")


def price_file(rows: Iterable[PriceRow]) -> str:
    """The text of a price file with these rows, in their order."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [column.name for column in fields(PriceRow)]
    writer.writerow(columns)
    writer.writerows([_cell(getattr(row, column)) for column in columns] for row in rows)
    return out.getvalue()


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)
