"""Problem: the integer program's numbers, nothing about how they came to be or how they are solved."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.errors import InputError
from melange.files.shown import short_repr

# Far beyond any fleet, and still well within what floating-point arithmetic tells apart.
MOST_REPLICAS = 1e9


class Status(enum.StrEnum):
    """How solving ended.

    ``optimal`` is proven to the gap asked, ``feasible`` a plan with a larger gap, ``infeasible`` proven to have none,
    ``unknown`` when time ran out without a plan.
    """

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimit:
    """A cap or floor over several instance types: minimum <= sum of weight x instances <= maximum.

    ``weights`` maps an instance key to its weight (its GPU count for a limit counted in GPUs, 1 for instances).
    """

    name: str
    weights: Mapping[str, int]
    minimum: int = 0
    maximum: int | None = None

    def __post_init__(self) -> None:
        if self.minimum < 0 or (self.maximum is not None and self.maximum < 0):
            raise InputError(f"limit {self.name}: {self.minimum}..{self.maximum}", fix="limits are >= 0")
        if self.maximum is not None and self.maximum < self.minimum:
            raise InputError(
                f"limit {self.name}: at least {self.minimum} and at most {self.maximum}", fix="raise the maximum"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lateness:
    """Requests that may be served without the latency limit: at what load, and how many. They are served all the same.

    ``load``: (n_buckets, n_configs), the replicas that serving *all* of a bucket so takes; ``inf`` where a config
    cannot, or where it is not known. ``weight``: (n_buckets, n_configs), the share of all requests, of its period where
    there are several, that then misses the limit. ``at_most`` is the share of them, 0 to 1, that may, in each period.
    """

    load: FloatArray
    weight: FloatArray
    at_most: float

    def __post_init__(self) -> None:
        for name in ("load", "weight"):
            object.__setattr__(self, name, _read_only(getattr(self, name), float))
        if np.isnan(self.load).any() or (self.load < 0).any():
            raise InputError("lateness: a load is negative or NaN", fix="use inf where a config may not serve a bucket")
        if not ((self.weight >= 0) & (self.weight <= 1 + 1e-9)).all():
            raise InputError("lateness: a weight is not a share of the requests", fix="give shares from 0 to 1")
        if not 0 <= self.at_most <= 1:
            raise InputError(f"lateness: at most {self.at_most} of the requests", fix="give a share from 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """Minimise the price of whole instances such that their replicas carry every bucket's load.

    ``load``: (n_buckets, n_configs), the replicas that serving *all* of a bucket on a config takes (rate / max
    rate); ``inf`` where the config may not serve the bucket. Buckets without demand are left out.
    ``config_instance``: (n_configs,) index into ``instances``; ``gpus_per_replica``: (n_configs,) the TP degree.
    ``price_usd_per_hour`` and ``gpus_per_instance``: (n_instances,). A price of 0 is that of a machine that is there
    anyway; a limit says how many of it there are.
    Replicas share instances: for each instance type, sum of tp x replicas <= gpus x instances.
    ``slice_factor`` None lets shares be continuous; N makes each share a multiple of 1/N (the paper's slices).
    ``period``: (n_buckets,) whole numbers from 0 without a gap, None: all 0. The buckets of one period are served
    at the same time, those of another with other shares on the same replicas, which carry the load of each period.
    ``lateness`` None lets no request be late by design; a slice is late as a whole or not at all.
    """

    buckets: tuple[str, ...]
    configs: tuple[str, ...]
    instances: tuple[str, ...]
    load: FloatArray
    config_instance: IntArray
    gpus_per_replica: IntArray
    gpus_per_instance: IntArray
    price_usd_per_hour: FloatArray
    limits: tuple[GroupLimit, ...] = ()
    max_cost_usd_per_hour: float | None = None
    slice_factor: int | None = None
    period: IntArray | None = None
    lateness: Lateness | None = None

    def __post_init__(self) -> None:
        for name, kind in (
            ("load", float), ("price_usd_per_hour", float), ("config_instance", np.int64),
            ("gpus_per_replica", np.int64), ("gpus_per_instance", np.int64), ("period", np.int64),
        ):  # fmt: skip
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _read_only(getattr(self, name), kind))
        self._check_shapes()
        self._check_numbers()

    def _check_shapes(self) -> None:
        n_b, n_c, n_i = len(self.buckets), len(self.configs), len(self.instances)
        wanted = {
            "load": (n_b, n_c), "config_instance": (n_c,), "gpus_per_replica": (n_c,),
            "gpus_per_instance": (n_i,), "price_usd_per_hour": (n_i,), "bucket_period": (n_b,),
        }  # fmt: skip
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"problem: {name} has shape {getattr(self, name).shape}, expected {shape}")
        for name in () if self.lateness is None else ("load", "weight"):
            if getattr(self.lateness, name).shape != (n_b, n_c):
                found = getattr(self.lateness, name).shape
                raise InputError(f"problem: lateness {name} has shape {found}, expected {(n_b, n_c)}")
        if n_b == 0 or n_c == 0:
            raise InputError("problem: there is nothing to serve or nothing to serve it with")
        for names in (self.buckets, self.configs, self.instances):
            if len(set(names)) != len(names):
                raise InputError(f"problem: a name occurs twice in {', '.join(names)}")
        if set(self.bucket_period.tolist()) != set(range(self.periods)):
            raise InputError("problem: periods are not numbered from 0 without a gap")

    def _check_numbers(self) -> None:
        if np.isnan(self.load).any() or (self.load < 0).any():
            raise InputError("problem: a load is negative or NaN", fix="use inf where a config may not serve a bucket")
        lightest = self.way_load.min(axis=1)
        least = max(self.period_sums(np.where(np.isfinite(lightest), lightest, 0.0)).tolist())
        if least > MOST_REPLICAS:
            raise InputError(f"the load takes {least:.3g} replicas", fix="check the rate, its unit and the headroom")
        if not (np.isfinite(self.price_usd_per_hour) & (self.price_usd_per_hour >= 0)).all():
            raise InputError("problem: prices are finite and not negative")
        if ((self.config_instance < 0) | (self.config_instance >= len(self.instances))).any():
            raise InputError("problem: a config names an instance that is not there")
        if (self.gpus_per_replica > self.gpus_per_instance[self.config_instance]).any():
            raise InputError("problem: a replica needs more GPUs than its instance has")
        if self.slice_factor is not None and self.slice_factor < 1:
            raise InputError(f"slice factor is {self.slice_factor}", fix="give a whole number from 1")
        if self.max_cost_usd_per_hour is not None and not (
            math.isfinite(self.max_cost_usd_per_hour) and self.max_cost_usd_per_hour > 0
        ):
            raise InputError(f"maximum cost is {self.max_cost_usd_per_hour}", fix="give a positive price per hour")
        for limit in self.limits:
            for key in limit.weights:
                if key not in self.instances:
                    raise InputError(f"limit {limit.name}: instance {key!r} is not in the problem")

    @property
    def bucket_period(self) -> IntArray:
        """(n_buckets,) the period of each bucket."""
        return np.zeros(len(self.buckets), dtype=np.int64) if self.period is None else self.period

    @property
    def periods(self) -> int:
        """The number of periods."""
        return 1 if self.period is None else int(self.period.max()) + 1

    def period_sums(self, values: FloatArray) -> FloatArray:
        """(n_periods, ...) the sums over each period's buckets of ``values`` (n_buckets, ...)."""
        if self.period is None:
            return np.asarray(values.sum(axis=0))[None]
        return np.stack([values[self.period == period].sum(axis=0) for period in range(self.periods)])

    def of_periods(self, kept: Sequence[int]) -> Problem:
        """The problem of some of its periods alone, renumbered in the order of ``kept``."""
        place = {period: new for new, period in enumerate(kept)}
        rows = [b for b, period in enumerate(self.bucket_period.tolist()) if period in place]
        late = self.lateness
        return replace(
            self,
            buckets=tuple(self.buckets[b] for b in rows),
            load=self.load[rows],
            lateness=None if late is None else replace(late, load=late.load[rows], weight=late.weight[rows]),
            period=np.array([place[int(self.bucket_period[b])] for b in rows]),
        )

    @property
    def way_load(self) -> FloatArray:
        """(n_buckets, n_ways) replicas that all of a bucket takes in each way to serve it; inf where it is none.

        Way c is config c in time; with ``lateness``, way n_configs + c is config c late, where that takes less of it.
        """
        late = self.lateness
        if late is None:
            return self.load
        worth = late.load < self.load
        if late.at_most == 0:
            worth &= late.weight == 0
        return np.hstack([self.load, np.where(worth, late.load, np.inf)])

    @property
    def way_weight(self) -> FloatArray:
        """(n_buckets, n_ways) the share of all requests that misses the limit in each way; 0 in time."""
        late = self.lateness
        return np.zeros_like(self.load) if late is None else np.hstack([np.zeros_like(self.load), late.weight])

    @property
    def way_config(self) -> IntArray:
        """(n_ways,) the config of each way."""
        return np.tile(np.arange(len(self.configs)), 1 if self.lateness is None else 2)

    def late_share(self, late_shares: FloatArray | None) -> float:
        """The share of all requests that late shares (n_buckets, n_configs) make late, in the period with most."""
        if self.lateness is None or late_shares is None:
            return 0.0
        return float(self.period_sums((self.lateness.weight * late_shares).sum(axis=1)).max())

    @property
    def must_be_late(self) -> float:
        """The share of all requests that no config serves in time, at the least; inf where some are served by none.

        Of several periods that of the one with most.
        """
        weight = np.where(np.isfinite(self.way_load), self.way_weight, np.inf).min(axis=1)
        return float(self.period_sums(weight).max())

    def only_ways(self, kept: BoolArray) -> Problem:
        """The problem with these ways (n_buckets, n_ways) alone."""
        load, late = np.where(kept, self.way_load, np.inf), self.lateness
        n_c = len(self.configs)
        lateness = None if late is None else replace(late, load=load[:, n_c:])
        return replace(self, load=load[:, :n_c], lateness=lateness)

    def scaled(self, factor: float) -> Problem:
        """The problem with every load, late ones too, multiplied."""
        late = self.lateness
        lateness = None if late is None else replace(late, load=late.load * factor)
        return replace(self, load=self.load * factor, lateness=lateness)

    @property
    def is_free(self) -> BoolArray:
        """(n_instances,) which instance types cost nothing."""
        return np.asarray(self.price_usd_per_hour == 0)

    @property
    def least_price_usd_per_hour(self) -> float:
        """That of the cheapest instance type that costs something; 0 where none does."""
        return float(self.price_usd_per_hour[~self.is_free].min(initial=np.inf)) if not self.is_free.all() else 0.0

    def only_instances(self, keys: set[str]) -> Problem | None:
        """The problem with these instance types alone, or None if no config is left.

        Limits lose the other instances; a floor that can no longer be met stays and makes the problem infeasible.
        """
        keep_i = [i for i, key in enumerate(self.instances) if key in keys]
        keep_c = [c for c in range(len(self.configs)) if int(self.config_instance[c]) in keep_i]
        if not keep_c:
            return None
        position = {old: new for new, old in enumerate(keep_i)}
        late = self.lateness
        return replace(
            self,
            configs=tuple(self.configs[c] for c in keep_c),
            instances=tuple(self.instances[i] for i in keep_i),
            load=self.load[:, keep_c],
            config_instance=np.array([position[int(self.config_instance[c])] for c in keep_c]),
            gpus_per_replica=self.gpus_per_replica[keep_c],
            gpus_per_instance=self.gpus_per_instance[keep_i],
            price_usd_per_hour=self.price_usd_per_hour[keep_i],
            limits=tuple(
                replace(limit, weights={key: w for key, w in limit.weights.items() if key in keys})
                for limit in self.limits
            ),
            lateness=None if late is None else replace(late, load=late.load[:, keep_c], weight=late.weight[:, keep_c]),
        )

    def __repr__(self) -> str:
        during = f" of {self.periods} periods" if self.periods > 1 else ""
        sizes = (
            f"{len(self.buckets)} buckets{during}, {len(self.configs)} configs on {len(self.instances)} instance types"
        )
        return short_repr("Problem", f"{sizes}, {len(self.limits)} limits: {', '.join(self.instances)}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """What solving a problem gave.

    Where ``status`` is ``infeasible`` or ``unknown``, the arrays and ``cost_usd_per_hour`` are None;
    ``bound_usd_per_hour`` is a proven lower bound (None if there is none).
    ``shares``: (n_buckets, n_configs), of what is served in time, ``late_shares`` of what is late by design, None where
    the problem lets nothing be late. Together the rows sum to 1. ``gap`` is (cost - bound) / cost. ``binding``: of a
    problem of several periods those of which the program was solved; the fleet turned out to carry the others too.
    """

    status: Status
    shares: FloatArray | None = None
    late_shares: FloatArray | None = None
    replicas: IntArray | None = None
    instances: IntArray | None = None
    cost_usd_per_hour: float | None = None
    bound_usd_per_hour: float | None = None
    gap: float | None = None
    solve_s: float = 0.0
    binding: tuple[int, ...] = (0,)

    def __repr__(self) -> str:
        if self.cost_usd_per_hour is None or self.instances is None:
            return f"Solution({self.status})"
        gap = "" if self.gap is None else f", gap {self.gap:.2g}"
        counts = " ".join(map(str, self.instances.tolist()))
        return short_repr(
            "Solution", f"{self.status}, {self.cost_usd_per_hour:.4f} USD per hour{gap}, instances {counts}"
        )


def split_ways(problem: Problem, ways: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Shares (n_buckets, n_ways) as those in time and those late, each (n_buckets, n_configs)."""
    n_c = len(problem.configs)
    return ways[:, :n_c], None if problem.lateness is None else ways[:, n_c:]


def join_ways(shares: FloatArray, late_shares: FloatArray | None) -> FloatArray:
    """What :func:`split_ways` took apart."""
    return shares if late_shares is None else np.hstack([shares, late_shares])


def _read_only(values: Any, kind: type) -> Any:
    array: NDArray[Any] = np.array(values, dtype=kind)
    array.setflags(write=False)
    return array
