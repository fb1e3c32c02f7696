"""The load to plan for: what a request of each size costs, and a statistic of the windows' loads by that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.arrays import FloatArray
from melange.capacity.profile import Profile
from melange.errors import InputError
from melange.planning.choices import Choices
from melange.planning.planner import choices_of
from melange.planning.spec import WorkloadSpec
from melange.workload.drift import drift_of
from melange.workload.load_scale import LoadScale
from melange.workload.workload import Workload

# About what providers charge for a token of output over one of input, and so what it costs them.
OUTPUT_WEIGHT = 4.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadMeasure:
    """What a request of each bucket weighs: (n_input, n_output), NaN without demand; ``text`` says by which measure."""

    weight: FloatArray
    text: str


def token_measure(workload: Workload) -> LoadMeasure:
    """Requests weighed by their mean tokens, where no rate of any GPU is known."""
    weight = workload.mean_input_tokens + OUTPUT_WEIGHT * workload.mean_output_tokens
    weight = np.where(workload.rate_rps > 0, weight, np.nan)
    return LoadMeasure(weight=weight, text=f"tokens, one of output as {OUTPUT_WEIGHT:g} of input")


def load_measure(spec: WorkloadSpec, *, gpu: str | None = None, profile: Profile | None = None) -> LoadMeasure:
    """Requests weighed by GPU time x price on the configuration that serves their size most cheaply.

    That is the workload's cost with whole machines left aside: the linear bound below every fleet, which needs no
    solving. ``gpu`` measures on the configurations of one GPU type alone, by its GPU time. Sizes that none of them
    serves weigh by their tokens, scaled to the others. InputError as for preparing a solve, and for a GPU that the
    workload cannot use.
    """
    choices = choices_of(spec, profile=profile)
    known = list(dict.fromkeys(choices.gpus))
    if gpu is not None and gpu not in known:
        raise InputError(f"the workload has no rates of {gpu!r}", fix=f"name one of {', '.join(known)}")
    cost = _least_cost(choices, gpu)
    if not np.isfinite(cost).any():
        return token_measure(spec.workload)
    weight = np.full(spec.workload.grid.shape, np.nan)
    weight[spec.workload.rate_rps > 0] = cost
    text = "GPU time x price on the cheapest config of each size" if gpu is None else f"GPU time on {gpu}"
    return LoadMeasure(weight=_filled(weight, spec.workload), text=text)


def _least_cost(choices: Choices, gpu: str | None) -> FloatArray:
    """(n_buckets,) least cost of a request over the configs, each filling its machine; inf where none serves it."""
    usable = np.array([gpu in (None, config.instance.gpu) for config in choices.configs])
    price = _gpu_time_price(choices)
    rate = np.where(usable, np.nan_to_num(choices.max_rate_rps), 0.0)
    with np.errstate(divide="ignore"):
        cost: FloatArray = np.min(np.where(rate > 0, price / rate, np.inf), axis=1)
    return cost


def _gpu_time_price(choices: Choices) -> FloatArray:
    """(n_configs,) what a replica's GPUs cost an hour; owned ones as much as rented ones of the type do at the least.

    Where none is on offer, as much as the cheapest rented GPU; 1 where nothing is rented.
    """
    machines = [config.instance for config in choices.configs]
    paid = {m.gpu: m.price_usd_per_hour / m.gpus for m in sorted(machines, key=lambda m: -m.price_usd_per_hour / m.gpus)
            if not m.owned}  # fmt: skip
    other = min(paid.values(), default=1.0)
    return np.array(
        [
            config.tp * (paid.get(m.gpu, other) if m.owned else m.price_usd_per_hour / m.gpus)
            for config, m in zip(choices.configs, machines, strict=True)
        ]
    )


def _filled(weight: FloatArray, workload: Workload) -> FloatArray:
    """The weights with those of buckets that nobody serves put in by tokens, at the others' mean weight per token."""
    tokens, known = token_measure(workload).weight, np.isfinite(weight)
    per_token = float((workload.rate_rps[known] * weight[known]).sum() / (workload.rate_rps * tokens)[known].sum())
    return np.where(known, weight, tokens * per_token)


def load_scale_of(
    spec: WorkloadSpec, statistic: str | None = None, *, margin: float = 0.0, profile: Profile | None = None
) -> LoadScale:
    """What to multiply the workload's rate by so that its load is the statistic of its windows', plus a margin.

    The mix of sizes stays the whole's: its rate is scaled until it is as much load as the window is. For fleets that
    keep windows of any mix, solve them together. InputError for a statistic of a workload without windows.
    """
    workload = spec.workload
    windows = len(workload.windows)
    if statistic is None or statistic == "mean":
        return LoadScale(statistic=statistic, windows=windows, margin=margin)
    if not windows:
        raise InputError(
            f"workload {workload.name} has no windows to take the {statistic} load of",
            fix="make it from a trace with times, or give requests per second",
        )
    measure = load_measure(spec, profile=profile)
    ratio = drift_of(workload, measure.weight).load_at(statistic)
    return LoadScale(statistic=statistic, load_ratio=ratio, windows=windows, measure=measure.text, margin=margin)
