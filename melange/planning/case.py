"""Case: a set of buckets left out as late under an attainment SLO, and the integer program of the rest.

A workload has as many cases as there are sets of buckets that may be late (see :mod:`melange.planning.late`), one
without an attainment SLO. This module and that one hold all that is known of lateness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.errors import InputError
from melange.planning.choices import Choices
from melange.planning.every_window import over_windows
from melange.planning.late import Late, late_by_type, late_choices, late_share, may_be_late
from melange.solver.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """The problem of a workload without its ``late`` buckets, and what tells its solution in the workload's words.

    ``group``: (n_buckets,) the problem's row of each bucket, -1 where it is late. ``barred``: GPU types that carry
    nothing, since they could serve late buckets in time.
    """

    choices: Choices
    late: Late
    barred: frozenset[str]
    group: IntArray
    problem: Problem

    def expand(self, shares: FloatArray) -> FloatArray:
        """Shares of the problem's rows -> shares of the buckets, (n_buckets, n_configs); zero rows for late ones."""
        wide = np.vstack([shares, np.zeros(shares.shape[1])])
        return np.asarray(wide[self.group])

    def program(self, rate_rps: FloatArray) -> Problem:
        """The program of another demand, (n_buckets,) in requests/s, on its own."""
        return _problem(self.choices, self.barred, self.group, rate_rps, self.choices.max_rate_rps)

    def unmeasured(self) -> BoolArray:
        """(problem's buckets, n_configs): where a config was not measured for some bucket of the row."""
        rows = np.zeros(self.problem.load.shape, dtype=bool)
        kept = self.group >= 0
        np.logical_or.at(rows, self.group[kept], np.isnan(self.choices.max_rate_rps[kept]))
        return rows

    @property
    def late_share(self) -> float:
        """The share of the requests that the late buckets hold."""
        return late_share(self.late, self.choices.rate_rps)

    @property
    def able_types(self) -> frozenset[str]:
        """The GPU types that could serve a late bucket in time, so that no plan with them may leave it out."""
        able = (self.choices.max_rate_rps[sorted(self.late)] > 0).any(axis=0)
        return frozenset(self.choices.gpus[c] for c in np.flatnonzero(able))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is left out as late, the GPU types that it is too much for, and those that are barred."""
        if not self.late:
            return ()
        by_type = types_late(self.choices)
        slow = [gpu for gpu, late in by_type.items() if self.late <= late]
        who = "any config" if len(slow) == len(by_type) else " or ".join(slow)
        names = ", ".join(self.choices.buckets[b].label for b in sorted(self.late))
        texts = [
            f"{100 * self.late_share:.2g}% of the requests ({names}) cannot be served in time by {who} and use up part "
            "of the share that may miss; they are not sized for"
        ]
        if self.barred:
            texts.append(
                f"{', '.join(sorted(self.barred))} could serve the late requests in time, so this plan, its odds and "
                "its explanation keep to the other GPU types"
            )
        return tuple(texts)


def cases(choices: Choices) -> list[Case]:
    """A case for each set of buckets that may be late, those with the most late requests first.

    None at all where no config serves some bucket that may not be late (``choices.unservable``), unless that is for
    want of measurements: InputError.
    """
    sets = late_choices(types_late(choices), choices.max_rate_rps, choices.rate_rps, choices.spec.slo)
    stuck = [int(b) for b in np.flatnonzero(~choices.served) if b not in sets[0]]
    if stuck:
        _refuse_unmeasured(choices, stuck)
        return []
    return [case_of(choices, late) for late in sets]


def case_of(choices: Choices, late: Late = frozenset(), barred: frozenset[str] = frozenset()) -> Case:
    """The case of these late buckets and barred GPU types; its problem may have buckets that no config serves."""
    group = _groups(choices, late)
    problem = over_windows(choices, lambda rates_rps: _problem(choices, barred, group, rates_rps, choices.max_rate_rps))
    return Case(choices=choices, late=late, barred=barred, group=group, problem=problem)


def seen_by_type(case: Case, gpu: str) -> Case:
    """The case of one GPU type alone: late is what it cannot serve in time, nothing where that is too much.

    Its problem keeps the other types and may have buckets that no config serves.
    """
    choices = case.choices
    late = types_late(choices)[gpu]
    return case_of(choices, late if may_be_late(late, choices.rate_rps, choices.spec.slo) else frozenset())


def types_late(choices: Choices) -> dict[str, Late]:
    """The buckets that each GPU type cannot serve in time, measured."""
    return late_by_type(choices.max_rate_rps, choices.gpus)


def redrawn(case: Case, *, rate_rps: FloatArray, max_rate_rps: FloatArray) -> Problem | None:
    """The case's problem under other demand and other max rates (same shapes); None where too much would be late."""
    if not may_be_late(case.late, rate_rps, case.choices.spec.slo):
        return None
    return _problem(case.choices, case.barred, case.group, rate_rps, max_rate_rps)


