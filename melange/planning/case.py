"""Case: the integer program of a workload, and what tells its solution in the workload's words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.errors import InputError
from melange.planning.choices import Choices
from melange.planning.every_window import over_windows
from melange.solver.allocation import LATE_ROOM
from melange.solver.problem import Lateness, Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """The problem of a workload. ``row``: (n_buckets,) the problem's row of each bucket.

    Where an SLO lets requests miss, ``spec.late_by_design`` of them may be late by design: served without its limit by
    a config that cannot keep it for their size at any load. A config that can serves them in time or not at all, since
    the requests beside them keep its batches small: there is no running it at its rate without a limit. A row of tied
    outputs that a config serves late is late only in the sizes that it cannot serve in time.
    """

    choices: Choices
    row: IntArray
    problem: Problem

    def expand(self, shares: FloatArray, late_shares: FloatArray | None) -> tuple[FloatArray, FloatArray]:
        """Shares of the problem's rows -> shares of the buckets in time and late, each (n_buckets, n_configs)."""
        in_time = np.asarray(shares[self.row])
        if late_shares is None:
            return in_time, np.zeros_like(in_time)
        late = np.asarray(late_shares[self.row])
        punctual = _able(self.choices.max_rate_rps)
        return in_time + np.where(punctual, late, 0.0), np.where(punctual, 0.0, late)

    def program(self, rate_rps: FloatArray) -> Problem:
        """The program of another demand, (n_buckets,) in requests/s, on its own."""
        return _problem(self.choices, self.row, rate_rps, self.choices.max_rate_rps, self.choices.late_rate_rps)

    def unmeasured(self) -> BoolArray:
        """(problem's buckets, n_configs): where a config was not measured for some bucket of the row."""
        rows = np.zeros(self.problem.load.shape, dtype=bool)
        np.logical_or.at(rows, self.row, np.isnan(self.choices.max_rate_rps))
        return rows

    @property
    def unservable(self) -> tuple[str, ...]:
        """Labels of the buckets that no config serves in time where too many would be late, and of those none serves.

        Empty where some fleet without limits serves the workload.
        """
        problem = self.problem
        at_most = 0.0 if problem.lateness is None else problem.lateness.at_most
        if problem.must_be_late <= at_most + LATE_ROOM:
            return ()
        lost: BoolArray = np.asarray(~np.isfinite(problem.way_load).any(axis=1))
        stuck: BoolArray = np.asarray(lost if lost.any() else ~np.isfinite(problem.load).any(axis=1))
        own = ~_able(self.choices.max_rate_rps).any(axis=1) & stuck[self.row]
        named = own if own.any() else stuck[self.row]
        return tuple(self.choices.buckets[b].label for b in np.flatnonzero(named))


def case_of(choices: Choices) -> Case:
    """The program of a workload's choices; it may have buckets that no config serves (``unservable``)."""
    row = _rows(choices)

    def problem_of(rate_rps: FloatArray) -> Problem:
        return _problem(choices, row, rate_rps, choices.max_rate_rps, choices.late_rate_rps)

    problem = over_windows(choices, problem_of)
    return Case(choices=choices, row=row, problem=problem)


def redrawn(case: Case, *, rate_rps: FloatArray, factor: FloatArray) -> Problem:
    """The case's problem under other demand (n_buckets,) and with every max rate times (n_buckets, n_configs)."""
    choices = case.choices
    return _problem(choices, case.row, rate_rps, choices.max_rate_rps * factor, choices.late_rate_rps * factor)


def refuse_unmeasured(case: Case) -> None:
    """InputError where what no config serves was not measured on some."""
    choices, names = case.choices, set(case.unservable)
    unknown = np.isnan(choices.max_rate_rps)
    unmeasured = [b for b, bucket in enumerate(choices.buckets) if bucket.label in names and unknown[b].any()]
    if not unmeasured:
        return
    labels = ", ".join(choices.buckets[b].label for b in unmeasured[:5]) + (" ..." if len(unmeasured) > 5 else "")
    configs = ", ".join(choices.configs[c].name for c in np.flatnonzero(unknown[unmeasured[0]]))
    raise InputError(
        f"the workload has requests of sizes that are not measured: {labels} (not measured on {configs})",
        fix="measure them with 'melange profile', cut the workload's grid, or use --fill estimated",
    )


