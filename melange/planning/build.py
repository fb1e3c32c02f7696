"""From a workload file's values to the integer program: profile x offers x limits -> Problem."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.capacity.profile import Profile
from melange.catalog.hardware import Catalog, load_catalog
from melange.catalog.instances import InstanceType
from melange.catalog.offers import DroppedOffer, read_prices
from melange.errors import InputError
from melange.planning.late import Late, late_by_type, late_choices, late_share, may_be_late
from melange.planning.rentable import Limits, group_limits, offers_in_play, type_limits
from melange.planning.spec import WorkloadSpec
from melange.serving.config import ConfigKey, ServingConfig
from melange.solver.problem import GroupLimit, Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Build:
    """A problem beside everything needed to tell its solution in the workload's words.

    ``cells``: (n_buckets, 2) input and output index in the grid of each bucket with demand. ``load_tokens``:
    (n_buckets, 2) the sizes its load was taken at. ``rate_rps``: (n_buckets,) without headroom.
    ``max_rate_rps``: (n_buckets, n_configs); 0 = cannot meet the SLO, NaN = not measured. ``group``: (n_buckets,) the
    problem's row of each bucket, -1 where the bucket is left out as ``late`` under an attainment SLO, one of
    ``late_choices``. ``barred``: GPU types that carry nothing, since they could serve late buckets in time.
    ``headroom``: (n_configs,). ``problem`` is None when some bucket can be served by no config
    (``unservable``).
    """

    spec: WorkloadSpec
    profile: Profile
    configs: tuple[ServingConfig, ...]
    offers: tuple[InstanceType, ...]
    dropped: tuple[DroppedOffer, ...]
    limits: tuple[GroupLimit, ...]
    cells: IntArray
    load_tokens: FloatArray
    rate_rps: FloatArray
    max_rate_rps: FloatArray
    group: IntArray
    headroom: FloatArray
    problem: Problem | None
    late: Late = frozenset()
    late_choices: tuple[Late, ...] = (frozenset(),)
    barred: frozenset[str] = frozenset()
    tie_outputs: bool = False
    unservable: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def label(self, bucket: int) -> str:
        """``input x output`` upper edges of a bucket, in tokens."""
        grid = self.spec.workload.grid
        i, j = self.cells[bucket]
        return f"{grid.input_edges_tokens[i]}x{grid.output_edges_tokens[j]}"

    def expand(self, shares: FloatArray) -> FloatArray:
        """Shares of the problem's rows -> shares of the buckets, (n_buckets, n_configs); zero rows for late ones."""
        wide = np.vstack([shares, np.zeros(shares.shape[1])])
        return np.asarray(wide[self.group])

    def unmeasured(self) -> BoolArray:
        """(problem's buckets, n_configs): where a config was not measured for some bucket of the row."""
        rows = np.zeros((int(self.group.max()) + 1, len(self.configs)), dtype=bool)
        served = self.group >= 0
        np.logical_or.at(rows, self.group[served], np.isnan(self.max_rate_rps[served]))
        return rows

    def late_by_type(self) -> dict[str, Late]:
        """The buckets that each GPU type cannot serve in time, measured."""
        return late_by_type(self.max_rate_rps, [config.instance.gpu for config in self.configs])


def build_problem(
    spec: WorkloadSpec,
    profile: Profile,
    *,
    limits: Limits | None = None,
    slice_factor: int | None = None,
    headroom_by_config: Mapping[str, float] | None = None,
    tie_outputs: bool = False,
    catalog: Catalog | None = None,
    offers: Iterable[InstanceType] | None = None,
    late: Late | None = None,
) -> Build:
    """Assemble the problem of a workload on a profile.

    ``headroom_by_config`` replaces the spec's headroom for the configs it names. ``tie_outputs`` gives all output
    buckets of an input bucket the same shares, which a router that cannot know output lengths is able to follow.
    ``late`` is the one of the build's ``late_choices`` to leave out, None the first of them.
    Raises InputError for unknown names, a GPU without price or profile, and buckets that no config has measured.
    """
    catalog, limits = catalog or load_catalog(), limits or Limits()
    keys = _served_keys(spec, profile)
    listed = tuple(offers) if offers is not None else read_prices(spec.prices.file, catalog)
    caps = type_limits(spec, limits, catalog)
    warnings = list(profile.warnings)
    chosen, dropped = offers_in_play(spec, limits, keys, listed, caps, warnings, catalog)
    configs = _configs(keys, chosen)
    cells = np.argwhere(spec.workload.rate_rps > 0)
    rate = spec.workload.rate_rps[cells[:, 0], cells[:, 1]]
    sizes = spec.workload.representative_tokens()
    load_tokens = np.stack([size[cells[:, 0], cells[:, 1]] for size in sizes], axis=1)
    max_rate = _max_rates(spec, profile, configs, load_tokens)
    margins = headroom_by_config or {}
    headroom = np.array([margins.get(config.name, spec.headroom) for config in configs])
    build = Build(
        spec=spec,
        profile=profile,
        configs=configs,
        offers=chosen,
        dropped=dropped,
        limits=group_limits(caps, chosen, limits, catalog),
        cells=cells,
        load_tokens=load_tokens,
        rate_rps=rate,
        max_rate_rps=max_rate,
        group=np.arange(len(rate)),
        headroom=headroom,
        problem=None,
        tie_outputs=tie_outputs,
    )
    choices = late_choices(build.late_by_type(), max_rate, rate, spec.workload.slo)
    build = replace(build, late=choices[0] if late is None else late, late_choices=tuple(choices))
    build = replace(build, warnings=(*warnings, *_unmeasured_warnings(build), *_late_warnings(build)))
    return _with_problem(build, limits.max_cost_usd_per_hour, slice_factor)


