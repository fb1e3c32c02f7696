"""The number of requests at once as a free choice: the best of many, and more hardware never lowers a rate."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from melange import InputError, Slo, load_catalog
from melange.perfmodel.estimate import max_rates_rps
from melange.perfmodel.hardware import ModelledEngine, missing_memory_gib
from melange.perfmodel.sequences import MOST_CHOICES, best_sequences, suiting_sequences

CATALOG = load_catalog()
P95 = Slo(tpot_s=0.03, tpot_definition="decode", tpot_quantile=0.95)
H100 = ModelledEngine(model=CATALOG.model("llama-3.1-8b"), gpu=CATALOG.gpu("H100"))
SIZES = tuple(axis.ravel() for axis in np.meshgrid([100.0, 1000.0, 4000.0], [50.0, 400.0], indexing="ij"))


@pytest.mark.parametrize("engine", ["vllm", "nanoflow"])
@pytest.mark.parametrize("slo", [P95, Slo(tpot_s=0.05, ttft_s=0.5, attainment=0.99), Slo(tpot_s=0.02)])
def test_it_is_as_good_as_the_best_of_all_numbers(slo, engine):
    modelled = replace(H100, settings=replace(H100.engine, name=engine))
    found = best_sequences(modelled, slo, *SIZES)
    every = [max_rates_rps(replace(modelled, max_num_seqs=n), slo, *SIZES) for n in range(1, 1024, 9)]
    own = max_rates_rps(modelled, slo, *SIZES)
    assert (found.rate_rps >= own).all()
    # Logits of fewer sequences leave the KV cache a little more memory, which the search does without; where batches
    # overlap, rates have more than one peak.
    within = 0.985 if engine == "vllm" else 0.96
    np.testing.assert_array_less(np.max(every, axis=0) * within, found.rate_rps)
    for cell, number in enumerate(found.max_num_seqs):
        limited = modelled if np.isnan(number) else replace(modelled, max_num_seqs=int(number))
        rate = float(max_rates_rps(limited, slo, *(axis[cell] for axis in SIZES)))
        assert rate == pytest.approx(found.rate_rps[cell], rel=2e-3)


def test_a_limit_on_a_share_of_requests_is_kept_by_running_fewer_at_once():
    found = best_sequences(H100, P95, *SIZES)
    own = max_rates_rps(H100, P95, *SIZES)
    assert (found.rate_rps > 1.02 * own).all()
    longer = found.max_num_seqs[::2]  # of 50 output tokens, by input
    assert (np.diff(longer) < 0).all()


def test_without_a_limit_the_engines_own_is_best():
    found = best_sequences(H100, Slo(), *SIZES)
    assert np.isnan(found.max_num_seqs).all()
    assert found.rate_rps.tolist() == max_rates_rps(H100, Slo(), *SIZES).tolist()


def test_a_few_numbers_do_for_a_demand_of_many_sizes():
    demand = np.ones(len(SIZES[0]))
    cached = np.zeros(len(SIZES[0]))
    numbers = suiting_sequences(H100, P95, *SIZES, cached, demand)
    assert 1 <= len(numbers) <= MOST_CHOICES
    assert sorted(numbers, reverse=True) == list(numbers)
    ways = [H100, *(replace(H100, max_num_seqs=number) for number in numbers)]
    rates = [max_rates_rps(way, P95, *SIZES) for way in ways]
    best = best_sequences(H100, P95, *SIZES).rate_rps
    assert (demand / np.max(rates, axis=0)).sum() < 1.07 * (demand / best).sum()
    lone = suiting_sequences(H100, P95, *SIZES, cached, np.eye(1, len(demand), 0).ravel())
    assert lone == (int(best_sequences(H100, P95, *SIZES).max_num_seqs[0]),)
    assert suiting_sequences(H100, Slo(), *SIZES, cached, demand) == ()


def slos(rng):
    tpot, ttft = rng.choice([0.02, 0.03, 0.05, 0.08, 0.12, 0.2]), rng.choice([0.2, 0.5, 1.0, 2.0, 5.0])
    return [
        Slo(),
        Slo(tpot_s=tpot),
        Slo(tpot_s=tpot, tpot_definition="e2e_per_token"),
        Slo(tpot_s=tpot, ttft_s=ttft),
        Slo(tpot_s=tpot, tpot_quantile=0.95),
        Slo(ttft_s=ttft, ttft_quantile=0.99),
        Slo(tpot_s=tpot, ttft_s=ttft, attainment=rng.choice([0.9, 0.95, 0.99])),
    ]


def engines(rng):
    """Random configurations that fit, on GPUs of no name that kernels were measured on."""
    while True:
        gpu = rng.choice(list(CATALOG.gpus.values()))
        try:
            modelled = ModelledEngine(
                model=rng.choice(list(CATALOG.models.values())),
                gpu=replace(gpu, name=f"described {gpu.name}", aliases=()),
                tp=rng.choice([1, 2, 4, 8]),
                precision=rng.choice(["bf16", "fp8"]),
            )
        except InputError:
            continue
        if not missing_memory_gib(modelled):
            yield modelled


def test_more_memory_bandwidth_or_flops_never_lowers_a_rate():
    rng = random.Random(20261127)
    falls = []
    for modelled, _ in zip(engines(rng), range(150), strict=False):
        slo = rng.choice(slos(rng))
        inputs = np.array([10 ** rng.uniform(1.3, 4.0) for _ in range(8)])
        outputs = np.array([10 ** rng.uniform(0.5, 3.5) for _ in range(8)])
        before = best_sequences(modelled, slo, inputs, outputs).rate_rps
        gpu = modelled.gpu
        for better in (
            replace(gpu, memory_gib=1.5 * gpu.memory_gib),
            replace(gpu, bandwidth_gb_s=1.5 * gpu.bandwidth_gb_s),
            replace(gpu, tflops={kind: 1.5 * rate for kind, rate in gpu.tflops.items()}),
        ):
            # The engine's settings stay: vLLM's own jump with the memory.
            more = replace(modelled, gpu=better, settings=modelled.settings)
            after = best_sequences(more, slo, inputs, outputs).rate_rps
            falls += (1.0 - after / np.where(before > 0, before, 1.0))[before > 0].tolist()
    assert len(falls) > 2500
    # Numbers of sequences are whole and rates come from a search: one in a thousand may be off by a little more.
    assert np.mean(np.array(falls) > 1e-3) <= 1e-3
    assert max(falls) < 0.02