def _problem(
    choices: Choices, barred: frozenset[str], group: IntArray, rate_rps: FloatArray, max_rate_rps: FloatArray
) -> Problem:
    shut = np.array([gpu in barred for gpu in choices.gpus])
    usable = (np.nan_to_num(max_rate_rps, nan=0.0) > 0) & ~shut
    with np.errstate(divide="ignore", invalid="ignore"):
        load = rate_rps[:, None] * (1 + choices.headroom) / np.where(usable, max_rate_rps, 0.0)
    # In a window there may be sizes of which nothing comes, whoever could serve them.
    load = np.where(rate_rps[:, None] > 0, load, 0.0)
    rows = np.zeros((group.max() + 1, load.shape[1]))
    np.add.at(rows, group[group >= 0], load[group >= 0])
    keys = tuple(offer.key for offer in choices.offers)
    return Problem(
        buckets=_labels(choices, group),
        configs=tuple(config.name for config in choices.configs),
        instances=keys,
        load=rows,
        config_instance=np.array([keys.index(config.instance.key) for config in choices.configs]),
        gpus_per_replica=np.array([config.tp for config in choices.configs]),
        gpus_per_instance=np.array([offer.gpus for offer in choices.offers]),
        price_usd_per_hour=np.array([offer.price_usd_per_hour for offer in choices.offers]),
        limits=choices.limits,
        max_cost_usd_per_hour=choices.spec.limits.max_cost_usd_per_hour,
        slice_factor=choices.options.slice_factor,
    )


def _labels(choices: Choices, group: IntArray) -> tuple[str, ...]:
    """A name for each row of the problem: its buckets' labels."""
    return tuple(
        "+".join(choices.buckets[b].label for b in np.flatnonzero(group == row)) for row in range(group.max() + 1)
    )


def _groups(choices: Choices, late: Late) -> IntArray:
    """(n_buckets,) the problem's row of each bucket; tied outputs share the row of their input bucket."""
    group = np.full(len(choices.buckets), -1)
    rows: dict[object, int] = {}
    for b, bucket in enumerate(choices.buckets):
        if b not in late:
            key = bucket.input_tokens_max if choices.options.tie_outputs else b
            group[b] = rows.setdefault(key, len(rows))
    return group


def _refuse_unmeasured(choices: Choices, stuck: list[int]) -> None:
    unmeasured = [b for b in stuck if np.isnan(choices.max_rate_rps[b]).any()]
    if not unmeasured:
        return
    names = ", ".join(choices.buckets[b].label for b in unmeasured[:5]) + (" ..." if len(unmeasured) > 5 else "")
    configs = ", ".join(choices.configs[c].name for c in np.flatnonzero(np.isnan(choices.max_rate_rps[unmeasured[0]])))
    raise InputError(
        f"the workload has requests of sizes that are not measured: {names} (not measured on {configs})",
        fix="measure them with 'melange profile', cut the workload's grid, or use --fill estimated",
    )
