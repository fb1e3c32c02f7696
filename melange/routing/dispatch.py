"""The routing decision as plain functions over arrays: compiled in the simulator, called one by one in a router."""

from __future__ import annotations

import numpy as np

from melange.arrays import FloatArray
from melange.routing.compiled import compiled, compiled_part
from melange.routing.policy import (
    ACROSS_FLEET,
    ACROSS_SHARES,
    ESTIMATE_INPUT_ONLY,
    ESTIMATE_ORACLE,
    ESTIMATE_PAPER,
    LEAST_PRESSURE,
    LEAST_TOKENS,
    RANDOM,
    ROUND_ROBIN,
    WEIGHTED_RANDOM,
    Codes,
)
from melange.routing.table import (
    BASE_S,
    BOUNDED_KV,
    BOUNDED_READ,
    COMPUTE_S,
    E2E,
    KV_S,
    KV_TOKENS,
    MAX_SEQUENCES,
    PER_SEQUENCE_S,
    PROMPT_S,
    TPOT,
    TPOT_PER_TOKEN,
    TTFT,
    WEIGHTS_S,
    RoutingState,
    RoutingTable,
)

# A config's number that stands for all of them, and a replica's that stands for none.
WHOLE_FLEET = -1
NOWHERE = -1

# How far a config may run ahead of its share or behind it, in requests: what it missed while down is not made up for.
MOST_CREDIT = 32.0
# Configs without a share come after all that have one.
NO_SHARE = -1e9


@compiled_part
def bucket_of(edges: np.ndarray, tokens: int) -> int:
    """Index of the first upper edge that is not below ``tokens``; the last one for larger sizes."""
    for index in range(len(edges)):
        if tokens <= edges[index]:
            return index
    return len(edges) - 1


@compiled
def estimate_row(
    table: RoutingTable, state: RoutingState, codes: Codes, input_tokens: int, output_tokens: int, draws: FloatArray
) -> int:
    """The row that the policy's estimator gives a request; only predictor and oracle look at its true output."""
    n_out = len(table.output_edges)
    i = bucket_of(table.input_edges, input_tokens)
    if codes.estimator == ESTIMATE_PAPER:
        mean = state.seen_tokens[i] / state.seen_count[i]
        return i * n_out + bucket_of(table.output_edges, int(np.ceil(mean)))
    if codes.estimator == ESTIMATE_INPUT_ONLY:
        return len(table.input_edges) * n_out + i
    true = bucket_of(table.output_edges, output_tokens)
    if codes.estimator == ESTIMATE_ORACLE or draws[0] < codes.accuracy:
        return i * n_out + true
    left = draws[1] * (1.0 - table.output_mix[i, true])
    for o in range(n_out):
        if o != true:
            left -= table.output_mix[i, o]
            if left < 0.0:
                return i * n_out + o
    return i * n_out + true


@compiled_part
def pressure(
    table: RoutingTable, state: RoutingState, replica: int, input_tokens: int, expected_output: float
) -> float:
    """How near a replica comes to its limits with one request more: 1 is at a limit.

    The largest of sequences and KV tokens over their room, and of predicted TPOT, TTFT and E2E over their limits. A
    step takes the clock's time at the context in flight (inputs and half the outputs); between two tokens of a request,
    each request in flight brings one prompt per output (those that leave are replaced); prompts without a first
    token are computed one after the other.
    """
    clock = table.clock[table.config_of[replica]]
    sequences = state.requests[replica] + 1.0
    inputs = state.input_tokens[replica] + input_tokens
    outputs = max(state.output_tokens[replica] + expected_output, 1.0)
    context = inputs + outputs / 2.0
    full = max(sequences / clock[MAX_SEQUENCES], (context + clock[BOUNDED_KV] * sequences) / clock[KV_TOKENS])
    weights = max(clock[WEIGHTS_S], clock[COMPUTE_S] * sequences)
    step = clock[BASE_S] + clock[PER_SEQUENCE_S] * sequences + weights
    step += clock[KV_S] * (context + clock[BOUNDED_READ] * sequences)
    ttft = step + clock[PROMPT_S] * (state.prompt_tokens[replica] + input_tokens)
    decode = step + clock[PROMPT_S] * (sequences - 1.0) * inputs / outputs
    tpot = decode + table.limit_s[TPOT_PER_TOKEN] * ttft / max(expected_output, 1.0)
    full = max(full, tpot / table.limit_s[TPOT])
    full = max(full, ttft / table.limit_s[TTFT])
    return float(max(full, (ttft + decode * expected_output) / table.limit_s[E2E]))


