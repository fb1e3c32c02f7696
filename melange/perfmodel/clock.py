"""StepClock: how long one engine iteration takes, the one formula behind estimates and simulation.

An iteration runs ``decodes`` sequences one token each, over ``kv_tokens`` cached tokens in all, beside a chunk of
``prefill_tokens`` whose tokens attend to ``prefill_pairs`` (query, key) pairs, for ``sequences`` sequences in all, of
which ``new_requests`` start in it. With n = decodes + prefill_tokens::

    gemm      = (weights_read_s(n) ** k + (compute_s_per_token * n) ** k) ** (1 / k)
    attention = kv_read_s_per_token * kv_tokens + attention_s_per_pair * prefill_pairs
    other     = other_s_per_token * n
    host      = overhead_s + per_sequence_s * sequences + per_request_s * new_requests
    network   = collective_s + collective_s_per_token * n
    iteration = host + network + gemm + attention + other

where ``weights_read_s(n) = weights_s + expert_weights_s * (1 - (1 - expert_share) ** n)`` counts the distinct experts
that n tokens are expected to touch (each picks the share a/E of the experts, independently). k = infinity is the
roofline's maximum, k = 1 the plain sum; in between reading weights and multiplying overlap in part. GEMMs, attention,
collectives and ``other`` (norms, rotations and gates, which only move activations, and the host's work on each token)
follow each other in a conventional engine, so they add.

With speculative decoding a decode step computes ``drafted_tokens`` more of each sequence, which share one read of its
cache, and drafts each of them for ``draft_share`` of a pass over the sequences' own matrix products; it yields
``yielded_tokens`` a sequence (Leviathan et al., arXiv 2211.17192, equation 1). The drafted tokens' own arithmetic over
the cache, the draft's launches and its cache are left out.

Tokens of the KV cache are those of the layers that keep every token. What other layers keep is counted in such tokens:
``window_kv_share`` of each of the last ``window_tokens`` tokens, and ``state_tokens`` for each sequence whatever its
length. Reading takes the same, but for sparse attention, which keeps every token and reads what it picks
(``window_read_share``). Prompts attend within the window likewise (``window_pair_share``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray
from melange.errors import InputError

_POSITIVE = ("weights_s", "compute_s_per_token", "kv_read_s_per_token", "attention_s_per_pair")
_COUNTS = ("kv_capacity_tokens", "max_num_seqs", "max_batched_tokens", "block_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepClock:
    """Parameters of one configuration's iteration time; all times in seconds, per replica.

    ``kv_capacity_tokens`` is what the replica's KV cache holds, ``max_num_seqs`` and ``max_batched_tokens`` are the
    engine's limits on one iteration. With ``chunked_prefill`` prompts ride along with decodes in chunks; without it an
    iteration is either all prompts or all decodes. Two fields serve the steady-state solution only, because a simulator
    plays blocks and preemptions itself: ``kv_usable_share`` of the KV cache holds live tokens at saturation, and a
    KV-bound engine prefills ``recompute_share`` of its output tokens again after preemptions. ``front_s``
    is what a request passes outside the engine, which that does not hold up: HTTP, tokenising, a token's way back.
    """

    overhead_s: float
    per_sequence_s: float
    per_request_s: float
    weights_s: float
    expert_weights_s: float = 0.0
    expert_share: float = 1.0
    kv_read_s_per_token: float
    compute_s_per_token: float
    attention_s_per_pair: float
    other_s_per_token: float = 0.0
    collective_s: float = 0.0
    collective_s_per_token: float = 0.0
    overlap_exponent: float = 4.0
    window_tokens: float = 0.0
    window_kv_share: float = 0.0
    window_read_share: float = 0.0
    window_pair_share: float = 0.0
    state_tokens: float = 0.0
    front_s: float = 0.0
    drafted_tokens: float = 0.0
    yielded_tokens: float = 1.0
    draft_share: float = 0.0
    kv_usable_share: float = 1.0
    recompute_share: float = 0.0
    kv_capacity_tokens: int
    max_num_seqs: int = 256
    max_batched_tokens: int = 2048
    block_tokens: int = 16
    chunked_prefill: bool = True

    def __post_init__(self) -> None:
        for item in fields(StepClock):
            value = getattr(self, item.name)
            if item.name in _COUNTS:
                if value < 1 or int(value) != value:
                    raise InputError(f"step clock: {item.name} is {value}", fix="give a whole number of at least 1")
            elif item.name in _POSITIVE:
                if not (math.isfinite(value) and value > 0):
                    raise InputError(f"step clock: {item.name} is {value}", fix="give a positive time in seconds")
            elif not (value >= 0 and (math.isfinite(value) or item.name == "overlap_exponent")):
                raise InputError(f"step clock: {item.name} is {value}", fix="give a figure of at least 0")
        if self.overlap_exponent < 1:
            raise InputError(f"step clock: overlap_exponent is {self.overlap_exponent}", fix="give 1 or more")
        for name in ("expert_share", "kv_usable_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"step clock: {name} is {getattr(self, name)}", fix="give a share above 0, up to 1")

    def scaled(self, factor: float) -> StepClock:
        """The clock with every time multiplied."""
        times = [item.name for item in fields(self) if item.name.endswith("_s") or "_s_per_" in item.name]
        return replace(self, **{name: getattr(self, name) * factor for name in times})

    def held_tokens(self, longest_tokens: ArrayLike) -> FloatArray:
        """KV tokens that a request holds at its end, when it is so long; elementwise."""
        longest = np.asarray(longest_tokens, float)
        return np.asarray(longest + self.state_tokens + self.window_kv_share * np.minimum(longest, self.window_tokens))

    def bounded_read_tokens(self, context_tokens: ArrayLike) -> FloatArray:
        """KV tokens that a decode step over such a context reads beside the context itself; elementwise.

        A state is read and written again.
        """
        context = np.asarray(context_tokens, float)
        return np.asarray(2.0 * self.state_tokens + self.window_read_share * np.minimum(context, self.window_tokens))

    def prefill_pairs(self, new_tokens: ArrayLike, context_tokens: ArrayLike = 0.0) -> FloatArray:
        """(query, key) pairs of ``new_tokens`` behind a context, those of windows counted by their share."""
        full = causal_pairs(new_tokens, context_tokens)
        bounded = window_pairs(new_tokens, context_tokens, self.window_tokens)
        return np.asarray(full + self.window_pair_share * bounded)

    def weights_read_s(self, tokens: ArrayLike) -> FloatArray:
        """Time to read the weights that an iteration over ``tokens`` tokens touches; elementwise."""
        if self.expert_share >= 1.0:
            return np.asarray(self.weights_s + self.expert_weights_s + np.zeros(np.shape(tokens)))
        touched = 1.0 - (1.0 - self.expert_share) ** np.asarray(tokens, float)
        return np.asarray(self.weights_s + self.expert_weights_s * touched)

    def gemm_s(self, tokens: ArrayLike) -> FloatArray:
        """Time of an iteration's matrix multiplications over ``tokens`` tokens; elementwise."""
        read, compute = self.weights_read_s(tokens), self.compute_s_per_token * np.asarray(tokens, float)
        high, low = np.maximum(read, compute), np.minimum(read, compute)
        if math.isinf(self.overlap_exponent):
            return np.asarray(high)
        return np.asarray(high * (1.0 + (low / high) ** self.overlap_exponent) ** (1.0 / self.overlap_exponent))

    def iteration_s(
        self,
        *,
        decodes: ArrayLike,
        kv_tokens: ArrayLike,
        prefill_tokens: ArrayLike = 0.0,
        prefill_pairs: ArrayLike = 0.0,
        prefills: ArrayLike = 0.0,
        new_requests: ArrayLike = 0.0,
    ) -> FloatArray:
        """Duration of iterations in seconds; the arguments broadcast.

        ``prefills`` counts the sequences that the chunk belongs to, ``new_requests`` those that start with it.
        """
        computed = np.asarray(decodes, float) * (1.0 + self.drafted_tokens)
        tokens = np.add(computed, prefill_tokens, dtype=float)
        host = (
            self.overhead_s
            + self.per_sequence_s * np.add(decodes, prefills, dtype=float)
            + self.per_request_s * np.asarray(new_requests, float)
        )
        attention = self.kv_read_s_per_token * np.asarray(kv_tokens, float) + self.attention_s_per_pair * np.asarray(
            prefill_pairs, float
        )
        moved = self.collective_s + (self.collective_s_per_token + self.other_s_per_token) * tokens
        gemm = self.gemm_s(tokens)
        if np.any(self.drafted_tokens):
            gemm = gemm + self.drafted_tokens * self.draft_share * self.gemm_s(decodes)
        return np.asarray(host + moved + gemm + attention)


