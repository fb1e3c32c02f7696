"""Steady state: what a replica does when requests of one size keep arriving.

Parametrised by N, the mean number of requests in decode, because everything else follows from it directly. With d
decode steps per request, slots c (the most requests that the engine's limits and KV cache hold) and the batch that a
request sees, b = 1 + N (1 - 1/c) (exact when c slots are busy independently, and b = c at saturation):

- without chunked prefill, prompts and decodes take turns; a prompt costs ``t_p`` of engine time and
  ``rate = 1 / (d * iteration(b) / N + t_p)``, ``TPOT = N / (rate * d)`` (the stalls by other prompts included);
- with chunked prefill, N new/d prompt tokens ride along with the b decodes of a mean iteration, in lumps of up to the
  token budget; ``TPOT`` is that mean iteration and ``rate = N / (d * TPOT)``; the budget also caps N.

In a closed loop of c clients a request's own prompt never rides with its own decodes: of the prompts (c - 1) / c count.

Both are Little's law on the decoding requests. A KV-bound engine at saturation admits new prompts into every gap and
preempts them again; what it then prefills twice is at most the output length per request, of which
``StepClock.recompute_share`` is counted.

Under Poisson arrivals the time to first token adds three waits to the request's own prefill: for the running iteration
(half of it), for other prompts (M/D/1: rho_p / (2 (1 - rho_p)) of a prefill, Pollaczek-Khinchine), and for a slot
(Sakasegawa's approximation of M/G/c, EJOR 1 (1977), scaled by Allen-Cunneen's (1 + 0)/2 for equal sizes:
``rho ** (sqrt(2 (c + 1)) - 1) / (c (1 - rho)) * residence / 2`` with rho = rate / saturation rate).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import BoolArray, FloatArray
from melange.errors import InputError
from melange.perfmodel.clock import StepClock
from melange.perfmodel.loadpoint import LoadPoint
from melange.slo import Slo

_CLIENT_ROUNDS = 3  # until those in decode and those in prefill are as many as there are clients
_ROUNDING = 1e-9
NEARLY_FULL = 0.9  # preemptions set in where the KV cache is fuller than this share of its slots


class _Flow(NamedTuple):
    """Rate, time between a request's decode steps, its own prefill time, utilisation of the prefill path, and the
    engine time that a prompt adds.

    A step yields one token, or ``StepClock.yielded_tokens``: ``tpot`` is a token's time where that is one.
    """

    rate: FloatArray
    tpot: FloatArray
    prefill: FloatArray
    busy: FloatArray
    stall: FloatArray


class SteadyState:
    """A StepClock with requests of given sizes; arrays broadcast to one shape.

    ``slots`` is the most requests in decode at once, 0 where a lone request does not fit (longer than the KV cache or
    than ``max_request_tokens``). Cached tokens are prefix hits: they are read and take KV space, but are not
    prefilled.
    """

    def __init__(
        self,
        clock: StepClock,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike,
        cached_tokens: ArrayLike = 0.0,
        *,
        max_request_tokens: float = np.inf,
    ) -> None:
        shape = np.broadcast_shapes(np.shape(input_tokens), np.shape(output_tokens), np.shape(cached_tokens))
        self.clock = clock
        self.input = np.broadcast_to(np.asarray(input_tokens, float), shape)
        self.output = np.broadcast_to(np.asarray(output_tokens, float), shape)
        cached = np.broadcast_to(np.asarray(cached_tokens, float), shape)
        if not (np.all(self.input > 0) and np.all(self.output > 0) and np.all(cached >= 0)):
            raise InputError("a request size is not positive", fix="give input and output tokens above 0, cached >= 0")
        # The last prompt token is always computed, or there would be no first output token.
        self.cached = np.minimum(cached, self.input - 1.0).clip(0.0)
        self.new = self.input - self.cached
        self.decode_steps = np.maximum(self.output - 1.0, 0.0)
        # A request of one output token still passes through an iteration: one step keeps the equations regular.
        self._steps = np.maximum(self.decode_steps / clock.yielded_tokens, 1.0)
        if clock.chunked_prefill:  # and no prompt is through in fewer iterations than its tokens fill
            self._steps = np.maximum(self._steps, self.new / clock.max_batched_tokens)
        self.context = self.input + self.output / 2.0
        self._read = self.context + clock.bounded_read_tokens(self.context)
        self._pairs_per_token = clock.prefill_pairs(self.new, self.cached) / self.new
        self._recompute = clock.recompute_share * self.decode_steps
        self._limit_slots(max_request_tokens)
        self._saturation = self._flow(self.slots)

    def _limit_slots(self, max_request_tokens: float) -> None:
        clock = self.clock
        usable = clock.kv_capacity_tokens * clock.kv_usable_share
        longest = self.input + self.output
        held = self.context + clock.held_tokens(longest) - longest
        self.kv_slots = usable / (held + clock.block_tokens / 2.0)
        slots = np.minimum(self.kv_slots, clock.max_num_seqs)
        self.is_kv_bound = self.kv_slots < clock.max_num_seqs
        if clock.chunked_prefill:
            per_step = np.where(self.is_kv_bound, self.new + self._recompute, self.new) / self._steps
            slots = np.minimum(slots, clock.max_batched_tokens / (1.0 + clock.drafted_tokens + per_step))
        self.fits = (clock.held_tokens(longest) <= clock.kv_capacity_tokens) & (longest <= max_request_tokens)
        self.slots = np.where(self.fits, np.maximum(slots, 1.0), 0.0)

    def _prompt_tokens(self, occupancy: FloatArray) -> FloatArray:
        """New prompt tokens per request, those prefilled again after preemption included."""
        fullness = np.divide(occupancy, self.slots, out=np.zeros_like(self.slots), where=self.fits)
        onset = np.clip((fullness - NEARLY_FULL) / (1.0 - NEARLY_FULL), 0.0, 1.0)
        return np.asarray(self.new + np.where(self.is_kv_bound, onset * self._recompute, 0.0))

    def _batch(self, occupancy: FloatArray) -> FloatArray:
        return 1.0 + occupancy * (1.0 - 1.0 / np.maximum(self.slots, 1.0))

    def _flow(self, occupancy: FloatArray, *, clients: FloatArray | None = None) -> _Flow:
        """The flow at N requests in decode: on average under Poisson arrivals, always in a closed loop of clients."""
        batch = self._batch(occupancy) if clients is None else np.maximum(occupancy, 1.0)
        # What rides with a request's decodes are the others' prompts: of a closed loop's all but its own.
        others = np.ones(()) if clients is None else 1.0 - 1.0 / np.maximum(clients, 1.0)
        with np.errstate(divide="ignore"):
            return (self._chunked if self.clock.chunked_prefill else self._separate)(occupancy, batch, others)

    def _separate(self, occupancy: FloatArray, batch: FloatArray, others: FloatArray) -> _Flow:
        clock = self.clock
        prompt = self._prompt_tokens(occupancy)
        # Prompts admitted between two decode iterations are prefilled together, within the token budget.
        together = np.clip(batch / self._steps, 1.0, np.maximum(clock.max_batched_tokens / prompt, 1.0))
        decode = clock.iteration_s(decodes=batch, kv_tokens=batch * self._read)
        prefill = self._prefill_s(0.0, together * prompt, together)
        per_prompt = prefill / together
        rate = 1.0 / (self._steps * decode / occupancy + others * per_prompt)
        busy = rate * per_prompt
        return _Flow(rate, decode / (1.0 - others * busy), prefill, busy, per_prompt)

    def _chunked(self, occupancy: FloatArray, batch: FloatArray, others: FloatArray) -> _Flow:
        clock = self.clock
        prompt = self._prompt_tokens(occupancy)
        budget = np.maximum(clock.max_batched_tokens - batch * (1.0 + clock.drafted_tokens), 1.0)
        per_iteration = np.minimum(occupancy * prompt / self._steps, budget)
        lump = np.maximum(np.minimum(prompt, budget), per_iteration)
        share = per_iteration / lump
        plain = clock.iteration_s(decodes=batch, kv_tokens=batch * self._read)
        mixed = self._prefill_s(batch, lump, lump / prompt)
        tpot = plain + others * share * (mixed - plain)
        rate = occupancy / (self._steps * tpot)
        stall = (mixed - plain) * prompt / lump
        busy = rate * prompt / budget * self._prefill_s(batch, budget, budget / prompt)
        return _Flow(rate, tpot, mixed * np.maximum(self.new / lump, 1.0), np.minimum(busy, 1.0), stall)

    def _crowded_tpot(self, occupancy: FloatArray, flow: _Flow) -> FloatArray:
        """Decode TPOT under Poisson arrivals: requests whose prompts shared a busy period decode side by side.

        The companions of a request in a busy period of an M/D/1 queue, by the size-biased Borel distribution, number
        rho (2 - rho) / (1 - rho)^2 on average.
        """
        clock, busy = self.clock, np.minimum(flow.busy, 1.0 - 1e-9)
        companions = busy * (2.0 - busy) / (1.0 - busy) ** 2
        most = np.maximum(self.slots, 1.0)
        tpot = flow.tpot
        for _ in range(2):
            batch = np.minimum(self._batch(np.maximum(occupancy, flow.rate * self._steps * tpot)) + companions, most)
            decode = clock.iteration_s(decodes=batch, kv_tokens=batch * self._read)
            tpot = np.minimum(decode / np.maximum(1.0 - flow.rate * flow.stall, 1e-9), self._saturation.tpot)
        return np.asarray(np.maximum(tpot, flow.tpot))

    def _prefill_s(self, decodes: ArrayLike, tokens: FloatArray, requests: FloatArray) -> FloatArray:
        return self.clock.iteration_s(
            decodes=decodes,
            kv_tokens=np.multiply(decodes, self._read) + requests * self.cached,
            prefill_tokens=tokens,
            prefill_pairs=tokens * self._pairs_per_token,
            prefills=np.maximum(requests, 1.0),
            new_requests=requests,
        )

    @property
    def saturated_tpot_s(self) -> FloatArray:
        """Mean time between output tokens in seconds where all slots are taken."""
        return np.asarray(self._saturation.tpot / self.clock.yielded_tokens)

    @property
    def saturated_tpot_sd_s(self) -> FloatArray:
        """Its standard deviation between requests.

        As many prompts are computed beside a request as there are slots, on average, and each holds it up by its
        stall; their number varies by its root, as that of independent arrivals does.
        """
        stalled = np.minimum(self._saturation.rate * self._saturation.stall, 1.0)
        return np.asarray(self.saturated_tpot_s * stalled / np.sqrt(np.maximum(self.slots, 1.0)))

    @property
    def saturation_rps(self) -> FloatArray:
        """Highest throughput in requests/s, at any latency; 0 where a request does not fit."""
        return np.where(self.fits, self._saturation.rate, 0.0)

    def engine_time_s(self) -> dict[str, FloatArray]:
        """Engine time per request at saturation, by what it is spent on.

        ``host`` (scheduling and per-request work), ``weights`` (reading them), ``kv`` (reading the cache), ``compute``
        (matrix products, prefill attention, activations) and ``network``. Parts that overlap are counted in full.
        """
        clock, batch = self.clock, np.maximum(self.slots, 1.0)
        prompt, steps = self._prompt_tokens(self.slots), self._steps
        tokens = prompt + steps
        read = steps / batch * clock.weights_read_s(batch)
        return {
            "host": clock.per_request_s + steps * (clock.overhead_s / batch + clock.per_sequence_s),
            "weights": read,
            "kv": steps * self._read * clock.kv_read_s_per_token,
            "compute": (clock.compute_s_per_token + clock.other_s_per_token) * tokens
            + clock.attention_s_per_pair * self._pairs_per_token * prompt,
            "network": steps / batch * clock.collective_s + clock.collective_s_per_token * tokens,
        }

    def clients(self, concurrency: ArrayLike) -> LoadPoint:
        """A closed loop of so many clients: those that neither decode nor prefill wait, for slots or others' prompts.

        By Little's law all of them are in the system for concurrency / rate, and what is left of that is the wait; the
        rate is never above saturation.
        """
        asked = np.broadcast_to(np.asarray(concurrency, float), self.input.shape)
        decoding = np.minimum(asked, self.slots)
        for _ in range(_CLIENT_ROUNDS):  # not every request is decoding
            found = self._point(decoding, clients=asked)
            decoding = np.minimum(decoding * asked / found.concurrency, np.minimum(asked, self.slots))
        point = self._point(decoding, clients=asked)
        rate = np.minimum(asked / point.e2e_s, self.saturation_rps)
        with np.errstate(divide="ignore", invalid="ignore"):
            wait = np.where(rate > 0, np.maximum(asked / rate - point.e2e_s, 0.0), 0.0)
        return replace(
            point,
            rate_rps=rate,
            concurrency=asked,
            wait_s=wait,
            waiting_share=np.where(wait > _ROUNDING * point.e2e_s, 1.0, 0.0),
        )

    def open(self, occupancy_share: ArrayLike) -> LoadPoint:
        """Poisson arrivals that keep this share of the slots in decode on average; 1 is saturation."""
        return self._open(np.asarray(occupancy_share, float), with_spread=True)

    def _open(self, occupancy_share: FloatArray, *, with_spread: bool) -> LoadPoint:
        return self._point(occupancy_share * self.slots, with_spread=with_spread)

    def open_at_rate(self, rate_rps: ArrayLike) -> LoadPoint:
        """Poisson arrivals at a rate; at or above saturation the point is saturation's, with an infinite wait."""
        target = np.asarray(rate_rps, float)
        # Calibration differentiates what follows from this share numerically: it must be exact to rounding.
        share = _bisect(lambda share: self._flow(share * self.slots).rate <= target, self.input.shape, halvings=48)
        return self.open(share)

    def max_rate_rps(self, slo: Slo) -> FloatArray:
        """Highest rate of Poisson arrivals that keeps the promise, shape of the sizes; 0 where none does.

        Without thresholds, or where even saturation keeps them, that is the saturation rate. It is never more: a
        KV-bound engine that is not quite full yet is faster than a saturated one, which prefills again what it
        preempted, but a queue at such a rate never drains once it has formed.
        """
        if not slo.thresholds_s:
            return self.saturation_rps
        # Means need no spread between requests, which doubles the work.
        spread = slo.statistic != "mean"
        share = _bisect(lambda share: self._open(share, with_spread=spread).meets(slo), self.input.shape)
        found = (share > 0) & self.fits
        rate = self._flow(np.where(found, share, 1.0) * np.maximum(self.slots, 1.0)).rate
        return np.where(found, np.minimum(rate, self.saturation_rps), 0.0)

    def _point(
        self, occupancy: FloatArray, *, clients: FloatArray | None = None, with_spread: bool = False
    ) -> LoadPoint:
        occupancy, is_open = np.maximum(occupancy, 1e-9), clients is None
        flow = self._flow(occupancy, clients=clients)
        rate, prefill, saturation_rps = flow.rate, flow.prefill, self._saturation.rate
        tpot = self._crowded_tpot(occupancy, flow) if is_open else flow.tpot
        wait, waiting = np.zeros_like(rate), np.zeros_like(rate)
        iteration, spread = np.zeros_like(rate), np.zeros_like(rate)
        if is_open:
            spread = self._spread(occupancy, flow) if with_spread else spread
            iteration = tpot * np.minimum(occupancy, 1.0) / 2.0
            load = np.divide(rate, saturation_rps, out=np.ones_like(rate), where=saturation_rps > 0)
            wait, waiting = self._wait(load, flow.busy, prefill, self._steps * tpot + prefill)
        return LoadPoint(
            rate_rps=rate,
            concurrency=rate * (self._steps * tpot + prefill + self.clock.front_s),
            prefill_s=prefill + iteration + self.clock.front_s,
            wait_s=wait,
            waiting_share=waiting,
            tpot_decode_s=tpot / self.clock.yielded_tokens,
            tpot_sd_s=spread / self.clock.yielded_tokens,
            tpot_max_s=self.saturated_tpot_s,
            tpot_max_sd_s=self.saturated_tpot_sd_s,
            decode_steps=self.decode_steps,
        )

    def _wait(
        self, load: FloatArray, busy: FloatArray, prefill: FloatArray, residence: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Mean wait for other prompts and for a slot, and the share of requests that wait at all."""
        load, busy = np.minimum(load, 1.0), np.minimum(busy, 1.0)
        slots = np.maximum(self.slots, 1.0)
        full = load ** (np.sqrt(2.0 * (slots + 1.0)) - 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            prompts = np.where(busy < 1.0, busy / (2.0 * (1.0 - busy)) * prefill, np.inf)
            slot = np.where(load < 1.0 - 1e-9, full / (slots * (1.0 - load)) * residence / 2.0, np.inf)
        return prompts + slot, 1.0 - (1.0 - busy) * (1.0 - full)

    def _spread(self, occupancy: FloatArray, flow: _Flow) -> FloatArray:
        """Standard deviation of a request's mean TPOT.

        The number in decode is a birth-death process; linearised, its variance is N / e with e = dln rate / dln N
        (e = 1 is the Poisson of an uncrowded engine), of which a request's own duration averages away a third.
        """
        above = occupancy * 1.05
        more = self._flow(above)
        elasticity = np.clip(np.log(more.rate / flow.rate) / np.log(1.05), 0.05, 1.0)
        slope = np.maximum(more.tpot - flow.tpot, 0.0) / (above - occupancy)
        return np.asarray(slope * np.sqrt(occupancy / elasticity * 2.0 / 3.0))


def _bisect(holds: Callable[[FloatArray], BoolArray], shape: tuple[int, ...], *, halvings: int = 16) -> FloatArray:
    """Largest share in [0, 1] for which a monotone condition holds, elementwise; 0 where it never does."""
    low, high = np.zeros(shape), np.ones(shape)
    full = holds(high)
    for _ in range(halvings):
        middle = (low + high) / 2.0
        ok = holds(middle)
        low, high = np.where(ok, middle, low), np.where(ok, high, middle)
    return np.where(full, 1.0, low)