def _problem(
    choices: Choices, row: IntArray, rate_rps: FloatArray, max_rate_rps: FloatArray, late_rate_rps: FloatArray
) -> Problem:
    load = _load(rate_rps, choices.headroom, np.nan_to_num(max_rate_rps, nan=0.0))
    late_load = _load(rate_rps, choices.headroom, late_rate_rps)
    keys = tuple(offer.key for offer in choices.offers)
    return Problem(
        buckets=_labels(choices, row),
        configs=tuple(config.name for config in choices.configs),
        instances=keys,
        load=_summed(load, row),
        config_instance=np.array([keys.index(config.instance.key) for config in choices.configs]),
        gpus_per_replica=np.array([config.tp for config in choices.configs]),
        gpus_per_instance=np.array([offer.gpus for offer in choices.offers]),
        price_usd_per_hour=np.array([offer.price_usd_per_hour for offer in choices.offers]),
        limits=choices.limits,
        max_cost_usd_per_hour=choices.spec.limits.max_cost_usd_per_hour,
        slice_factor=choices.options.slice_factor,
        lateness=_lateness(choices, row, rate_rps, load, late_load, max_rate_rps),
    )


def _lateness(
    choices: Choices,
    row: IntArray,
    rate_rps: FloatArray,
    load: FloatArray,
    late_load: FloatArray,
    max_rate_rps: FloatArray,
) -> Lateness | None:
    """What may be late; ``load`` and ``late_load``: (n_buckets, n_configs)."""
    at_most = choices.spec.slo.may_miss * choices.spec.late_by_design
    if at_most == 0:
        return None
    able = _able(max_rate_rps)
    missed = np.where(able, 0.0, (rate_rps / rate_rps.sum())[:, None])
    late = _summed(np.where(able, load, late_load), row)
    all_in_time = np.isfinite(_summed(load, row))
    return Lateness(load=np.where(all_in_time, np.inf, late), weight=_summed(missed, row), at_most=at_most)


def _able(max_rate_rps: FloatArray) -> BoolArray:
    """(n_buckets, n_configs) whether a config is known to serve a bucket in time."""
    return np.asarray(np.nan_to_num(max_rate_rps, nan=0.0) > 0)


def _load(rate_rps: FloatArray, headroom: FloatArray, max_rate_rps: FloatArray) -> FloatArray:
    """(n_buckets, n_configs) replicas that a bucket keeps busy; inf where the rate is 0.

    In a window there may be sizes of which nothing comes: 0, whoever could serve them.
    """
    demand = rate_rps[:, None] * (1 + headroom)
    with np.errstate(divide="ignore", invalid="ignore"):
        load = np.where(max_rate_rps > 0, demand / max_rate_rps, np.inf)
    return np.where(demand > 0, load, 0.0)


def _summed(values: FloatArray, row: IntArray) -> FloatArray:
    rows = np.zeros((int(row.max()) + 1, values.shape[1]))
    np.add.at(rows, row, values)
    return rows


def _labels(choices: Choices, row: IntArray) -> tuple[str, ...]:
    """A name for each row of the problem: its buckets' labels."""
    return tuple(
        "+".join(choices.buckets[b].label for b in np.flatnonzero(row == each)) for each in range(int(row.max()) + 1)
    )


def _rows(choices: Choices) -> IntArray:
    """(n_buckets,) the problem's row of each bucket; tied outputs share the row of their input bucket."""
    rows: dict[object, int] = {}
    tied = choices.options.tie_outputs
    keys = [bucket.input_tokens_max if tied else b for b, bucket in enumerate(choices.buckets)]
    return np.array([rows.setdefault(key, len(rows)) for key in keys], dtype=np.int64)
