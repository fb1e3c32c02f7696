"""Small workloads and profiles in which some GPU types cannot serve some sizes in time, but late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange import ProfileChoice, SizeGrid, Slo, SolveOptions, Workload, WorkloadSpec
from melange.arrays import FloatArray
from melange.capacity.profile import Profile, profile_from
from melange.catalog.instances import InstanceType
from melange.catalog.offers import PriceChoice
from melange.measurements.measurement import Measurement

GPUS, PRICES = ("L4", "A10G", "H100"), (0.7, 1.0, 7.0)
SIZES = (100, 400, 1000)
SLO = Slo(tpot_s=0.1, attainment=0.9)
EXACT = SolveOptions(gap=0.0)


def workload(rates: list[float], slo: Slo = SLO) -> WorkloadSpec:
    """Requests of 100 output tokens, at one rate for each input size, and an offer of each GPU."""
    n = len(rates)
    sizes = np.array(SIZES[:n], dtype=float)[:, None]
    made = Workload(
        name="w",
        grid=SizeGrid(input_edges_tokens=SIZES[:n], output_edges_tokens=(100,)),
        rate_rps=np.array(rates)[:, None],
        mean_input_tokens=sizes,
        mean_output_tokens=np.full((n, 1), 100.0),
        mean_product_tokens2=100 * sizes,
        mean_cached_tokens=np.zeros((n, 1)),
        slo=slo,
    )
    offers = tuple(
        InstanceType(name=gpu, gpu=gpu, gpus=1, price_usd_per_hour=usd, memory_gib=24, price_set="x")
        for gpu, usd in zip(GPUS, PRICES, strict=True)
    )
    return WorkloadSpec(
        workload=made, profiles=ProfileChoice(files=("u",)), prices=PriceChoice(price_set="x"), offers=offers
    )


def profile_of(
    capacity_rps: dict[str, list[float]], slo: Slo = SLO, unlimited_rps: dict[str, list[float]] | None = None
) -> Profile:
    """Capacities by GPU and input size, in time and without a limit; NaN is not measured."""
    points = [
        Measurement(model="m", gpu=gpu, input_tokens=i, output_tokens=100, loop="capacity", achieved_rps=rate)
        for gpu, rates in capacity_rps.items()
        for i, rate in zip(SIZES, rates, strict=False)
        if not np.isnan(rate)
    ]
    profile = profile_from(points, slo, assume_slo=True)
    if unlimited_rps is None or not slo.may_miss:
        return profile
    tables = {
        key: replace(table, unlimited_rps=_at_sizes(table.input_tokens, unlimited_rps[key.gpu]))
        for key, table in profile.configs.items()
    }
    return replace(profile, configs=tables)


def _at_sizes(input_tokens: FloatArray, rates: list[float]) -> FloatArray:
    by_size = dict(zip(SIZES, rates, strict=False))
    return np.array([[by_size[int(size)]] for size in input_tokens])