@compiled_part
def usable(table: RoutingTable, state: RoutingState, replica: int, row: int) -> bool:
    """Whether a replica is up and its config may serve the row."""
    return bool(state.alive[replica] and table.max_rate_rps[row, table.config_of[replica]] > 0.0)


@compiled_part
def _is_candidate(table: RoutingTable, state: RoutingState, row: int, config: int, replica: int) -> bool:
    """Whether a replica is of a config (or WHOLE_FLEET) and usable for the row."""
    of_it = config == WHOLE_FLEET or table.config_of[replica] == config
    return bool(of_it and usable(table, state, replica, row))


@compiled_part
def _count(table: RoutingTable, state: RoutingState, row: int, config: int) -> int:
    found = 0
    for replica in range(len(table.config_of)):
        if _is_candidate(table, state, row, config, replica):
            found += 1
    return found


@compiled_part
def _nth(table: RoutingTable, state: RoutingState, row: int, config: int, nth: int) -> int:
    """The candidate that comes after ``nth`` others."""
    found = 0
    for replica in range(len(table.config_of)):
        if _is_candidate(table, state, row, config, replica):
            if found == nth:
                return replica
            found += 1
    return NOWHERE


@compiled_part
def _backlog(table: RoutingTable, state: RoutingState, replica: int, row: int) -> float:
    """Tokens in flight, relative to what the replica's config gets through."""
    tokens = state.input_tokens[replica] + state.output_tokens[replica]
    return float(tokens / table.max_rate_rps[row, table.config_of[replica]])


@compiled_part
def _weighted(table: RoutingTable, state: RoutingState, row: int, config: int, draw: float) -> int:
    total = 0.0
    for replica in range(len(table.config_of)):
        if _is_candidate(table, state, row, config, replica):
            total += table.max_rate_rps[row, table.config_of[replica]]
    left, last = draw * total, NOWHERE
    for replica in range(len(table.config_of)):
        if _is_candidate(table, state, row, config, replica):
            left -= table.max_rate_rps[row, table.config_of[replica]]
            last = replica
            if left < 0.0:
                break
    return last


@compiled_part
def _least(
    table: RoutingTable, state: RoutingState, row: int, config: int, input_tokens: int, by_pressure: bool
) -> int:
    best, least = NOWHERE, np.inf
    for replica in range(len(table.config_of)):
        if _is_candidate(table, state, row, config, replica):
            if by_pressure:
                load = pressure(table, state, replica, input_tokens, table.output_tokens[row])
            else:
                load = _backlog(table, state, replica, row)
            if load < least:
                best, least = replica, load
    return best


@compiled_part
def choose_within(
    table: RoutingTable, state: RoutingState, within: int, row: int, config: int, input_tokens: int, draws: FloatArray
) -> int:
    """A usable replica of a config (or WHOLE_FLEET) by the policy's rule; NOWHERE where there is none."""
    if within == WEIGHTED_RANDOM:
        return _weighted(table, state, row, config, draws[2])
    if within in (LEAST_TOKENS, LEAST_PRESSURE):
        return _least(table, state, row, config, input_tokens, within == LEAST_PRESSURE)
    count = _count(table, state, row, config)
    if count == 0:
        return NOWHERE
    if within == ROUND_ROBIN:
        # WHOLE_FLEET's turn is the last.
        state.turn[config] += 1
        return _nth(table, state, row, config, state.turn[config] % count)
    first = _nth(table, state, row, config, int(draws[2] * count))
    if within == RANDOM or count == 1:
        return first
    step = 1 + int(draws[3] * (count - 1))
    second = _nth(table, state, row, config, (int(draws[2] * count) + step) % count)
    return second if _backlog(table, state, second, row) < _backlog(table, state, first, row) else first


