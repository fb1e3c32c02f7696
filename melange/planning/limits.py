"""Limits: what may be rented of a price list, how much of each type, and for how much in all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from melange.catalog.hardware import Catalog, load_catalog
from melange.errors import InputError

MOST = 10_000_000
"""Machines or GPUs of a type, far beyond what anybody has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeLimit:
    """How many of a GPU type (counted in GPUs) or of an instance type may or must be rented, and how many are owned.

    Owned machines cost nothing more and come on top of what is rented. Those named by a GPU type have
    ``gpus_per_machine`` of it each (None: 1).
    """

    minimum: int = 0
    maximum: int | None = None
    owned: int = 0
    gpus_per_machine: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may and must be rented. Names are those of GPUs or instances, however they are written.

    ``fleet`` lists all that may be rented, None whatever is on sale; ``only`` stands in its place where it is given,
    ``exclude`` is left out in any case. ``types`` are caps and floors. A floor whose name is in ``required`` must be
    met; the others lapse where their type is left out. ``max_cost_usd_per_hour`` is the budget. None of these
    limits what is owned.
    """

    fleet: tuple[str, ...] | None = None
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    types: Mapping[str, TypeLimit] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    max_cost_usd_per_hour: float | None = None

    def __post_init__(self) -> None:
        for kind in ("maximum", "minimum", "owned"):
            for name, limit in self.types.items():
                count = getattr(limit, kind)
                if count is not None and not 0 <= count <= MOST:
                    what = "number owned" if kind == "owned" else kind
                    raise InputError(
                        f"the {what} of {name} is {count:g}", fix=f"give a whole number from 0 to {MOST:,}"
                    )
        for name, limit in self.types.items():
            size = limit.gpus_per_machine
            if size is not None and (size < 1 or limit.owned % size):
                raise InputError(
                    f"{limit.owned} {name} are owned in machines of {size}", fix="give a multiple of the machine's GPUs"
                )
        object.__setattr__(self, "types", MappingProxyType(dict(self.types)))

    @property
    def allowed(self) -> tuple[str, ...] | None:
        """The names that may be rented, None for whatever is on sale."""
        return self.only or self.fleet

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, in the order to judge them in."""
        return tuple(dict.fromkeys((*(self.fleet or ()), *self.types, *self.only, *self.exclude)))

    def resolved(self, catalog: Catalog) -> Limits:
        """The same limits by the catalog's names, each name of the fleet among the types; of several for one type the
        tightest holds."""
        types: dict[str, TypeLimit] = {}
        for written in (*(self.fleet or ()), *self.types):
            name, limit = catalog_name(written, catalog), self.types.get(written, TypeLimit())
            old = types.get(name, TypeLimit())
            highs = [high for high in (old.maximum, limit.maximum) if high is not None]
            types[name] = TypeLimit(
                minimum=max(old.minimum, limit.minimum),
                maximum=min(highs, default=None),
                owned=max(old.owned, limit.owned),
                gpus_per_machine=limit.gpus_per_machine or old.gpus_per_machine,
            )
        return replace(
            self,
            fleet=None if self.fleet is None else _catalog_names(self.fleet, catalog),
            only=_catalog_names(self.only, catalog),
            exclude=_catalog_names(self.exclude, catalog),
            types=types,
            required=_catalog_names(self.required, catalog),
        )

    def narrowed(
        self,
        *,
        maximum: Mapping[str, int] | None = None,
        minimum: Mapping[str, int] | None = None,
        only: Iterable[str] = (),
        exclude: Iterable[str] = (),
        max_cost_usd_per_hour: float | None = None,
        owned: Mapping[str, tuple[int, int | None]] | None = None,
    ) -> Limits:
        """These limits with others in place of what they say; a new maximum lowers a minimum above it.

        ``owned`` is how many are owned and the GPUs of each machine, None as before.
        """
        catalog, types = load_catalog(), self.types
        for name, count in (maximum or {}).items():
            old = _limit_on(types, name, catalog)
            types = _with(types, name, replace(old, minimum=min(old.minimum, count), maximum=count), catalog)
        for name, count in (minimum or {}).items():
            old = _limit_on(types, name, catalog)
            types = _with(types, name, replace(old, minimum=count), catalog)
        for name, (count, size) in (owned or {}).items():
            old = _limit_on(types, name, catalog)
            size = size or (old.gpus_per_machine if old.owned else None)
            types = _with(types, name, replace(old, owned=count, gpus_per_machine=size), catalog)
        budget = self.max_cost_usd_per_hour if max_cost_usd_per_hour is None else max_cost_usd_per_hour
        return replace(
            self,
            types=types,
            required=(*self.required, *(minimum or ())),
            only=tuple(only) or self.only,
            exclude=(*self.exclude, *exclude),
            max_cost_usd_per_hour=budget,
        )


def catalog_name(name: str, catalog: Catalog) -> str:
    """The catalog's name of a GPU, however it is written; a name that is no GPU's as it is."""
    try:
        return catalog.gpu(name).name
    except InputError:
        return name


def _catalog_names(names: Iterable[str], catalog: Catalog) -> tuple[str, ...]:
    return tuple(dict.fromkeys(catalog_name(name, catalog) for name in names))


def _limit_on(types: Mapping[str, TypeLimit], name: str, catalog: Catalog) -> TypeLimit:
    return Limits(types=types).resolved(catalog).types.get(catalog_name(name, catalog), TypeLimit())


def _with(types: Mapping[str, TypeLimit], name: str, limit: TypeLimit, catalog: Catalog) -> dict[str, TypeLimit]:
    """The limits with one on ``name`` in place of those on the same type, however they are written."""
    same = [other for other in types if catalog_name(other, catalog) == catalog_name(name, catalog)]
    kept = {other: old for other, old in types.items() if other not in same[1:]}
    return kept | {(same or [name])[0]: limit}
