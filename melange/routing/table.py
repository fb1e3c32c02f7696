"""RoutingTable and RoutingState: the arrays that a routing decision reads and writes.

Rows stand for what a router believes of a request: row ``i * n_output + o`` for a request of input bucket i and output
bucket o, row ``n_input * n_output + i`` for one whose output length is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.errors import InputError
from melange.perfmodel.clock import StepClock
from melange.perfmodel.floor import least_s
from melange.plan.bucket import PlanBucket
from melange.plan.plan import Plan

# Columns of RoutingTable.clock.
BASE_S, PER_SEQUENCE_S, WEIGHTS_S, COMPUTE_S, KV_S, PROMPT_S, KV_TOKENS, MAX_SEQUENCES, BOUNDED_READ, BOUNDED_KV = (
    range(10)
)
# Entries of RoutingTable.limit_s.
TPOT, TTFT, E2E, TPOT_PER_TOKEN = range(4)

# Share of a latency limit or of a replica's room beyond which the default policy looks at the next config. Well below
# 1: the lengths of those in flight are guesses, and those to come are not known at all.
SPILL_PRESSURE = 0.6

# Prompt size at which a replica's speed on prompts is taken: short ones hide behind reading the weights.
TYPICAL_PROMPT_TOKENS = 1024


class RoutingTable(NamedTuple):
    """What does not change while requests arrive. n_row as in the module's docstring.

    ``shares``: (n_row, n_config), target mix, rows sum to 1. ``max_rate_rps``: (n_row, n_config), 0 = may not serve.
    ``output_tokens``: (n_row,) expected output. ``output_mix``: (n_input, n_output), the share of each output bucket
    among requests of an input bucket. ``config_of``: (n_replica,). ``clock``: (n_config, 8), the columns named above.
    ``limit_s``: (4,) TPOT, TTFT and E2E limit, infinite where there is none, and 1 where TPOT includes TTFT.
    """

    input_edges: IntArray
    output_edges: IntArray
    shares: FloatArray
    max_rate_rps: FloatArray
    output_tokens: FloatArray
    output_mix: FloatArray
    config_of: IntArray
    clock: FloatArray
    limit_s: FloatArray
    spill_pressure: float


class RoutingState(NamedTuple):
    """What a router keeps count of.

    ``credit``: (n_row, n_config), how far each config is behind its share, in requests. ``turn``: (n_config + 1,),
    round-robin positions, the last one over the whole fleet. ``seen_tokens``, ``seen_count``: (n_input,), outputs of
    finished requests. Per replica: ``requests`` in flight, their ``input_tokens`` and expected ``output_tokens``,
    ``prompt_tokens`` without a first token yet, and whether it is ``alive``.
    """

    credit: FloatArray
    turn: IntArray
    seen_tokens: FloatArray
    seen_count: FloatArray
    requests: IntArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    prompt_tokens: FloatArray
    alive: BoolArray


def routing_table(
    plan: Plan, clocks: Mapping[str, StepClock], *, spill_pressure: float = SPILL_PRESSURE
) -> RoutingTable:
    """The table of a solved plan; its configs in use in the plan's order, a row per replica in that order.

    ``clocks`` holds the step clock of every config in use. InputError for a plan without a fleet, or whose buckets
    have no sizes.
    """
    configs = fleet_configs(plan)
    grid = plan.grid
    n_in, n_out = grid.shape
    edges = np.array([(b.input_tokens_max, b.output_tokens_max) for b in plan.buckets], dtype=np.int64)
    cell = grid.locate(edges[:, 0], edges[:, 1])
    rate = np.zeros(n_in * n_out)
    np.add.at(rate, cell, [b.rate_rps for b in plan.buckets])
    tokens = np.array(grid.output_edges_tokens, float)[np.arange(n_in * n_out) % n_out]
    tokens[cell] = [b.mean_output_tokens or b.output_tokens_max for b in plan.buckets]
    shares, max_rate = np.zeros((n_in * n_out, len(configs))), np.zeros((n_in * n_out, len(configs)))
    shares[cell] = [[b.share_of(name) for name in configs] for b in plan.buckets]
    max_rate[cell] = [[_rate_rps(b, name, clocks[name]) for name in configs] for b in plan.buckets]
    mix = _normalised(rate.reshape(n_in, n_out))
    counts = [plan.replicas[name] for name in configs]
    return RoutingTable(
        input_edges=np.array(grid.input_edges_tokens, dtype=np.int64),
        output_edges=np.array(grid.output_edges_tokens, dtype=np.int64),
        shares=_with_marginals(shares, rate, n_in, n_out),
        max_rate_rps=_with_harmonic_marginals(max_rate, rate, n_in, n_out),
        output_tokens=np.concatenate([tokens, (mix * tokens.reshape(n_in, n_out)).sum(axis=1)]),
        output_mix=mix,
        config_of=np.repeat(np.arange(len(configs)), counts),
        clock=np.array([_clock_row(clocks[name]) for name in configs]),
        limit_s=_limits(plan),
        spill_pressure=spill_pressure,
    )


def _rate_rps(bucket: PlanBucket, config: str, clock: StepClock) -> float:
    """A bucket's max rate on a config; where it is sent some of it late, that without the limit.

    At the least time that its requests take where the plan does not know it.
    """
    rate = bucket.max_rate_rps.get(config) or 0.0
    inputs, outputs = bucket.load_input_tokens, bucket.load_output_tokens
    if rate > 0 or not bucket.share_of(config):
        return rate
    late = bucket.late_rate_rps.get(config, 0.0)
    if late > 0 or inputs is None or outputs is None:
        return late
    return 1.0 / float(least_s(clock, inputs, outputs))


def new_state(table: RoutingTable) -> RoutingState:
    """No requests in flight; the plan's mean outputs count as one observation of each input bucket."""
    n_row, n_config = table.shares.shape
    n_in, n_replica = len(table.input_edges), len(table.config_of)
    return RoutingState(
        credit=np.zeros((n_row, n_config)),
        turn=np.zeros(n_config + 1, dtype=np.int64),
        seen_tokens=table.output_tokens[-n_in:].copy(),
        seen_count=np.ones(n_in),
        requests=np.zeros(n_replica, dtype=np.int64),
        input_tokens=np.zeros(n_replica),
        output_tokens=np.zeros(n_replica),
        prompt_tokens=np.zeros(n_replica),
        alive=np.ones(n_replica, dtype=np.bool_),
    )


