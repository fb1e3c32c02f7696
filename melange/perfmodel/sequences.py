"""How many requests an engine should run at once: its limit on a batch as a choice, which keeps a latency limit.

A replica with room for many requests decodes them all side by side when they come together, and is slower than the
limit while it does; one told to run fewer lets a few wait instead. Which is better depends on the sizes and the SLO, so
``max_num_seqs`` is a choice of a config. With a free choice more memory never lowers a rate: what a smaller KV cache
forces on an engine, a larger one may choose.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from melange.arrays import FloatArray
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.clock import StepClock
from melange.perfmodel.estimate import all_max_rates_rps, engine_ways
from melange.perfmodel.hardware import ModelledEngine, step_clock
from melange.perfmodel.steady import NEARLY_FULL, SteadyState
from melange.serving.efficiencies import Efficiencies
from melange.slo import Slo

NEARLY = 1e-4  # rates closer than this are the same: the model's search for them resolves no more
MOST_CHOICES = 3  # numbers beside the engine's own that a configuration is tried with
LEAST_SEQUENCES = 8  # an engine of fewer at once lives on its queue alone: not offered unless it is asked for
WORTH = 0.01  # share of the replicas that a further number must save
_FINER = (0.5, 0.25, 0.125)  # powers of two beside the best number so far, on either side


@dataclass(frozen=True, slots=True, kw_only=True)
class BestSequences:
    """Highest rates with a free choice of ``max_num_seqs``, and the choice; arrays of the sizes' shape.

    ``rate_rps`` in requests/s of one replica, 0 where there is none. ``max_num_seqs`` is NaN where the engine's own
    limit is best.
    """

    rate_rps: FloatArray
    max_num_seqs: FloatArray


def best_sequences(
    modelled: ModelledEngine,
    slo: Slo,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    cached_tokens: ArrayLike = 0.0,
    *,
    efficiencies: Efficiencies | None = None,
) -> BestSequences:
    """Per size the best ``max_num_seqs`` below the engine's own, by rate under the SLO.

    Tried are the most requests at which even a full batch keeps a TPOT limit, powers of two, and numbers near the best
    of them; only those that leave the KV cache short of preempting. Without a limit the engine's own is best.
    """
    sizes = np.broadcast_arrays(*(np.asarray(size, float) for size in (input_tokens, output_tokens, cached_tokens)))
    best: BestSequences | None = None
    for clock in engine_ways(step_clock(modelled, efficiencies), modelled):
        found = _Search(clock, slo, sizes, modelled.max_request_tokens).best()
        if best is None:
            best = found
        else:
            better = found.rate_rps > best.rate_rps
            best = BestSequences(
                rate_rps=np.where(better, found.rate_rps, best.rate_rps),
                max_num_seqs=np.where(better, found.max_num_seqs, best.max_num_seqs),
            )
    assert best is not None
    return best


def suiting_sequences(
    modelled: ModelledEngine,
    slo: Slo,
    input_tokens: FloatArray,
    output_tokens: FloatArray,
    cached_tokens: FloatArray,
    rate_rps: FloatArray,
    *,
    calibration: Calibration | None = None,
) -> tuple[int, ...]:
    """The few numbers of sequences, beside the engine's own, that keep the fewest replicas busy with a demand.

    All arrays are (n,): sizes, and how much is asked of each. Requests of a size go to the number that is best for it:
    numbers are taken one by one, each the one that then saves the most, while it saves a share of ``WORTH``.
    """
    sizes = (input_tokens, output_tokens, cached_tokens)
    known = calibration or Calibration()
    best = best_sequences(modelled, slo, *sizes, efficiencies=known.efficiencies_of(modelled.gpu.name))
    wanted = np.isfinite(best.max_num_seqs) & (rate_rps > 0)
    numbers = np.unique(np.maximum(best.max_num_seqs[wanted], LEAST_SEQUENCES)).astype(int).tolist()
    if not numbers:
        return ()
    ways = [modelled, *(replace(modelled, max_num_seqs=number) for number in numbers)]
    rates = all_max_rates_rps(ways, slo, *sizes, calibration=calibration)
    reached, chosen = rates[0], list[int]()
    while len(chosen) < MOST_CHOICES:
        loads = [_load(rate_rps, np.maximum(reached, each)) for each in rates]
        index = int(np.argmin(loads))
        if loads[index] >= _load(rate_rps, reached) * (1.0 - WORTH):
            break
        chosen.append(numbers[index - 1])
        reached = np.maximum(reached, rates[index])
    return tuple(sorted(chosen, reverse=True))


def _load(rate_rps: FloatArray, reached_rps: FloatArray) -> float:
    """Replicas that a demand keeps busy; what cannot be served outweighs all that can."""
    return float((rate_rps / np.maximum(reached_rps, 1e-9)).sum())


class _Search:
    """The rates of one clock at some sizes under numbers of sequences of their own."""

    def __init__(self, clock: StepClock, slo: Slo, sizes: tuple[FloatArray, ...], longest_tokens: int) -> None:
        self.clock, self.slo, self.sizes, self.longest_tokens = clock, slo, sizes, longest_tokens
        own = self._state(np.full(sizes[0].shape, float(clock.max_num_seqs)))
        self.own_rps = own.max_rate_rps(slo)
        self.rate_rps = np.zeros(self.own_rps.shape)  # of what was tried below, and what that was
        self.choice = np.ones(self.own_rps.shape)
        # Above, the KV cache or the token budget limits the batch, not the choice.
        room = np.minimum(own.kv_slots * NEARLY_FULL, own.slots)
        self.most = np.where(own.fits, np.floor(np.minimum(room, clock.max_num_seqs - 1.0)), 0.0)

    def best(self) -> BestSequences:
        if self.slo.thresholds_s and (self.most >= 1).any():
            powers = 2.0 ** np.arange(np.floor(np.log2(self.most.max())) + 1.0)
            full = self._full_batch()
            shape = (-1, *[1] * self.most.ndim)
            self._try(np.concatenate([full[None], np.broadcast_to(powers.reshape(shape), (len(powers), *full.shape))]))
            for power in _FINER:
                self._try(np.round(np.reshape([2.0**-power, 2.0**power], shape) * self.choice))
        better = self.rate_rps > self.own_rps * (1.0 + NEARLY)
        return BestSequences(
            rate_rps=np.where(better, self.rate_rps, self.own_rps), max_num_seqs=np.where(better, self.choice, np.nan)
        )

    def _try(self, sequences: FloatArray) -> None:
        """Take of (n, *sizes) numbers of sequences what has a higher rate."""
        allowed = (sequences >= 1) & (sequences <= self.most)
        rates = self._state(np.where(allowed, sequences, 1.0)).max_rate_rps(self.slo)
        rates = np.where(allowed, rates, 0.0)
        index = rates.argmax(axis=0)[None]
        rate = np.take_along_axis(rates, index, axis=0)[0]
        better = rate > self.rate_rps
        self.choice = np.where(better, np.take_along_axis(sequences, index, axis=0)[0], self.choice)
        self.rate_rps = np.where(better, rate, self.rate_rps)

    def _full_batch(self) -> FloatArray:
        """The most requests whose full batch keeps the limit on TPOT, for the share that must; 0 for none."""
        limit = self.slo.tpot_s
        if limit is None:
            return np.zeros(self.most.shape)
        outputs = self.sizes[1]
        if self.slo.tpot_definition == "e2e_per_token":
            per_step = np.asarray(limit * outputs / np.maximum(outputs - 1.0, 1.0))
        else:
            per_step = np.full(outputs.shape, limit)
        share = self.slo.tpot_quantile or self.slo.attainment
        deviations = 0.0 if share is None else max(float(ndtri(share)), 0.0)
        low, high = np.zeros(self.most.shape), self.most
        for _ in range(int(np.ceil(np.log2(self.most.max() + 1.0)))):
            middle = np.ceil((low + high) / 2.0)
            state = self._state(np.maximum(middle, 1.0))
            keeps = state.saturated_tpot_s + deviations * state.saturated_tpot_sd_s <= per_step
            low, high = np.where(keeps, middle, low), np.where(keeps, high, middle - 1.0)
            high = np.maximum(high, low)
        return low

    def _state(self, sequences: FloatArray) -> SteadyState:
        wide = [np.broadcast_to(size, sequences.shape) for size in self.sizes]
        return SteadyState(_with_sequences(self.clock, sequences), *wide, max_request_tokens=self.longest_tokens)


def _with_sequences(clock: StepClock, sequences: FloatArray) -> StepClock:
    """The clock under other numbers of sequences, an array that broadcasts against sizes."""
    changed = object.__new__(type(clock))  # validation is about scalars
    for item in fields(clock):
        object.__setattr__(changed, item.name, sequences if item.name == "max_num_seqs" else getattr(clock, item.name))
    return changed