def _late_warnings(build: Build) -> list[str]:
    """The sentence on what is left out as late, and the GPU types that it is too much for."""
    if not build.late:
        return []
    by_type = build.late_by_type()
    slow = [gpu for gpu, late in by_type.items() if build.late <= late]
    who = "any config" if len(slow) == len(by_type) else " or ".join(slow)
    names = ", ".join(build.label(b) for b in sorted(build.late))
    share = 100 * late_share(build.late, build.rate_rps)
    return [
        f"{share:.2g}% of the requests ({names}) cannot be served in time by {who} and use up part of the share that "
        "may miss; they are not sized for"
    ]


def _unmeasured_warnings(build: Build) -> list[str]:
    """A sentence for each config that is left out of buckets because nobody measured it there."""
    texts = []
    for config, rates in zip(build.configs, build.max_rate_rps.T, strict=True):
        labels = [build.label(int(b)) for b in np.flatnonzero(np.isnan(rates))]
        if labels:
            names = ", ".join(labels[:4]) + (f" and {len(labels) - 4} more" if len(labels) > 4 else "")
            texts.append(f"{config.name} is not measured for sizes {names}, so it serves none of them")
    return texts


def with_figures(build: Build, *, rate_rps: FloatArray, max_rate_rps: FloatArray) -> Build:
    """The same choice of configs, offers and limits under other demand and other max rates (same shapes).

    The late buckets stay the same; ``unservable`` names them where they have become too many."""
    problem = build.problem
    if problem is None:
        raise InputError("the workload has sizes that no config can serve", fix="solve it first")
    changed = replace(build, rate_rps=rate_rps, max_rate_rps=max_rate_rps)
    return _with_problem(changed, problem.max_cost_usd_per_hour, problem.slice_factor)


def able_types(build: Build) -> frozenset[str]:
    """The GPU types that could serve a late bucket in time, so that no plan with them may leave it out."""
    able = (build.max_rate_rps[sorted(build.late)] > 0).any(axis=0)
    return frozenset(build.configs[c].instance.gpu for c in np.flatnonzero(able))


def without_able_types(build: Build) -> Build:
    """The build with what :func:`able_types` names barred; its problem may have buckets that no config serves."""
    assert build.problem is not None
    able = able_types(build)
    text = (
        f"{', '.join(sorted(able))} could serve the late requests in time, so this plan, its odds and its explanation "
    )
    barred = replace(build, barred=able, warnings=(*build.warnings, f"{text}keep to the other GPU types"))
    return _filled(barred, build.problem.max_cost_usd_per_hour, build.problem.slice_factor)


def seen_by_type(build: Build, gpu: str) -> Build:
    """The build with what one GPU type cannot serve in time as its late buckets, none where they are too many.

    Its problem keeps the other types and, unlike the build's own, may have buckets that no config serves.
    """
    assert build.problem is not None
    late = build.late_by_type()[gpu]
    allowed = may_be_late(late, build.rate_rps, build.spec.workload.slo)
    own = replace(build, late=late if allowed else frozenset(), barred=frozenset())
    return _filled(own, build.problem.max_cost_usd_per_hour, build.problem.slice_factor)


