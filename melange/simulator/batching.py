"""One replica's continuous batching, iteration by iteration, as vLLM schedules it.

Running requests come first, in order of admission; when KV blocks run out the latest admitted is preempted, loses its
cache and goes to the head of the queue. Then waiting requests are admitted first come first served while sequences,
batched tokens and blocks for their whole prompt last (vLLM V1, ``scheduler_reserve_full_isl``); the last prompt may be
cut by the token budget and goes on in the next iteration. So at most one prompt is partly done, and it is the last of
the running. Without chunked prefill (vLLM before V1), an iteration is whole prompts only, or decodes only.

Layers that do not keep every token (windows, states) hold what they will hold at most from a request's admission to its
end, and every step reads what they hold at the request's mean length.

Decodes cost no loop: all decoding requests advance together, so a step counter, the next step at which one finishes,
and a histogram of KV phases say all. An iteration without admission, end or preemption takes constant time.
"""

from __future__ import annotations

import numpy as np

from melange.routing.compiled import compiled_part
from melange.simulator.state import NEVER, NONE, Machines, Records


@compiled_part
def blocks_for(tokens: int, block_tokens: int) -> int:
    """Whole KV blocks that hold so many tokens."""
    return (tokens + block_tokens - 1) // block_tokens


@compiled_part
def bound(engine: Records, request: Records) -> None:
    """Set what a request's windows and states hold and what a step reads of them, on this engine."""
    longest = request.input_tokens + request.output_tokens - 1
    held = engine.state_tokens + engine.window_kv * min(float(longest), engine.window_tokens)
    request.bounded_blocks = int(np.ceil(held / engine.block_tokens))
    context = request.input_tokens + request.output_tokens / 2.0
    request.bounded_tokens = 2.0 * engine.state_tokens + engine.window_read * min(context, engine.window_tokens)


@compiled_part
def enqueue(m: Machines, r: int, request: int, first: bool) -> None:
    """Put a request at the end of a replica's queue, or at its head."""
    replica = m.replicas[r]
    if replica.head == NONE:
        m.requests[request].following = NONE
        replica.head = request
        replica.tail = request
    elif first:
        m.requests[request].following = replica.head
        replica.head = request
    else:
        m.requests[request].following = NONE
        m.requests[replica.tail].following = request
        replica.tail = request
    replica.n_waiting += 1


@compiled_part
def dequeue(m: Machines, r: int) -> int:
    """Take the head of a replica's queue."""
    replica = m.replicas[r]
    request = replica.head
    replica.head = m.requests[request].following
    if replica.head == NONE:
        replica.tail = NONE
    replica.n_waiting -= 1
    return int(request)


@compiled_part
def computed_tokens(replica: Records, request: Records) -> int:
    """Tokens of a decoding request in the KV cache: everything but the token sampled last."""
    return int(request.input_tokens + request.output_tokens - (request.finish_step - replica.steps) - 1)


@compiled_part
def leave_decoding(m: Machines, r: int, request: Records) -> None:
    """Take a request's KV cache and counts out of the decoding ones; its place in ``running`` is the caller's."""
    replica = m.replicas[r]
    computed = computed_tokens(replica, request)
    replica.kv_tokens -= computed
    replica.bounded_tokens -= request.bounded_tokens
    replica.free_blocks += blocks_for(computed, m.engines[replica.config].block_tokens) + request.bounded_blocks
    replica.n_decoding -= 1
    m.phase[r, request.phase] -= 1


@compiled_part
def refresh_next_finish(m: Machines, r: int) -> None:
    """Find the next step at which a decoding request finishes."""
    soonest = NEVER
    for place in range(m.replicas[r].n_decoding):
        soonest = min(soonest, m.requests[m.running[r, place]].finish_step)
    m.replicas[r].next_finish = soonest


@compiled_part
def preempt_last(m: Machines, r: int) -> None:
    """Throw the latest admitted request back to the head of the queue, its cache lost."""
    replica = m.replicas[r]
    place = replica.n_running - 1
    index = m.running[r, place]
    request = m.requests[index]
    if place < replica.n_decoding:
        leave_decoding(m, r, request)
        request.generated = request.output_tokens - (request.finish_step - replica.steps)
    else:
        replica.free_blocks += blocks_for(request.computed, m.engines[replica.config].block_tokens)
        replica.free_blocks += request.bounded_blocks
    replica.n_running = place
    request.computed = 0
    request.target = request.input_tokens + request.generated
    request.preemptions += 1
    enqueue(m, r, index, True)


