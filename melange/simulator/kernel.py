"""The fleet's events in order: arrivals, ends of iterations, failures and samples of the queues."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.routing.compiled import compiled, compiled_part
from melange.routing.dispatch import (
    NOWHERE,
    choose,
    estimate_row,
    note_down,
    note_finished,
    note_first_token,
    note_sent,
)
from melange.routing.policy import Codes
from melange.routing.table import RoutingState, RoutingTable
from melange.simulator.batching import (
    begin_iteration,
    blocks_for,
    bound,
    coast,
    dequeue,
    enqueue,
    leave_decoding,
    refresh_due,
    refresh_next_finish,
)
from melange.simulator.state import NEVER, NONE, Machines


class Run(NamedTuple):
    """Everything that one simulation reads and writes.

    ``draws``: (n, 4) uniform numbers for estimates and random choices. ``parked``: (2,) head and tail of the requests
    that no replica could take. ``event_s``, ``event_replica``, ``event_up``: replicas that go down or come up.
    ``sample_s``: (n_sample,) when queues are looked at; ``sampled``: (n_sample, n_config, 3) waiting and running
    requests and replicas that are up.
    """

    machines: Machines
    table: RoutingTable
    routing: RoutingState
    draws: FloatArray
    parked: IntArray
    event_s: FloatArray
    event_replica: IntArray
    event_up: IntArray
    sample_s: FloatArray
    sampled: IntArray


@compiled_part
def finish(run: Run, r: int, index: int, now: float) -> None:
    """Record a request's end and tell the router."""
    request = run.machines.requests[index]
    request.end_s = now
    request.generated = request.output_tokens
    note_finished(run.table, run.routing, r, request.row, request.input_tokens, request.output_tokens)


@compiled_part
def end_decodes(run: Run, r: int, now: float) -> None:
    """Let go the decoding requests that have all their tokens; the others move up."""
    m = run.machines
    replica = m.replicas[r]
    decoding, kept = replica.n_decoding, 0
    for place in range(replica.n_running):
        index = m.running[r, place]
        if place < decoding and m.requests[index].finish_step <= replica.steps:
            leave_decoding(m, r, m.requests[index])
            finish(run, r, index, now)
        else:
            m.running[r, kept] = index
            kept += 1
    replica.n_running = kept
    refresh_next_finish(m, r)


@compiled_part
def end_prompts(run: Run, r: int, now: float) -> None:
    """Give the requests whose prompt is done their token; they decode from now on, or are finished with it."""
    m = run.machines
    replica = m.replicas[r]
    size = m.engines[replica.config].block_tokens
    kept = replica.n_decoding
    for place in range(replica.n_decoding, replica.n_running):
        index = m.running[r, place]
        request = m.requests[index]
        if request.computed >= request.target:
            if np.isnan(request.first_s):
                request.first_s = now
                note_first_token(run.routing, r, request.input_tokens)
            left = request.output_tokens - request.generated - 1
            if left == 0:
                replica.free_blocks += blocks_for(request.computed, size) + request.bounded_blocks
                finish(run, r, index, now)
                continue
            replica.n_decoding += 1
            request.finish_step = replica.steps + left
            replica.next_finish = min(replica.next_finish, request.finish_step)
            request.phase = (request.computed - replica.steps) % size
            m.phase[r, request.phase] += 1
            replica.kv_tokens += request.computed
            replica.bounded_tokens += request.bounded_tokens
        m.running[r, kept] = index
        kept += 1
    replica.n_running = kept


@compiled_part
def advance(run: Run, r: int, until_s: float) -> None:
    """Play a replica's iterations that end by a time."""
    m = run.machines
    replica = m.replicas[r]
    while replica.end_s <= until_s and replica.end_s < np.inf:
        coast(m, r, until_s)
        if replica.end_s > until_s:
            break
        now = replica.end_s
        if replica.decodes and replica.n_decoding > 0:
            replica.steps += 1
            replica.kv_tokens += replica.n_decoding
            if replica.steps >= replica.next_finish:
                end_decodes(run, r, now)
        if replica.n_running > replica.n_decoding:
            end_prompts(run, r, now)
        begin_iteration(m, r, now)
    refresh_due(m, r)


@compiled_part
def park(run: Run, index: int) -> None:
    """Put aside a request that no replica can take."""
    requests = run.machines.requests
    requests[index].following = NONE
    if run.parked[0] == NONE:
        run.parked[0] = index
    else:
        requests[run.parked[1]].following = index
    run.parked[1] = index


