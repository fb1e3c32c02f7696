"""InstanceType: one machine that can be rented, at a price."""

from __future__ import annotations

from dataclasses import dataclass

from melange.errors import InputError

# No machine costs more; beyond lie slips of the unit, and sums that overflow.
MOST_USD_PER_HOUR = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """One offer: a machine with ``gpus`` GPUs of one type at a price, from a provider, in a region, on a date.

    ``read_on`` is the date the price was read, ISO 8601 and possibly partial (``2026-06``); None is unknown.
    ``key`` is the name it goes by in plans: its own name, the GPU's name for a single-GPU machine, or
    ``GPU@provider`` where several such offers stay in play. An ``owned`` machine is there anyway and costs
    nothing more; its key ends in ``@owned``.
    """

    name: str
    gpu: str
    gpus: int
    price_usd_per_hour: float
    memory_gib: float
    provider: str = ""
    region: str | None = None
    spot: bool = False
    price_set: str = ""
    read_on: str | None = None
    source: str = ""
    key: str = ""
    owned: bool = False

    def __post_init__(self) -> None:
        if self.owned and self.price_usd_per_hour:
            raise InputError(f"instance {self.name}: it is owned at {self.price_usd_per_hour}", fix="give it no price")
        if not self.owned and not 0 < self.price_usd_per_hour <= MOST_USD_PER_HOUR:
            raise InputError(f"instance {self.name}: price is {self.price_usd_per_hour}", fix="give a positive price")
        if self.gpus < 1:
            raise InputError(f"instance {self.name}: it has {self.gpus} GPUs", fix="give at least 1")
        if not self.memory_gib > 0:
            raise InputError(f"instance {self.name}: memory_gib is {self.memory_gib}", fix="give GiB per GPU")
        if not self.key:
            object.__setattr__(self, "key", self.gpu if self.gpus == 1 else self.name)