@compiled_part
def allocate_decodes(m: Machines, r: int) -> bool:
    """Give every decoding request a slot for its next token, preempting where blocks run out; whether any was."""
    replica = m.replicas[r]
    size = m.engines[replica.config].block_tokens
    needed = m.phase[r, (-replica.steps) % size]
    if needed <= replica.free_blocks:
        replica.free_blocks -= needed
        return False
    place = 0
    while place < replica.n_decoding:
        if computed_tokens(replica, m.requests[m.running[r, place]]) % size == 0:
            while replica.free_blocks == 0 and replica.n_running > place:
                preempt_last(m, r)
            if replica.n_running <= place:
                break
            replica.free_blocks -= 1
        place += 1
    refresh_next_finish(m, r)
    return True


@compiled_part
def extend_prompt(m: Machines, r: int, budget: int) -> int:
    """Compute the next chunk of the prompt that was cut; its tokens, -1 where it is preempted for want of blocks."""
    replica = m.replicas[r]
    request = m.requests[m.running[r, replica.n_running - 1]]
    size = m.engines[replica.config].block_tokens
    chunk = min(request.target - request.computed, budget)
    needed = blocks_for(request.computed + chunk, size) - blocks_for(request.computed, size)
    if needed > replica.free_blocks:
        preempt_last(m, r)
        return -1
    replica.free_blocks -= needed
    request.computed += chunk
    return int(chunk)


@compiled_part
def must_wait(m: Machines, r: int) -> bool:
    """Whether nothing can be admitted until a request ends: empty queue, no sequence left, no room for its head."""
    replica = m.replicas[r]
    engine = m.engines[replica.config]
    if replica.head == NONE or replica.n_running >= engine.max_sequences:
        return True
    request = m.requests[replica.head]
    return bool(blocks_for(request.target, engine.block_tokens) + request.bounded_blocks > replica.free_blocks)


@compiled_part
def admit_next(m: Machines, r: int, budget: int, is_first: bool, now: float) -> int:
    """Admit the head of the queue if there is room; its prompt tokens in this iteration, 0 where it has to wait."""
    if budget <= 0 or must_wait(m, r):
        return 0
    replica = m.replicas[r]
    engine = m.engines[replica.config]
    request = m.requests[replica.head]
    # A resumed request finds its own tokens gone; a prefix that others share is still cached.
    cached = min(request.cached_tokens, request.input_tokens - 1)
    chunk = request.target - cached
    if chunk > budget:
        if engine.chunked:
            chunk = budget
        elif not is_first:
            return 0
    request.computed = cached + chunk
    request.start_s = now
    replica.free_blocks -= blocks_for(cached + chunk, engine.block_tokens) + request.bounded_blocks
    m.running[r, replica.n_running] = dequeue(m, r)
    replica.n_running += 1
    return int(chunk)


@compiled_part
def prompts(m: Machines, r: int, now: float) -> tuple[int, float]:
    """Schedule this iteration's prompts; (their tokens, the seconds that they add beyond those of their tokens)."""
    replica = m.replicas[r]
    engine = m.engines[replica.config]
    budget, tokens, extra_s = engine.max_tokens, 0, 0.0
    if engine.chunked:
        budget -= replica.n_decoding
        if replica.n_running > replica.n_decoding and budget > 0:
            tokens = extend_prompt(m, r, budget)
            if tokens < 0:
                return 0, 0.0
            extra_s = _attention_s(m, r, tokens)
    while True:
        chunk = admit_next(m, r, budget - tokens, tokens == 0, now)
        if chunk == 0:
            return tokens, extra_s
        tokens += chunk
        extra_s += engine.per_request_s + _attention_s(m, r, chunk)


@compiled_part
def _attention_s(m: Machines, r: int, chunk: int) -> float:
    """Seconds that the last running prompt's chunk adds: its sequence, reading its context, and its own attention."""
    replica = m.replicas[r]
    engine = m.engines[replica.config]
    context = m.requests[m.running[r, replica.n_running - 1]].computed - chunk
    pairs = chunk * (context + (chunk + 1) / 2.0)
    if engine.window_pair > 0.0:
        inside = min(max(engine.window_tokens - context, 0.0), float(chunk))
        bounded = inside * (context + (inside + 1.0) / 2.0) + (chunk - inside) * engine.window_tokens
        pairs += engine.window_pair * bounded
    return float(engine.per_sequence_s + engine.kv_s * context + engine.pair_s * pairs)