@compiled_part
def _next_config(table: RoutingTable, state: RoutingState, row: int, tried: np.ndarray) -> int:
    """The untried config that is furthest behind its share of the row; configs without a share come last."""
    best, most = -1, -np.inf
    for config in range(table.shares.shape[1]):
        if not tried[config] and table.max_rate_rps[row, config] > 0.0:
            credit = state.credit[row, config] + (0.0 if table.shares[row, config] > 0.0 else NO_SHARE)
            if credit > most:
                best, most = config, credit
    return best


@compiled
def choose(
    table: RoutingTable, state: RoutingState, codes: Codes, row: int, input_tokens: int, draws: FloatArray
) -> int:
    """The replica that a request of a row goes to; NOWHERE where no replica that may serve it is up.

    Shares are followed by credits: each request gives every config its share of one and takes one from the config that
    is served, so the counts stay near the target. Under ``spill`` a config whose least loaded replica is beyond the
    spill pressure is passed over; where all are, the least loaded replica of all takes the request.
    """
    if codes.across == ACROSS_FLEET:
        return choose_within(table, state, codes.within, row, WHOLE_FLEET, input_tokens, draws)
    n_config = table.shares.shape[1]
    for config in range(n_config):
        state.credit[row, config] += table.shares[row, config]
    tried = np.zeros(n_config, dtype=np.bool_)
    chosen, least = NOWHERE, np.inf
    for _ in range(n_config):
        config = _next_config(table, state, row, tried)
        if config < 0:
            break
        tried[config] = True
        replica = choose_within(table, state, codes.within, row, config, input_tokens, draws)
        if replica == NOWHERE:
            continue
        if codes.across == ACROSS_SHARES:
            chosen = replica
            break
        load = pressure(table, state, replica, input_tokens, table.output_tokens[row])
        if load < least:
            chosen, least = replica, load
        if load <= table.spill_pressure:
            break
    if chosen != NOWHERE:
        state.credit[row, table.config_of[chosen]] -= 1.0
        for config in range(n_config):
            state.credit[row, config] = min(max(state.credit[row, config], -MOST_CREDIT), MOST_CREDIT)
    return chosen


@compiled
def note_sent(table: RoutingTable, state: RoutingState, replica: int, row: int, input_tokens: int) -> None:
    """Count a request that was sent to a replica."""
    state.requests[replica] += 1
    state.input_tokens[replica] += input_tokens
    state.output_tokens[replica] += table.output_tokens[row]
    state.prompt_tokens[replica] += input_tokens


@compiled
def note_first_token(state: RoutingState, replica: int, input_tokens: int) -> None:
    """Count a request's first token: its prompt is done."""
    state.prompt_tokens[replica] -= input_tokens


@compiled
def note_finished(
    table: RoutingTable, state: RoutingState, replica: int, row: int, input_tokens: int, output_tokens: int
) -> None:
    """Count a finished request, and learn from its output length."""
    state.requests[replica] -= 1
    state.input_tokens[replica] -= input_tokens
    state.output_tokens[replica] -= table.output_tokens[row]
    i = bucket_of(table.input_edges, input_tokens)
    state.seen_tokens[i] += output_tokens
    state.seen_count[i] += 1.0


@compiled
def note_down(state: RoutingState, replica: int) -> None:
    """Count a replica as failed: nothing is in flight on it any more."""
    state.alive[replica] = False
    state.requests[replica] = 0
    state.input_tokens[replica] = 0.0
    state.output_tokens[replica] = 0.0
    state.prompt_tokens[replica] = 0.0