@compiled_part
def send(run: Run, codes: Codes, index: int, now: float) -> None:
    """Route a request; park it where no replica is up, refuse it (NaN times) where it can never fit."""
    m = run.machines
    request = m.requests[index]
    tokens, output, draws = request.input_tokens, request.output_tokens, run.draws[index]
    row = estimate_row(run.table, run.routing, codes, tokens, output, draws)
    r = choose(run.table, run.routing, codes, row, tokens, draws)
    request.row = row
    if r == NOWHERE:
        park(run, index)
        return
    advance(run, r, now)
    engine = m.engines[m.replicas[r].config]
    request.replica = r
    bound(engine, request)
    if blocks_for(tokens + output - 1, engine.block_tokens) + request.bounded_blocks > engine.blocks:
        return
    note_sent(run.table, run.routing, r, row, tokens)
    request.target = tokens
    enqueue(m, r, index, False)
    if m.replicas[r].end_s == np.inf:
        begin_iteration(m, r, now)
    refresh_due(m, r)


@compiled_part
def orphan(run: Run, r: int) -> int:
    """Empty a failed replica; the first of its requests, linked in their order, each to start again from nothing."""
    m = run.machines
    replica = m.replicas[r]
    first, last = NONE, NONE
    running, decoding = replica.n_running, replica.n_decoding
    for place in range(running + replica.n_waiting):
        index = m.running[r, place] if place < running else dequeue(m, r)
        request = m.requests[index]
        done = request.generated
        if place < decoding:
            done = request.output_tokens - request.finish_step + replica.steps
        replica.tokens_lost += done
        request.generated = 0
        request.computed = 0
        request.first_s = np.nan
        request.restarts += 1
        request.following = NONE
        if first == NONE:
            first = index
        else:
            m.requests[last].following = index
        last = index
    replica.n_running = 0
    replica.n_decoding = 0
    replica.kv_tokens = 0
    replica.bounded_tokens = 0.0
    replica.free_blocks = m.engines[replica.config].blocks
    replica.next_finish = NEVER
    m.phase[r, :] = 0
    return first


@compiled_part
def send_chain(run: Run, codes: Codes, first: int, now: float) -> None:
    """Route linked requests one after the other."""
    index = first
    while index != NONE:
        following = run.machines.requests[index].following
        send(run, codes, index, now)
        index = following


@compiled_part
def change_replica(run: Run, codes: Codes, event: int) -> None:
    """A replica goes down and its requests go elsewhere, or it comes up and takes what was parked."""
    r, now = run.event_replica[event], run.event_s[event]
    replica = run.machines.replicas[r]
    if run.event_up[event]:
        run.routing.alive[r] = True
        first = run.parked[0]
        run.parked[0] = NONE
        run.parked[1] = NONE
        send_chain(run, codes, first, now)
    elif run.routing.alive[r]:
        note_down(run.routing, r)
        if replica.end_s < np.inf:
            replica.busy_s -= replica.end_s - now
            replica.end_s = np.inf
            replica.due_s = np.inf
        send_chain(run, codes, orphan(run, r), now)


@compiled_part
def sample(run: Run, index: int) -> None:
    """Count waiting and running requests, and replicas that are up, per config."""
    for r in range(len(run.machines.replicas)):
        replica = run.machines.replicas[r]
        run.sampled[index, replica.config, 0] += replica.n_waiting
        run.sampled[index, replica.config, 1] += replica.n_running
        run.sampled[index, replica.config, 2] += 1 if run.routing.alive[r] else 0


@compiled
def play(run: Run, codes: Codes) -> None:
    """Play all arrivals, failures and samples in order of time, then until everything is served.

    At an arrival only the replicas are played on whose news the router may hear by then, and the one that it chooses.
    """
    requests, replicas = run.machines.requests, run.machines.replicas
    arrivals, events, samples = len(requests), len(run.event_s), len(run.sample_s)
    request, event, index = 0, 0, 0
    while request < arrivals or event < events or index < samples:
        arrival_s = requests[request].arrival_s if request < arrivals else np.inf
        event_s = run.event_s[event] if event < events else np.inf
        sample_s = run.sample_s[index] if index < samples else np.inf
        now = min(arrival_s, event_s, sample_s)
        look = event_s <= now or sample_s <= now
        for r in range(len(replicas)):
            if look or replicas[r].due_s <= now:
                advance(run, r, now)
        if event_s <= now:
            change_replica(run, codes, event)
            event += 1
        elif sample_s <= now:
            sample(run, index)
            index += 1
        else:
            send(run, codes, request, now)
            request += 1
    for r in range(len(replicas)):
        advance(run, r, np.inf)