@compiled_part
def begin_iteration(m: Machines, r: int, now: float) -> None:
    """Schedule a replica's next iteration and set when it ends; idle where there is nothing to run."""
    replica = m.replicas[r]
    c = replica.config
    engine = m.engines[c]
    tokens, extra_s = 0, 0.0
    replica.decodes = 1
    if not engine.chunked:
        tokens, extra_s = prompts(m, r, now)
        replica.decodes = 1 if tokens == 0 else 0
    # A preemption takes an unfinished prompt first, and vLLM admits nothing in such an iteration.
    if replica.decodes and not allocate_decodes(m, r) and engine.chunked:
        tokens, extra_s = prompts(m, r, now)
    if replica.n_running == 0:
        replica.end_s = np.inf
        return
    decoding = replica.n_decoding if replica.decodes else 0
    kv_tokens = replica.kv_tokens + replica.bounded_tokens if decoding else 0.0
    shared_s = engine.per_sequence_s * decoding + engine.kv_s * kv_tokens
    duration = shared_s + m.step_s[c, decoding + tokens] + extra_s
    _count(replica, duration, tokens)
    replica.end_s = now + duration


@compiled_part
def _count(replica: Records, duration: float, prompt_tokens: int) -> None:
    replica.busy_s += duration
    replica.sequence_s += duration * replica.n_running
    replica.kv_token_s += duration * (replica.kv_tokens + prompt_tokens)


@compiled_part
def refresh_due(m: Machines, r: int) -> None:
    """Find a time before which a replica's requests neither end nor give a first token.

    With an empty queue and no prompt under way, that is the end of the decode step before the next finish, or before KV
    blocks may run out: until then contexts only grow, so no step is shorter than one at the present context.
    """
    replica = m.replicas[r]
    replica.due_s = replica.end_s
    if replica.decodes and 0 < replica.n_running == replica.n_decoding and replica.head == NONE:
        engine = m.engines[replica.config]
        kv_tokens = replica.kv_tokens + replica.bounded_tokens
        step_s = m.step_s[replica.config, replica.n_decoding] + engine.kv_s * kv_tokens
        step_s += engine.per_sequence_s * replica.n_decoding
        until_full = replica.free_blocks // replica.n_decoding * engine.block_tokens
        steps = min(replica.next_finish - replica.steps - 1, until_full)
        replica.due_s += steps * step_s * (1.0 - 1e-9)


@compiled_part
def coast(m: Machines, r: int, until_s: float) -> None:
    """Play iterations that only decode, up to the last that ends by a time and before one in which a request ends.

    The same arithmetic in the same order as :func:`begin_iteration`, without its questions.
    """
    replica = m.replicas[r]
    if not replica.decodes or replica.n_running > replica.n_decoding or not must_wait(m, r):
        return
    engine = m.engines[replica.config]
    size, decoding = engine.block_tokens, replica.n_decoding
    fixed_s, token_s = m.step_s[replica.config, decoding], engine.kv_s
    shared_s = engine.per_sequence_s * decoding
    bounded = replica.bounded_tokens
    end_s, steps, kv_tokens, free = replica.end_s, replica.steps, replica.kv_tokens, replica.free_blocks
    busy_s, kv_token_s, sequence_s = replica.busy_s, replica.kv_token_s, replica.sequence_s
    while end_s <= until_s and steps + 1 < replica.next_finish:
        needed = m.phase[r, (-steps - 1) % size]
        if needed > free:
            break
        free -= needed
        steps += 1
        kv_tokens += decoding
        duration = shared_s + token_s * (kv_tokens + bounded) + fixed_s + 0.0
        end_s += duration
        busy_s += duration
        sequence_s += duration * decoding
        kv_token_s += duration * kv_tokens
    replica.end_s, replica.steps, replica.kv_tokens, replica.free_blocks = end_s, steps, kv_tokens, free
    replica.busy_s, replica.kv_token_s, replica.sequence_s = busy_s, kv_token_s, sequence_s
