"""Load: what a replica is put under, so many clients or arrivals at a rate; and prompts alone, without any decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.perfmodel.clock import StepClock
from melange.perfmodel.loadpoint import LoadPoint

MOST_LOAD = 1e9  # clients, or requests a second, beyond any replica


class LoadState(Protocol):
    """What a load is put on: requests of given sizes on a replica."""

    @property
    def saturation_rps(self) -> FloatArray: ...
    def clients(self, concurrency: ArrayLike) -> LoadPoint: ...
    def open_at_rate(self, rate_rps: ArrayLike) -> LoadPoint: ...
    def open(self, occupancy_share: ArrayLike) -> LoadPoint: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """So many clients, each of which sends its next request when it has its answer, or Poisson arrivals at a rate.

    Without either it is the highest rate, at any latency.
    """

    concurrency: float | None = None
    rate_rps: float | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.rate_rps is not None:
            raise InputError("a load has both a concurrency and a rate", fix="give one of them")
        for name in ("concurrency", "rate_rps"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MOST_LOAD:
                raise InputError(f"{name} is {value}", fix=f"give a number above 0, up to {MOST_LOAD:g}")
        if self.concurrency is not None and self.concurrency < 1:
            raise InputError(f"concurrency is {self.concurrency}", fix="give at least 1 client")

    @property
    def kind(self) -> str:
        """``closed``, ``open`` or ``highest``."""
        return "closed" if self.concurrency is not None else "highest" if self.rate_rps is None else "open"

    def describe(self) -> str:
        if self.concurrency is not None:
            return f"concurrency {self.concurrency:g}"
        return "highest rate" if self.rate_rps is None else f"{self.rate_rps:g} req/s"

    def of(self, state: LoadState) -> LoadPoint:
        """What requests experience under it; a rate at or above saturation is saturation, with an infinite wait."""
        if self.concurrency is not None:
            return state.clients(self.concurrency)
        return state.open(1.0) if self.rate_rps is None else state.open_at_rate(self.rate_rps)


class Prompts:
    """A StepClock with prompts of given sizes and one token of output, as a prefill replica serves them.

    Iterations hold prompts alone: at most ``slots`` of them, one whole prompt at the least where the engine does not
    chunk. Nothing stays in decode, so the KV cache bounds nothing but a lone prompt.
    """

    def __init__(
        self,
        clock: StepClock,
        input_tokens: ArrayLike,
        cached_tokens: ArrayLike = 0.0,
        *,
        max_request_tokens: float = math.inf,
    ) -> None:
        self.clock = clock
        self.input, cached = np.broadcast_arrays(np.asarray(input_tokens, float), np.asarray(cached_tokens, float))
        if not (np.all(self.input > 0) and np.all(cached >= 0)):
            raise InputError("a request size is not positive", fix="give input tokens above 0, cached >= 0")
        self.cached = np.minimum(cached, self.input - 1.0).clip(0.0)
        self.new = self.input - self.cached
        longest = self.input + 1.0
        self.fits = (clock.held_tokens(longest) <= clock.kv_capacity_tokens) & (longest <= max_request_tokens)
        self.slots = np.minimum(np.maximum(clock.max_batched_tokens / self.new, 1.0), clock.max_num_seqs)
        self._pairs_per_token = clock.prefill_pairs(self.new, self.cached) / self.new

    @property
    def saturation_rps(self) -> FloatArray:
        """Highest throughput in requests/s; 0 where a prompt does not fit."""
        return np.where(self.fits, self.slots / self._time_s(self.slots), 0.0)

    def _time_s(self, prompts: FloatArray) -> FloatArray:
        """Time of so many prompts, up to the slots, computed together; longer ones take several iterations."""
        clock = self.clock
        tokens = prompts * self.new
        iterations = np.maximum(tokens / clock.max_batched_tokens, 1.0) if clock.chunked_prefill else 1.0
        return iterations * clock.iteration_s(
            decodes=0.0,
            kv_tokens=prompts * self.cached,
            prefill_tokens=tokens / iterations,
            prefill_pairs=tokens / iterations * self._pairs_per_token,
            prefills=np.maximum(prompts / iterations, 1.0),
            new_requests=prompts / iterations,
        )

    def clients(self, concurrency: ArrayLike) -> LoadPoint:
        """A closed loop of so many clients: those that an iteration has no room for wait."""
        asked = np.broadcast_to(np.asarray(concurrency, float), self.new.shape)
        together = np.minimum(asked, self.slots)
        time_s = self._time_s(together)
        # Outside the engine a request takes its own time, but holds up no other.
        rate = np.minimum(asked / (time_s + self.clock.front_s), together / time_s)
        wait_s = np.maximum(asked / rate - time_s - self.clock.front_s, 0.0)
        return self._point(rate, time_s, wait_s, together)

    def open_at_rate(self, rate_rps: ArrayLike) -> LoadPoint:
        """Poisson arrivals at a rate; at or above saturation the point is saturation's, with an infinite wait.

        An M/D/1 queue (Pollaczek-Khinchine) whose service is a prompt's share of a full iteration.
        """
        highest = np.maximum(self.saturation_rps, 1e-12)
        rate, own_s = np.minimum(np.asarray(rate_rps, float), highest), self._time_s(np.ones(self.new.shape))
        busy = rate / highest
        with np.errstate(divide="ignore"):
            wait_s = np.where(busy < 1.0, busy / (2.0 * (1.0 - busy)) * own_s, np.inf)
        return self._point(rate, own_s, wait_s, rate * own_s)

    def open(self, occupancy_share: ArrayLike) -> LoadPoint:
        """Poisson arrivals at this share of the highest rate."""
        return self.open_at_rate(np.asarray(occupancy_share, float) * self.saturation_rps)

    def _point(self, rate: FloatArray, prefill_s: FloatArray, wait_s: FloatArray, concurrency: FloatArray) -> LoadPoint:
        none = np.zeros(self.new.shape)
        return LoadPoint(
            rate_rps=rate + none,
            concurrency=concurrency + none,
            prefill_s=prefill_s + self.clock.front_s,
            wait_s=wait_s + none,
            waiting_share=np.where(wait_s > 0, 1.0, none),
            tpot_decode_s=none,
            tpot_sd_s=none,
            tpot_max_s=none,
            tpot_max_sd_s=none,
            decode_steps=none,
        )
