"""Seeded instances for the solver's benchmark: heterogeneous buckets, GPUs with comparative advantage, TP groups.

A config's capacity comes from a small roofline (compute for the prompt, bandwidth for the decode, memory for the
batch) with noise, so that cheap cards win small requests, large ones win long requests, and no type wins everywhere.
The published specifications are rounded; nothing here is a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from melange.solver.problem import GroupLimit, Lateness, Problem

MODEL_GB, KV_BYTES_PER_TOKEN, MODEL_GFLOP_PER_TOKEN = 13.5, 524_288.0, 13.5


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of GPU: memory in GB, bandwidth in GB/s, dense TFLOPS, price per hour."""

    name: str
    memory_gb: float
    bandwidth_gb_s: float
    tflops: float
    usd_per_hour: float


CARDS = (
    Card("L4", 24, 300, 121, 0.70),
    Card("A10G", 24, 600, 70, 1.01),
    Card("A100", 80, 1935, 312, 3.67),
    Card("H100", 80, 3350, 989, 7.516),
    Card("L40S", 48, 864, 362, 1.86),
    Card("A100-40", 40, 1555, 312, 2.93),
    Card("T4", 16, 320, 65, 0.53),
    Card("H200", 141, 4800, 989, 9.31),
    Card("MI300X", 192, 5300, 1307, 8.47),
    Card("A6000", 48, 768, 155, 1.28),
    Card("H100-NVL", 94, 3900, 835, 6.98),
    Card("B200", 180, 8000, 2250, 14.24),
)


@dataclass(frozen=True, slots=True)
class Offer:
    """A rented machine: a card, how many of it, and the TP degrees at which configs run on it."""

    card: Card
    gpus: int
    degrees: tuple[int, ...]


