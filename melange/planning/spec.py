"""WorkloadSpec: what is to be served, on what, and from which profiles and prices, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from melange.catalog.offers import PriceChoice
from melange.errors import InputError
from melange.workload.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeLimit:
    """How many of a GPU type (counted in GPUs) or of an instance type may or must be rented."""

    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileChoice:
    """Where rates come from: a shipped set or measurement files, and what may stand in for missing ones.

    ``assume_slo`` takes bare capacities for the workload's SLO; ``fill`` is ``estimated`` to let the performance
    model supply gaps and the rate under an SLO.
    """

    set: str | None = None
    files: tuple[str, ...] = ()
    assume_slo: bool = False
    reason: str | None = None
    fill: str | None = None
    calibration: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingChoice:
    """Which serving configurations may be used; an empty tuple means every one that the profiles hold."""

    tp: tuple[int, ...] = ()
    precisions: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """A whole workload file as values.

    ``places`` are (line, column) in ``file`` of what can only be judged beside a catalog, prices or a profile, by key
    (``model``, ``prices``, ``fleet.L4``, ...); empty for a spec that comes from no file.
    """

    workload: Workload
    profiles: ProfileChoice
    prices: PriceChoice = field(default_factory=PriceChoice)
    fleet: Mapping[str, TypeLimit] | None = None
    serving: ServingChoice = field(default_factory=ServingChoice)
    headroom: float = 0.0
    file: str | None = None
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.headroom) and self.headroom >= 0):
            raise InputError(f"headroom is {self.headroom}", fix="give a share from 0, for example 0.1 for 10%")
        if self.fleet is not None:
            object.__setattr__(self, "fleet", MappingProxyType(dict(self.fleet)))
        object.__setattr__(self, "places", MappingProxyType(dict(self.places)))

    def located(self, error: InputError, key: str) -> InputError:
        """The error at the key's place in the file, or as it is where there is none or it names a file of its own."""
        if self.file is None or error.file is not None or key not in self.places:
            return error
        return error.located(self.file, *self.places[key])