def fleet_configs(plan: Plan) -> tuple[str, ...]:
    """Names of the configs that the plan runs replicas of."""
    names = tuple(name for name in plan.configs if plan.replicas.get(name))
    if not names:
        raise InputError("the plan rents nothing", fix="solve a workload that some fleet can serve")
    return names


def _clock_row(clock: StepClock) -> list[float]:
    row = [0.0] * 10
    idle, one = (float(clock.iteration_s(decodes=n, kv_tokens=0.0) - clock.gemm_s(n)) for n in (0, 1))
    prompt = clock.iteration_s(
        decodes=0.0,
        kv_tokens=0.0,
        prefill_tokens=TYPICAL_PROMPT_TOKENS,
        prefill_pairs=clock.prefill_pairs(TYPICAL_PROMPT_TOKENS),
        prefills=1.0,
        new_requests=1.0,
    )
    row[BASE_S], row[PER_SEQUENCE_S] = idle, one - idle
    row[WEIGHTS_S] = clock.weights_s + clock.expert_weights_s
    row[COMPUTE_S] = clock.compute_s_per_token
    row[KV_S] = clock.kv_read_s_per_token
    row[PROMPT_S] = float(prompt) / TYPICAL_PROMPT_TOKENS
    row[KV_TOKENS] = clock.kv_capacity_tokens
    row[MAX_SEQUENCES] = clock.max_num_seqs
    row[BOUNDED_READ] = float(clock.bounded_read_tokens(TYPICAL_PROMPT_TOKENS))
    row[BOUNDED_KV] = float(clock.held_tokens(TYPICAL_PROMPT_TOKENS)) - TYPICAL_PROMPT_TOKENS
    return row


def _limits(plan: Plan) -> FloatArray:
    slo = plan.slo
    limits = [np.inf if value is None else value for value in (slo.tpot_s, slo.ttft_s, slo.e2e_s)]
    return np.array([*limits, float(slo.tpot_definition == "e2e_per_token")])


def _normalised(rows: FloatArray) -> FloatArray:
    """Rows scaled to sum to 1; a row of zeros takes the mix of all rows."""
    overall = rows.sum(axis=0)
    filled = np.where(rows.sum(axis=1, keepdims=True) > 0, rows, overall)
    total = filled.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(filled, total, out=np.full(filled.shape, 1 / rows.shape[1]), where=total > 0))


def _nearest_filled(values: FloatArray, known: BoolArray, n_in: int, n_out: int) -> FloatArray:
    """Cells without demand take the values of the nearest cell with some, by steps on the grid; if any has some."""
    cells: Sequence[int] = np.flatnonzero(known).tolist()
    filled = values.copy()
    for cell in np.flatnonzero(~known) if cells else ():
        i, o = divmod(int(cell), n_out)
        filled[cell] = values[min(cells, key=lambda k: (abs(k // n_out - i) + abs(k % n_out - o), k))]
    return filled


def _with_marginals(shares: FloatArray, rate: FloatArray, n_in: int, n_out: int) -> FloatArray:
    """Every cell's shares, then each input bucket's: the mean over its outputs, weighted by rate."""
    served = shares.sum(axis=1) > 0
    cells = _normalised(_nearest_filled(shares, served, n_in, n_out))
    weight = (rate * served).reshape(n_in, n_out)
    marginal = np.einsum("io,ioc->ic", weight, cells.reshape(n_in, n_out, -1))
    empty = np.flatnonzero(marginal.sum(axis=1) == 0)
    marginal[empty] = cells.reshape(n_in, n_out, -1)[empty, 0]
    return np.concatenate([cells, _normalised(marginal)])


def _with_harmonic_marginals(max_rate: FloatArray, rate: FloatArray, n_in: int, n_out: int) -> FloatArray:
    """Every cell's max rates, then each input bucket's: 1 / mean replica-seconds, 0 where some output has no rate."""
    known = max_rate.sum(axis=1) > 0
    cells = _nearest_filled(max_rate, known, n_in, n_out)
    weight = _normalised(rate.reshape(n_in, n_out))[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = np.where(weight > 0, weight / cells.reshape(n_in, n_out, -1), 0.0).sum(axis=1)
        marginal = np.where(seconds > 0, 1.0 / seconds, 0.0)
    return np.concatenate([cells, marginal])
