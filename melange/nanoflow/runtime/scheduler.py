"""Scheduler: admits requests, forms batches of exactly B tokens before the last tokens are known, retires requests.

``form`` and ``complete`` alternate: batch i + 1 is formed while iteration i is in flight, so the decision that a
request has ended (an end token in iteration i) takes effect in batch i + 2, and the token that batch i + 1 computed for
it is dropped. Ends that are known beforehand (``max_tokens``) need no such guess. Nothing here needs torch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from melange.arrays import IntArray
from melange.errors import InputError
from melange.nanoflow.runtime.batch import Batch, Chunk, join_chunks
from melange.nanoflow.runtime.memory import LiveRequest, pages_of, peak_pages

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A prompt to continue by up to ``max_tokens`` tokens; ``ignore_end`` continues past the model's end tokens."""

    id: str
    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    ignore_end: bool = False

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InputError("the prompt is empty", fix="give at least one token")
        if self.max_tokens < 1:
            raise InputError(f"max_tokens is {self.max_tokens}", fix="ask for at least one token")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}", fix="give 0 (the likeliest token) or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """What bounds a batch and the requests in flight.

    ``expected_output_tokens`` is what admission reckons a request to produce, if less than its ``max_tokens``: more
    requests run at once, and when too many outlive the expectation the latest of them is put back and computed again.
    None reckons with ``max_tokens``: no request is ever put back.
    """

    batch_tokens: int
    max_requests: int
    pages: int
    page_tokens: int
    max_context_tokens: int
    vocabulary: int
    end_tokens: frozenset[int] = frozenset()
    expected_output_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_requests", "pages", "page_tokens", "max_context_tokens", "vocabulary"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", fix="give at least 1")
        if self.batch_tokens <= self.max_requests:
            raise InputError(
                f"batch of {self.batch_tokens} tokens for up to {self.max_requests} requests",
                fix="every request may decode: let the batch exceed the number of requests (--max-requests)",
            )
        if self.expected_output_tokens is not None and self.expected_output_tokens < 1:
            raise InputError(f"expected_output_tokens is {self.expected_output_tokens}", fix="give at least 1")

    @property
    def longest_request_tokens(self) -> int:
        """Most tokens of a prompt and its output: what the context and the KV cache hold (the last is never cached)."""
        return min(self.max_context_tokens, self.pages * self.page_tokens + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEvent:
    """One token that a request produced, and why it ended if this was the last."""

    request_id: str
    token: int
    finish_reason: FinishReason | None


@dataclass(eq=False, slots=True, kw_only=True)
class _Sequence:
    """A request under way. ``text`` is what must be in the cache before the next unknown token can be computed.

    ``pages``: room for all pages that it can ever need, of which the first ``held`` are its own now.
    """

    request: GenerationRequest
    text: IntArray
    pages: IntArray
    held: int = 0
    outputs: list[int] = field(default_factory=list)
    cached: int = 0
    scheduled_outputs: int = 0
    carried_from: int | None = None
    live: bool = False
    finished: bool = False
    put_back: bool = False

    @property
    def prompt_left(self) -> int:
        return max(0, len(self.text) - self.cached)

    @property
    def decodes(self) -> bool:
        return self.live and self.prompt_left == 0 and self.outputs_left > 0

    @property
    def outputs_left(self) -> int:
        return self.request.max_tokens - self.scheduled_outputs


class Scheduler:
    """The requests of one engine: waiting in arrival order, or live with pages of the KV cache."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.put_back_requests = 0
        self._known: dict[str, _Sequence] = {}
        self._waiting: deque[_Sequence] = deque()
        self._live: list[_Sequence] = []
        self._free = list(range(limits.pages - 1, -1, -1))
        self._in_flight: deque[list[_Sequence]] = deque()

    @property
    def live_requests(self) -> int:
        return len(self._live)

    @property
    def free_pages(self) -> int:
        return len(self._free)

    @property
    def idle(self) -> bool:
        return not (self._waiting or self._live or self._in_flight)

    def check(self, request: GenerationRequest) -> None:
        """Raise InputError for a request that could never run; may be called from any thread."""
        limits = self.limits
        total = len(request.prompt) + request.max_tokens
        if total > limits.max_context_tokens:
            raise InputError(
                f"{len(request.prompt)} prompt tokens and max_tokens {request.max_tokens} exceed the context of "
                f"{limits.max_context_tokens} tokens",
                fix="shorten the prompt or ask for fewer tokens",
            )
        if pages_of(total - 1, limits.page_tokens) > limits.pages:
            raise InputError(
                f"a request of {total} tokens exceeds the KV cache of {limits.pages * limits.page_tokens} tokens",
                fix="shorten it, or give the engine more KV memory",
            )
        if not 0 <= min(request.prompt) <= max(request.prompt) < limits.vocabulary:
            raise InputError("the prompt has a token outside the vocabulary", fix=f"use 0 to {limits.vocabulary - 1}")

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request. One that could never run, or whose id is in use, raises InputError."""
        self.check(request)
        if request.id in self._known:
            raise InputError(f"request id {request.id!r} is in use", fix="give every request its own id")
        most = pages_of(len(request.prompt) + request.max_tokens - 1, self.limits.page_tokens)
        prompt = np.array(request.prompt, dtype=np.int64)
        sequence = _Sequence(request=request, text=prompt, pages=np.zeros(most, dtype=np.int64))
        self._known[request.id] = sequence
        self._waiting.append(sequence)

    def cancel(self, request_id: str) -> None:
        """Forget a request that is waiting or live; an unknown id is ignored, since it may just have finished."""
        sequence = self._known.get(request_id)
        if sequence is not None:
            self._retire(sequence)

    def form(self) -> Batch | None:
        """The next iteration's batch, or None when no request can advance before ``complete`` is called."""
        self._admit()
        decodes = [s for s in list(self._live) if s.decodes and self._reserve(s, 1)]
        parts = [(sequence, 1) for sequence in decodes]
        room = self.limits.batch_tokens - len(decodes)
        for sequence in list(self._live):
            tokens = min(room, sequence.prompt_left)
            if tokens and self._reserve(sequence, tokens):
                parts.append((sequence, tokens))
                room -= tokens
        if not parts:
            return None
        chunks = [self._advance(sequence, tokens) for sequence, tokens in parts]
        sampled = [sequence for (sequence, _), chunk in zip(parts, chunks, strict=True) if chunk.sampled]
        for place, sequence in enumerate(sampled):
            sequence.carried_from = place
        self._in_flight.append(sampled)
        return join_chunks(chunks, decodes=len(decodes), page_tokens=self.limits.page_tokens)

    def complete(self, tokens: Sequence[int]) -> list[TokenEvent]:
        """Take in the tokens of the oldest batch in flight, one for each of its sampled rows."""
        sampled = self._in_flight.popleft()
        events = []
        for sequence, token in zip(sampled, tokens, strict=True):
            if sequence.finished:
                continue
            sequence.outputs.append(token)
            reason = self._finish_reason(sequence, token)
            events.append(TokenEvent(request_id=sequence.request.id, token=token, finish_reason=reason))
            if reason:
                self._retire(sequence)
            elif sequence.put_back:
                self._restart(sequence)
        return events

    def _finish_reason(self, sequence: _Sequence, token: int) -> FinishReason | None:
        if token in self.limits.end_tokens and not sequence.request.ignore_end:
            return "stop"
        return "length" if len(sequence.outputs) == sequence.request.max_tokens else None

    def _admit(self) -> None:
        limits = self.limits
        while self._waiting and len(self._live) < limits.max_requests:
            expected = [self._forecast(sequence) for sequence in (*self._live, self._waiting[0])]
            prefill_tokens = limits.batch_tokens - limits.max_requests + 1
            if peak_pages(expected, page_tokens=limits.page_tokens, prefill_tokens=prefill_tokens) > limits.pages:
                return
            sequence = self._waiting.popleft()
            sequence.live = True
            self._live.append(sequence)

    def _forecast(self, sequence: _Sequence) -> LiveRequest:
        left = sequence.outputs_left - (1 if sequence.prompt_left else 0)
        if self.limits.expected_output_tokens is not None:
            left = min(left, max(1, self.limits.expected_output_tokens - sequence.scheduled_outputs))
        return LiveRequest(cached_tokens=sequence.cached, prompt_tokens=sequence.prompt_left, decode_steps=max(0, left))

    def _reserve(self, sequence: _Sequence, tokens: int) -> bool:
        """Give a sequence the pages for its next tokens, putting back the latest requests if there are too few."""
        if not sequence.live:
            return False
        needed = pages_of(sequence.cached + tokens, self.limits.page_tokens) - sequence.held
        while len(self._free) < needed:
            latest = self._live[-1]
            self._put_back(latest)
            if latest is sequence:
                return False
        for place in range(sequence.held, sequence.held + needed):
            sequence.pages[place] = self._free.pop()
        sequence.held += needed
        return True

    def _advance(self, sequence: _Sequence, tokens: int) -> Chunk:
        start = sequence.cached
        known = start < len(sequence.text)
        sequence.cached += tokens
        sampled = sequence.prompt_left == 0
        sequence.scheduled_outputs += sampled
        return Chunk(
            start=start,
            tokens=tokens,
            pages=sequence.pages,
            ids=sequence.text[start : start + tokens] if known else None,
            carried_from=None if known else sequence.carried_from,
            sampled=sampled,
            temperature=sequence.request.temperature,
        )

    def _retire(self, sequence: _Sequence) -> None:
        sequence.finished = True
        del self._known[sequence.request.id]
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        self._release(sequence)

    def _release(self, sequence: _Sequence) -> None:
        # An iteration in flight may still use these pages; the next one, the first that can write them, runs after it.
        self._free += sequence.pages[: sequence.held].tolist()
        sequence.held = 0
        if sequence.live:
            sequence.live = False
            self._live.remove(sequence)

    def _put_back(self, sequence: _Sequence) -> None:
        self.put_back_requests += 1
        sequence.put_back = True
        self._release(sequence)
        if sequence.scheduled_outputs == len(sequence.outputs):
            self._restart(sequence)

    def _restart(self, sequence: _Sequence) -> None:
        """Queue a put-back request again, to be computed from its prompt and the tokens known so far."""
        sequence.put_back = False
        sequence.cached = 0
        sequence.text = np.array([*sequence.request.prompt, *sequence.outputs], dtype=np.int64)
        self._waiting.appendleft(sequence)
