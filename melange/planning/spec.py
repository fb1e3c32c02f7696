"""WorkloadSpec: what is to be served, on what, and how, as one value that a command changes once, at its edge."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from melange.catalog.described import extended_catalog
from melange.catalog.hardware import Catalog, load_catalog
from melange.catalog.instances import InstanceType
from melange.catalog.offers import PriceChoice
from melange.catalog.precisions import PRECISIONS
from melange.errors import InputError
from melange.files.shown import short_repr
from melange.planning.limits import Limits
from melange.serving.config import KV_DTYPES
from melange.slo import Slo
from melange.workload.load_scale import LoadScale
from melange.workload.workload import Workload

ANY = "any"
LATE_BY_DESIGN = 0.5
"""Of the requests that an SLO lets miss, the part that may be planned to: the other half is left for waiting, bursts
and sizes that come out unlike their bucket's mean, which the program does not see and simulation does."""


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
    """Which serving configurations may be used.

    Left empty: every tensor-parallel degree and engine that there is, the precision of the model's checkpoint, the
    engine's own KV-cache dtype, and the token budgets and numbers of sequences that suit the workload. ``any`` as the
    precision opens the checkpoint's own, fp8 and int8, of which each GPU type takes one; several named ones may be
    mixed.
    """

    tp: tuple[int, ...] = ()
    precisions: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    kv_dtypes: tuple[str, ...] = ()
    batched_tokens: tuple[int, ...] = ()
    sequences: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for what, names, known in (
            ("precision", self.precisions, (*PRECISIONS, ANY)),
            ("KV-cache dtype", self.kv_dtypes, KV_DTYPES),
        ):
            for name in names:
                if name not in known:
                    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
                    hint = f"did you mean {near[0]}? " if near else ""
                    raise InputError(f"unknown {what} {name!r}", fix=f"{hint}known: {', '.join(known)}")
        if ANY in self.precisions and len(self.precisions) > 1:
            raise InputError("precision any stands alone", fix="name the precisions that may be mixed, or any")
        if {"fp16", "bf16"} <= set(self.precisions):
            raise InputError("precisions name both fp16 and bf16, which cost the same", fix="name one of them")
        for what, numbers in (
            ("tensor-parallel degree", self.tp),
            ("token budget", self.batched_tokens),
            ("number of sequences", self.sequences),
        ):
            for number in numbers:
                if number < 1:
                    raise InputError(f"{what} is {number}", fix="give whole numbers from 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """What a fleet is planned for: a workload file as values, with what was asked for in place of them.

    What: ``workload``. On what: ``prices`` selects from a price list, ``offers`` stand in for the list's, ``limits``
    say what of it may be rented. How: ``profiles``, ``serving``, and ``headroom``, by which the rate is scaled up;
    ``headroom_by_config`` replaces it for the configs it names. ``late_by_design`` is the part, from 0 to 1, of the
    requests which the SLO lets miss that may be late by design. ``load_scale`` says what the workload's rate already
    holds over the mean's.

    ``window_share`` is the share of the workload's windows in which the promise must hold, 1 for every one; None plans
    for its whole mix.

    ``model_file`` is the config.json that describes the model, None where the catalog or a profile knows it.
    ``stated_slo`` is the SLO that the file states where another one was asked for since: what the file assumes of its
    profiles holds for that one alone. ``places`` are (line, column) in ``file`` of what can only be judged beside a
    catalog, prices or a profile, by key (``model``, ``prices``, ``fleet.L4``, ...); empty for a spec from no file.
    """

    workload: Workload
    profiles: ProfileChoice
    prices: PriceChoice = field(default_factory=PriceChoice)
    offers: tuple[InstanceType, ...] | None = None
    limits: Limits = field(default_factory=Limits)
    serving: ServingChoice = field(default_factory=ServingChoice)
    load_scale: LoadScale | None = None
    headroom: float = 0.0
    late_by_design: float = LATE_BY_DESIGN
    headroom_by_config: Mapping[str, float] = field(default_factory=dict)
    window_share: float | None = None
    stated_slo: Slo | None = None
    model_file: str | None = None
    file: str | None = None
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for headroom in (self.headroom, *self.headroom_by_config.values()):
            if not (np.isfinite(headroom) and headroom >= 0):
                raise InputError(f"headroom is {headroom}", fix="give a share from 0, for example 0.1 for 10%")
        if self.window_share is not None and not 0 < self.window_share <= 1:
            raise InputError(
                f"the share of windows is {self.window_share}", fix="give a share above 0 up to 1, for example 0.95"
            )
        if not 0 <= self.late_by_design <= 1:
            raise InputError(f"late_by_design is {self.late_by_design}", fix="give a part from 0 to 1, for example 0.5")
        object.__setattr__(self, "headroom_by_config", MappingProxyType(dict(self.headroom_by_config)))
        object.__setattr__(self, "places", MappingProxyType(dict(self.places)))

    @property
    def slo(self) -> Slo:
        """The promise to keep."""
        return self.workload.slo

    def with_rate(self, rate_rps: float) -> WorkloadSpec:
        """The same mix of sizes at another total mean rate in requests/s; a load scale goes on top of it."""
        factor = 1.0 if self.load_scale is None else self.load_scale.factor
        return replace(self, workload=self.workload.at_rate(rate_rps * factor))

    def with_load_scale(self, scale: LoadScale) -> WorkloadSpec:
        """Planned for so many times the mean rate, in place of a scale that it had."""
        mean = self.workload.total_rate_rps / (1.0 if self.load_scale is None else self.load_scale.factor)
        return replace(self, load_scale=scale, workload=self.workload.at_rate(mean * scale.factor))

    def with_slo(self, slo: Slo) -> WorkloadSpec:
        """Another promise; that the file states its own one is kept in mind."""
        return replace(self, workload=replace(self.workload, slo=slo), stated_slo=self.stated_slo or self.slo)

    def with_prices(self, prices: PriceChoice) -> WorkloadSpec:
        """Another choice of prices."""
        places = {key: place for key, place in self.places.items() if key != "prices"}
        return replace(self, prices=prices, places=places)

    def with_offers(self, offers: Iterable[InstanceType]) -> WorkloadSpec:
        """These offers in place of the price list's, the price choice still selecting among them."""
        return replace(self, offers=tuple(offers))

    def with_headroom(self, headroom: float, by_config: Mapping[str, float] | None = None) -> WorkloadSpec:
        """The rate scaled up by this share, or by another one for some configs."""
        return replace(self, headroom=headroom, headroom_by_config=by_config or {})

    def for_windows(self, share: float | None = 1.0) -> WorkloadSpec:
        """Planned for this share of its windows, every one by default; None: for its whole mix."""
        return replace(self, window_share=share)

    def with_late_by_design(self, part: float) -> WorkloadSpec:
        """Another part of the requests that may miss to be late by design; 0 plans every request in time."""
        return replace(self, late_by_design=part)

    def with_fill(self, fill: str | None) -> WorkloadSpec:
        """What may stand in for missing rates: ``estimated`` or nothing."""
        return replace(self, profiles=replace(self.profiles, fill=fill))

    def with_engines(self, engines: Iterable[str]) -> WorkloadSpec:
        """These serving engines alone; none of them: every one that the profiles hold."""
        return replace(self, serving=replace(self.serving, engines=tuple(engines)))

    def with_serving(
        self,
        *,
        precisions: Iterable[str] | None = None,
        tp: Iterable[int] | None = None,
        kv_dtypes: Iterable[str] | None = None,
        batched_tokens: Iterable[int] | None = None,
        sequences: Iterable[int] | None = None,
    ) -> WorkloadSpec:
        """Another choice of how to serve; None keeps what there is, an empty one opens what is usual."""
        asked = {
            "precisions": precisions,
            "tp": tp,
            "kv_dtypes": kv_dtypes,
            "batched_tokens": batched_tokens,
            "sequences": sequences,
        }
        changed: dict[str, Any] = {name: tuple(values) for name, values in asked.items() if values is not None}
        return replace(self, serving=replace(self.serving, **changed))

    def limited(
        self,
        *,
        maximum: Mapping[str, int] | None = None,
        minimum: Mapping[str, int] | None = None,
        only: Iterable[str] = (),
        exclude: Iterable[str] = (),
        max_cost_usd_per_hour: float | None = None,
        owned: Mapping[str, tuple[int, int | None]] | None = None,
    ) -> WorkloadSpec:
        """Other limits in place of the file's, as :meth:`Limits.narrowed` merges them."""
        limits = self.limits.narrowed(
            maximum=maximum,
            minimum=minimum,
            only=only,
            exclude=exclude,
            max_cost_usd_per_hour=max_cost_usd_per_hour,
            owned=owned,
        )
        return replace(self, limits=limits)

    def catalog(self, known: Catalog | None = None) -> Catalog:
        """The catalog, the shipped one by default, with the model that the workload describes itself."""
        known = known or load_catalog()
        return known if self.model_file is None else extended_catalog(known, model_configs=[self.model_file])

    def located(self, error: InputError, key: str) -> InputError:
        """The error at the key's place in the file, or as it is where there is none or it names a file of its own."""
        if self.file is None or error.file is not None or key not in self.places:
            return error
        return error.located(self.file, *self.places[key])

    def __repr__(self) -> str:
        rates = self.profiles.set or ", ".join(self.profiles.files) or "no profiles"
        prices = self.prices.file or self.prices.price_set or "default prices"
        w = self.workload
        return short_repr(
            "WorkloadSpec",
            f"{w.name}: {w.total_rate_rps:.4g} req/s, {w.slo.describe()}; rates {rates}; prices {prices}",
        )