def stacked(clocks: Sequence[StepClock], dimensions: int) -> StepClock:
    """Clocks of engines that all chunk prefills, or all do not, as one, for evaluating them all at once.

    Fields in which they differ become arrays of shape (clocks, 1, ...) with ``dimensions`` trailing axes, to broadcast
    against sizes; what they share stays a scalar.
    """
    whole = object.__new__(StepClock)  # its parts passed validation, which is about scalars
    for item in fields(StepClock):
        values = [getattr(clock, item.name) for clock in clocks]
        same = all(value == values[0] for value in values)
        value = values[0] if same else np.asarray(values, float).reshape(-1, *[1] * dimensions)
        object.__setattr__(whole, item.name, value)
    return whole


def causal_pairs(new_tokens: ArrayLike, context_tokens: ArrayLike = 0.0) -> FloatArray:
    """(query, key) pairs of causal attention when ``new_tokens`` follow ``context_tokens`` already cached ones."""
    new, context = np.asarray(new_tokens, float), np.asarray(context_tokens, float)
    return np.asarray(new * context + new * (new + 1.0) / 2.0)


def window_pairs(new_tokens: ArrayLike, context_tokens: ArrayLike, window_tokens: ArrayLike) -> FloatArray:
    """:func:`causal_pairs` where a token attends to no more than the last ``window_tokens``, itself among them."""
    new, context = np.asarray(new_tokens, float), np.asarray(context_tokens, float)
    inside = np.clip(np.asarray(window_tokens, float) - context, 0.0, new)  # tokens that still see all before them
    return np.asarray(causal_pairs(inside, context) + (new - inside) * window_tokens)
