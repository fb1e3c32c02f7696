"""The arrays that the compiled simulation works on, and how they are made from values.

Records rather than one array per field: numba passes every array of a call by value, and a request's fields are read
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.errors import InputError
from melange.perfmodel.clock import StepClock

Records: TypeAlias = Any
"""A numpy record array, or one record of it."""

NONE = -1
NEVER = np.iinfo(np.int64).max


def _dtype(floats: str, integers: str) -> np.dtype[Any]:
    return np.dtype([(name, np.float64) for name in floats.split()] + [(name, np.int64) for name in integers.split()])


# Per config: seconds per sequence, per admitted request, per cached token read, per (query, key) pair; KV blocks and
# tokens a block; most sequences and tokens of an iteration; 1 where prompts are chunked beside decodes. window_*,
# state_tokens: what layers keep that do not keep every token, as in StepClock.
ENGINE = _dtype(
    "per_sequence_s per_request_s kv_s pair_s window_tokens window_kv window_read window_pair state_tokens",
    "blocks block_tokens max_sequences max_tokens chunked",
)

# Per replica. end_s: end of the iteration under way, infinite when idle; due_s: a time before which no request ends or
# gives its first token, so that nobody needs to look; busy_s; sequence_s and kv_token_s: integrals of running sequences
# and of KV tokens; bounded_tokens: what a step reads beside kv_tokens. decodes: 1 when the iteration under way decodes;
# kv_tokens: computed tokens of the decoding requests; next_finish: the step at which the first of them finishes; head,
# tail: its queue; tokens_lost: generated and thrown away by failures.
REPLICA = _dtype(
    "end_s due_s busy_s sequence_s kv_token_s bounded_tokens",
    "config steps decodes n_running n_decoding kv_tokens free_blocks next_finish head tail n_waiting tokens_lost",
)

# Per request. What arrives; then what became of it: where it was last sent (-1: nowhere), for which routing row, when
# it was last admitted, gave its first and its last token (NaN: never). Then the kernel's own: tokens to prefill,
# prefilled so far, generated; the step at which it finishes; its place among the KV phases; the next in its queue;
# blocks that layers hold and tokens that they have read which do not keep every token.
REQUEST = _dtype(
    "arrival_s start_s first_s end_s bounded_tokens",
    "input_tokens output_tokens cached_tokens replica row preemptions restarts target computed generated finish_step "
    "phase following bounded_blocks",
)


class Machines(NamedTuple):
    """Everything that batching reads and writes.

    ``engines``: (n_config,) records. ``step_s``: (n_config, longest iteration + 1), time of an iteration by its tokens,
    without what the engine's record adds. ``replicas``: (n_replica,) records. ``running``: (n_replica, most sequences)
    requests in order of admission, first those that decode, then those that prefill. ``phase``: (n_replica, most
    block tokens), how many decoding requests need a new KV block at each step, modulo the block. ``requests``: (n,)
    records.
    """

    engines: Records
    step_s: FloatArray
    replicas: Records
    running: IntArray
    phase: IntArray
    requests: Records


def new_machines(clocks: Sequence[StepClock], config_of: IntArray, requests: Records) -> Machines:
    """Idle, empty replicas of these configs."""
    longest = int((requests.input_tokens + requests.output_tokens).max()) if len(requests) else 1
    engines, step_s = _engines(clocks, longest)
    return Machines(
        engines=engines,
        step_s=step_s,
        replicas=_replicas(engines, config_of),
        running=np.full((len(config_of), int(engines.max_sequences[config_of].max())), NONE, dtype=np.int64),
        phase=np.zeros((len(config_of), int(engines.block_tokens[config_of].max())), dtype=np.int64),
        requests=requests,
    )


def _engines(clocks: Sequence[StepClock], longest_tokens: int) -> tuple[Records, FloatArray]:
    for clock in clocks:
        if clock.max_batched_tokens < clock.max_num_seqs:
            raise InputError(
                f"the engine batches {clock.max_batched_tokens} tokens but {clock.max_num_seqs} sequences an iteration",
                fix="raise max_batched_tokens to max_num_seqs at least",
            )
        if clock.drafted_tokens:
            raise InputError(
                "a clock drafts tokens, which the simulator does not play", fix="simulate without speculative decoding"
            )
    longest = max(longest_tokens, *(clock.max_batched_tokens for clock in clocks), 1)
    engines = np.recarray(len(clocks), dtype=ENGINE)
    for engine, clock in zip(engines, clocks, strict=True):
        engine.per_sequence_s = clock.per_sequence_s
        engine.per_request_s = clock.per_request_s
        engine.kv_s = clock.kv_read_s_per_token
        engine.pair_s = clock.attention_s_per_pair
        engine.blocks = clock.kv_capacity_tokens // clock.block_tokens
        engine.block_tokens = clock.block_tokens
        engine.max_sequences = clock.max_num_seqs
        engine.max_tokens = clock.max_batched_tokens
        engine.chunked = clock.chunked_prefill
        engine.window_tokens = clock.window_tokens
        engine.window_kv = clock.window_kv_share
        engine.window_read = clock.window_read_share
        engine.window_pair = clock.window_pair_share
        engine.state_tokens = clock.state_tokens
    return engines, np.stack([_step_s(clock, longest.bit_length()) for clock in clocks])


@lru_cache(maxsize=256)  # Every replication of every fleet asks for the same clocks' steps.
def _step_s(clock: StepClock, bits: int) -> FloatArray:
    """(2 ** bits,) seconds of an iteration over so many tokens, by their number; without what each sequence takes."""
    tokens = np.arange(1 << bits, dtype=float)
    step_s: FloatArray = clock.iteration_s(decodes=tokens, kv_tokens=0.0) - clock.per_sequence_s * tokens
    step_s.setflags(write=False)
    return step_s


def _replicas(engines: Records, config_of: IntArray) -> Records:
    replicas = np.recarray(len(config_of), dtype=REPLICA)
    replicas.fill(0)
    replicas.config = config_of
    replicas.end_s = np.inf
    replicas.due_s = np.inf
    replicas.free_blocks = engines.blocks[config_of]
    replicas.next_finish = NEVER
    replicas.head = NONE
    replicas.tail = NONE
    return replicas


def new_requests(
    arrival_s: FloatArray, input_tokens: IntArray, output_tokens: IntArray, cached_tokens: IntArray
) -> Records:
    """Requests of which nothing has happened yet; arrays of shape (n,)."""
    requests = np.recarray(len(arrival_s), dtype=REQUEST)
    requests.fill(0)
    requests.arrival_s = arrival_s
    requests.input_tokens = input_tokens
    requests.output_tokens = output_tokens
    requests.cached_tokens = cached_tokens
    for name in ("start_s", "first_s", "end_s"):
        requests[name] = np.nan
    for name in ("replica", "row", "following"):
        requests[name] = NONE
    return requests