def offers(n_configs: int) -> list[Offer]:
    """Single-GPU offers first, then machines of four and eight GPUs shared by configs of several TP degrees."""
    n_single = max(4, min(len(CARDS), n_configs // 2))
    found = [Offer(card, 1, (1,)) for card in CARDS[:n_single]]
    left = n_configs - n_single
    for index in range(left):
        if left <= 0:
            break
        card, gpus = CARDS[(2 + index) % len(CARDS)], (8, 4)[index % 2]
        degrees = ((1, 4), (1, 2, 4), (2, 8))[index % 3] if gpus == 8 else ((1, 2), (4,))[index % 2]
        found.append(Offer(card, gpus, degrees[:left]))
        left -= len(degrees[:left])
    return found


def capacity_rps(card: Card, tp: int, input_tokens: float, output_tokens: float) -> float:
    """Requests per second that ``tp`` GPUs sustain at this size; 0 where one request does not fit."""
    usable_gb = 0.9 * card.memory_gb * tp - MODEL_GB
    batch = usable_gb * 1e9 / (KV_BYTES_PER_TOKEN * (input_tokens + output_tokens))
    if batch < 1:
        return 0.0
    batch = min(batch, 256.0)
    scaling = tp * 0.93 ** np.log2(tp)
    prefill_s = input_tokens * MODEL_GFLOP_PER_TOKEN / (0.5e3 * card.tflops * scaling)
    context_gb = batch * KV_BYTES_PER_TOKEN * (input_tokens + output_tokens / 2) / 1e9
    step_s = (MODEL_GB + context_gb) / (0.7 * card.bandwidth_gb_s * scaling) + 0.004
    return float(1.0 / (prefill_s + output_tokens * step_s / batch))


def generate(
    n_buckets: int,
    n_configs: int,
    rate_rps: float,
    seed: int,
    *,
    slice_factor: int | None = None,
    single_gpu: bool = False,
) -> Problem:
    """A problem of the given size: lognormal demand over a size grid, noisy capacities and prices.

    ``single_gpu`` rents every card alone (the paper's setting, at most 12 types) instead of adding shared machines.
    """
    rng = np.random.default_rng([seed, n_buckets, n_configs])
    side = int(np.ceil(np.sqrt(n_buckets)))
    inputs, outputs = np.geomspace(25, 12_000, side), np.geomspace(25, 2_000, side)
    cells = [(i, o) for i in inputs for o in outputs][:n_buckets]
    demand = np.exp(rng.normal(0, 1.5, n_buckets))
    rates = rate_rps * demand / demand.sum()
    rented = [Offer(card, 1, (1,)) for card in CARDS[:n_configs]] if single_gpu else offers(n_configs)
    configs = [(k, tp) for k, offer in enumerate(rented) for tp in offer.degrees]
    load = np.full((n_buckets, n_configs), np.inf)
    for c, (k, tp) in enumerate(configs):
        tilt = rng.normal(0, 0.08, 2)
        for b, (i, o) in enumerate(cells):
            capacity = capacity_rps(rented[k].card, tp, i, o)
            noise = np.exp(rng.normal(0, 0.05) + tilt[0] * np.log(i / 500) / 3 + tilt[1] * np.log(o / 200) / 3)
            if capacity > 0:
                load[b, c] = rates[b] / (capacity * noise)
    discount = rng.uniform(0.9, 1.1, len(rented))
    price = [round(offer.card.usd_per_hour * offer.gpus * d, 3) for offer, d in zip(rented, discount, strict=True)]
    names = [f"{offer.card.name}x{offer.gpus}#{k}" for k, offer in enumerate(rented)]
    return Problem(
        buckets=tuple(f"{b}:{i:.0f}/{o:.0f}" for b, (i, o) in enumerate(cells)),
        configs=tuple(f"{names[k]}/tp{tp}" for k, tp in configs),
        instances=tuple(names),
        load=load,
        config_instance=np.array([k for k, _ in configs]),
        gpus_per_replica=np.array([tp for _, tp in configs]),
        gpus_per_instance=np.array([offer.gpus for offer in rented]),
        price_usd_per_hour=np.array(price),
        slice_factor=slice_factor,
    )


def random_problem(seed: int) -> Problem:
    """A small problem of any kind: loads over several decades, machines that replicas share, caps, floors, budgets.

    A third have whole slices. Some loads are round numbers, whose sums fill replicas exactly; some buckets have no
    config, some limits exclude one another.
    """
    rng = np.random.default_rng([seed, 11])
    n_b, n_i = int(rng.integers(2, 13)), int(rng.integers(1, 7))
    gpus = rng.choice([1, 1, 1, 2, 4, 8], n_i)
    configs = []
    for i, size in enumerate(gpus.tolist()):
        degrees = [d for d in (1, 2, 4, 8) if d <= size]
        chosen = rng.choice(degrees, int(rng.integers(1, min(2, len(degrees)) + 1)), replace=False)
        configs += [(i, int(tp)) for tp in sorted(chosen)]
    slices = None if rng.random() < 2 / 3 else int(rng.choice([1, 2, 3, 4, 8]))
    n_b = n_b if slices is None else min(n_b, 7)
    load = _random_loads(rng, n_b, len(configs))
    keys = tuple(f"i{i}" for i in range(n_i))
    price = np.round(np.exp(rng.normal(0.5, 0.9, n_i)) * gpus + 0.05, int(rng.integers(1, 4)))
    return Problem(
        buckets=tuple(f"b{b}" for b in range(n_b)),
        configs=tuple(f"i{i}/tp{tp}" for i, tp in configs),
        instances=keys,
        load=load,
        config_instance=np.array([i for i, _ in configs]),
        gpus_per_replica=np.array([tp for _, tp in configs]),
        gpus_per_instance=gpus,
        price_usd_per_hour=price,
        limits=_random_limits(rng, keys, gpus.tolist()),
        max_cost_usd_per_hour=round(float(load[np.isfinite(load)].mean() * n_b), 1) + 1 if rng.random() < 0.1 else None,
        slice_factor=slices,
    )


def with_lateness(problem: Problem, seed: int) -> Problem:
    """The problem with requests that may be late: buckets of very unequal sizes, loads at or below those in time.

    Half of what cannot be served in time can be served late; a tenth of the weights differs between configs, as it does
    for buckets that a router cannot tell apart.
    """
    rng = np.random.default_rng([seed, 12])
    shape = problem.load.shape
    share = np.exp(rng.normal(0, 2, (shape[0], 1)))
    weight = np.repeat(share / share.sum(), shape[1], axis=1)
    weight = np.where(rng.random(shape) < 0.1, weight * rng.random(shape), weight)
    usual = np.where(np.isfinite(problem.load), problem.load, np.nan_to_num(problem.load, posinf=0).max() or 1.0)
    load = np.where(np.isfinite(problem.load) | (rng.random(shape) < 0.5), usual * rng.uniform(0.1, 1.1, shape), np.inf)
    at_most = float(rng.choice([0.0005, 0.005, 0.025, 0.05, 0.25]))
    return replace(problem, lateness=Lateness(load=load, weight=weight, at_most=at_most))


def _random_loads(rng: np.random.Generator, n_b: int, n_c: int) -> np.ndarray:
    if rng.random() < 0.4:  # a few digits only, unrelated between configs
        load = np.maximum(np.round(np.exp(rng.normal(0.5, 1.5, (n_b, n_c))), int(rng.integers(0, 3))), 0.1)
        load[rng.random((n_b, n_c)) < 0.15] = np.inf
        load[~np.isfinite(load).any(axis=1)] = 1.0
        return load
    total = float(np.exp(rng.uniform(np.log(0.3), np.log(60))))
    load = np.exp(rng.normal(0, rng.uniform(0.3, 2), (n_b, 1)) + rng.normal(0, rng.uniform(0.1, 1.5), (n_b, n_c)))
    load *= total / load.min(axis=1).sum()
    style = rng.random()
    if style < 0.35:
        load = np.maximum(np.round(load, 2), 0.01)
    elif style < 0.5:
        load = 1 / np.maximum(np.round(1 / load, 1), 0.1)
    load[rng.random((n_b, n_c)) < rng.choice([0, 0.1, 0.3])] = np.inf
    if rng.random() < 0.97:
        stuck = ~np.isfinite(load).any(axis=1)
        load[stuck] = 1.0
    return load


def _random_limits(rng: np.random.Generator, keys: tuple[str, ...], gpus: list[int]) -> tuple[GroupLimit, ...]:
    limits = []
    for key in keys:
        chance = rng.random()
        if chance < 0.2:
            limits.append(GroupLimit(name=key, weights={key: 1}, maximum=int(rng.integers(0, 9))))
        elif chance < 0.3:
            low = int(rng.integers(1, 3))
            limits.append(GroupLimit(name=key, weights={key: 1}, minimum=low, maximum=low + int(rng.integers(0, 9))))
    if rng.random() < 0.2:
        weights = dict(zip(keys, gpus, strict=True))
        limits.append(GroupLimit(name="GPUs", weights=weights, maximum=int(rng.integers(4, 40))))
    return tuple(limits)