def _served_keys(spec: WorkloadSpec, profile: Profile) -> list[ConfigKey]:
    models = sorted({key.model for key in profile.configs})
    model = spec.workload.model
    if model is not None and model not in models:
        near = difflib.get_close_matches(model, models, n=1, cutoff=0.4)
        missing = InputError(
            f"the profile has no model {model!r}",
            fix=f"did you mean {near[0]!r}?" if near else f"it holds {', '.join(models)}",
        )
        raise spec.located(missing, "model")
    if model is None and len(models) > 1:
        raise InputError(f"the profile holds {len(models)} models: {', '.join(models)}", fix="name one as model")
    serving = spec.serving
    keys = [
        key
        for key in profile.configs
        if (model is None or key.model == model)
        and (not serving.tp or key.tp in serving.tp)
        and (not serving.precisions or key.precision in serving.precisions)
        and (not serving.engines or key.engine in serving.engines)
    ]
    if not keys:
        none = InputError("no profiled configuration passes the workload's serving choice", fix="widen serving")
        raise spec.located(none, "serving")
    return keys


def _configs(keys: Sequence[ConfigKey], offers: Sequence[InstanceType]) -> tuple[ServingConfig, ...]:
    return tuple(
        ServingConfig(instance=offer, model=key.model, engine=key.engine, precision=key.precision, tp=key.tp)
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


def _with_problem(build: Build, max_cost: float | None, slice_factor: int | None) -> Build:
    served = (np.nan_to_num(build.max_rate_rps, nan=0.0) > 0).any(axis=1)
    stuck = np.array([b for b in np.flatnonzero(~served) if b not in build.late], dtype=np.int64)
    if stuck.size:
        _refuse_unmeasured(build, stuck)
        return replace(build, unservable=tuple(build.label(int(b)) for b in stuck))
    if not may_be_late(build.late, build.rate_rps, build.spec.workload.slo):
        return replace(build, unservable=tuple(build.label(b) for b in sorted(build.late)))
    return _filled(build, max_cost, slice_factor)


def _filled(build: Build, max_cost: float | None, slice_factor: int | None) -> Build:
    barred = np.array([config.instance.gpu in build.barred for config in build.configs])
    usable = (np.nan_to_num(build.max_rate_rps, nan=0.0) > 0) & ~barred
    group = _groups(build)
    with np.errstate(divide="ignore", invalid="ignore"):
        load = build.rate_rps[:, None] * (1 + build.headroom) / np.where(usable, build.max_rate_rps, 0.0)
    rows = np.zeros((group.max() + 1, load.shape[1]))
    np.add.at(rows, group[group >= 0], load[group >= 0])
    labels = ["" for _ in rows]
    for bucket, row in enumerate(group):
        if row >= 0:
            labels[row] = f"{labels[row]}+{build.label(bucket)}" if labels[row] else build.label(bucket)
    keys = tuple(offer.key for offer in build.offers)
    problem = Problem(
        buckets=tuple(labels),
        configs=tuple(config.name for config in build.configs),
        instances=keys,
        load=rows,
        config_instance=np.array([keys.index(config.instance.key) for config in build.configs]),
        gpus_per_replica=np.array([config.tp for config in build.configs]),
        gpus_per_instance=np.array([offer.gpus for offer in build.offers]),
        price_usd_per_hour=np.array([offer.price_usd_per_hour for offer in build.offers]),
        limits=build.limits,
        max_cost_usd_per_hour=max_cost,
        slice_factor=slice_factor,
    )
    return replace(build, problem=problem, group=group)


def _refuse_unmeasured(build: Build, stuck: IntArray) -> None:
    unmeasured = [int(b) for b in stuck if np.isnan(build.max_rate_rps[b]).any()]
    if not unmeasured:
        return
    names = ", ".join(build.label(b) for b in unmeasured[:5]) + (" ..." if len(unmeasured) > 5 else "")
    some = np.isnan(build.max_rate_rps[unmeasured[0]])
    configs = ", ".join(build.configs[c].name for c in np.flatnonzero(some))
    raise InputError(
        f"the workload has requests of sizes that are not measured: {names} (not measured on {configs})",
        fix="measure them with 'melange profile', cut the workload's grid, or use --fill estimated",
    )


def _groups(build: Build) -> IntArray:
    group = np.full(len(build.rate_rps), -1)
    rows: dict[int, int] = {}
    for bucket in range(len(group)):
        if bucket not in build.late:
            key = int(build.cells[bucket, 0]) if build.tie_outputs else bucket
            group[bucket] = rows.setdefault(key, len(rows))
    return group
