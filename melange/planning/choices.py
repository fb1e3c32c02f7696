"""Choices: what a workload may be served with, decided once: configs, offers, limits, and the rate of each per size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.arrays import FloatArray
from melange.capacity.profile import Profile
from melange.catalog.hardware import Catalog
from melange.catalog.instances import InstanceType
from melange.catalog.offers import DroppedOffer
from melange.errors import InputError
from melange.planning.options import SolveOptions
from melange.planning.rentable import rentable
from melange.planning.served import considered_of, served_keys
from melange.planning.spec import WorkloadSpec
from melange.serving.config import ConfigKey, ServingConfig
from melange.serving.considered import Considered
from melange.solver.problem import GroupLimit
from melange.workload.bucket import Bucket


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choices:
    """The serving configs that a spec leaves to choose among, on a profile.

    ``offers`` are in play, ``dropped`` is what a cheaper offer of the same kind keeps out, ``limits`` are over the
    offers; ``considered`` says all this in short. ``buckets`` are those with demand. ``max_rate_rps``: (n_buckets,
    n_configs), one replica's highest rate; 0 = cannot meet the SLO, NaN = not measured. ``unlimited_rps``: the same
    without any latency limit, NaN = not known. ``headroom``: (n_configs,). Arrays are read-only.
    """

    spec: WorkloadSpec
    options: SolveOptions
    profile: Profile
    configs: tuple[ServingConfig, ...]
    offers: tuple[InstanceType, ...]
    dropped: tuple[DroppedOffer, ...]
    considered: Considered
    limits: tuple[GroupLimit, ...]
    buckets: tuple[Bucket, ...]
    max_rate_rps: FloatArray
    unlimited_rps: FloatArray
    headroom: FloatArray
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("max_rate_rps", "unlimited_rps", "headroom"):
            array = np.array(getattr(self, name), dtype=float)
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def rate_rps(self) -> FloatArray:
        """(n_buckets,) demand without headroom."""
        return np.array([bucket.rate_rps for bucket in self.buckets])

    @property
    def late_rate_rps(self) -> FloatArray:
        """(n_buckets, n_configs) one replica's rate of requests that may be late; 0 where none is known.

        Without a limit it is never below the rate in time, which stands in where no other is known. A profile that
        holds neither for a size, as one of bare capacities with a 0, lets none of it be late there.
        """
        return np.fmax(np.nan_to_num(self.unlimited_rps, nan=0.0), np.nan_to_num(self.max_rate_rps, nan=0.0))

    @property
    def load_tokens(self) -> FloatArray:
        """(n_buckets, 2) the input and output size that each bucket's load is taken at."""
        return _load_tokens(self.buckets)

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPU type of each config."""
        return tuple(config.instance.gpu for config in self.configs)


def choose(
    spec: WorkloadSpec, profile: Profile, options: SolveOptions | None = None, *, catalog: Catalog | None = None
) -> Choices:
    """What a spec leaves to choose among, on a profile.

    InputError: an unknown name, a GPU without price or profile, an edge that the profile cannot be asked for.
    """
    catalog = spec.catalog(catalog)
    keys = served_keys(spec, profile, catalog)
    rented = rentable(spec, keys, catalog, profile.left_out)
    configs = _configs(keys, rented.offers)
    buckets = spec.workload.buckets()
    max_rate = _max_rates(spec, profile, configs, _load_tokens(buckets))
    tables = [profile.configs[config.key] for config in configs]
    sizes = _load_tokens(buckets).T
    return Choices(
        spec=spec,
        options=options or SolveOptions(),
        profile=profile,
        configs=configs,
        offers=rented.offers,
        dropped=rented.dropped,
        considered=considered_of(spec, profile, configs, catalog),
        limits=rented.limits,
        buckets=buckets,
        max_rate_rps=max_rate,
        unlimited_rps=np.stack([table.unlimited_rate_at(*sizes) for table in tables], axis=1),
        headroom=np.array([spec.headroom_by_config.get(config.name, spec.headroom) for config in configs]),
        warnings=(*profile.warnings, *rented.warnings, *_unmeasured_warnings(configs, buckets, max_rate)),
    )


def _load_tokens(buckets: Sequence[Bucket]) -> FloatArray:
    return np.array([(bucket.load_input_tokens, bucket.load_output_tokens) for bucket in buckets], dtype=float)


def _unmeasured_warnings(
    configs: Sequence[ServingConfig], buckets: Sequence[Bucket], max_rate_rps: FloatArray
) -> list[str]:
    """A sentence for each config that is left out of buckets because nobody measured it there."""
    texts = []
    for config, rates in zip(configs, max_rate_rps.T, strict=True):
        labels = [bucket.label for bucket, rate in zip(buckets, rates, strict=True) if np.isnan(rate)]
        if labels:
            names = ", ".join(labels[:4]) + (f" and {len(labels) - 4} more" if len(labels) > 4 else "")
            texts.append(f"{config.name} is not measured for sizes {names}, so it serves none of them")
    return texts


def _configs(keys: Sequence[ConfigKey], offers: Sequence[InstanceType]) -> tuple[ServingConfig, ...]:
    return tuple(
        ServingConfig(instance=offer, **{name: value for name, value in key._asdict().items() if name != "gpu"})
        for offer in offers
        for key in keys
        if key.gpu == offer.gpu and key.tp <= offer.gpus
    )


def _max_rates(
    spec: WorkloadSpec, profile: Profile, configs: Sequence[ServingConfig], load_tokens: FloatArray
) -> FloatArray:
    """(n_buckets, n_configs); with upper edges as representatives every edge must be a profiled size."""
    columns = []
    for config in configs:
        table = profile.configs[config.key]
        if spec.workload.representative == "upper_edge":
            for axis, sizes, name in ((0, table.input_tokens, "input"), (1, table.output_tokens, "output")):
                stray = sorted({e for e in load_tokens[:, axis] if e <= sizes[-1]} - set(sizes.tolist()))
                if stray:
                    mismatch = InputError(
                        f"grid mismatch: the {name} edge {stray[0]:g} is not a profiled size of {config.name} "
                        f"({', '.join(f'{s:g}' for s in sizes)})",
                        fix="use the profile's edges, or representative: mean, which interpolates",
                    )
                    raise spec.located(mismatch, f"sizes.{name}_edges_tokens")
        columns.append(table.rate_at(load_tokens[:, 0], load_tokens[:, 1]))
    return np.stack(columns, axis=1)
