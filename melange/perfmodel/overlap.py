"""OverlappedClock: a StepClock whose engine may run an iteration as two overlapped nano-batches (``engine: nanoflow``).

A closed form of the pipeline search's stage II, for the many iterations that an estimate asks about. An iteration of
n tokens is cut in halves; dense operations D = 2 gemm(n / 2) + prefill attention then read the weights twice, and
while one half computes, the other half's decode attention A and collectives N run beside it. A kernel at the share R
of the device reaches the share P(R) of its speed and takes R of the dense operations' speed meanwhile::

    overlapped = alone + min over R_A, R_N of max(D + A R_A / P(R_A) + N R_N / P(R_N), A / P(R_A) + N / P(R_N))

where ``alone``, run beside nothing, is the host, small operations, and launching everything twice.

The clock takes the lesser of that and the sequential iteration, so nano-batching never costs anything: an engine that
finds it slower runs one batch. It is a prediction, from an interference table that was measured on one GPU type.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.files.shipped import data_path
from melange.perfmodel.clock import StepClock
from melange.perfmodel.interference import Interference, read_interference
from melange.perfmodel.operations import layer_kinds

LAUNCH_S = 5e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlappedClock(StepClock):
    """A StepClock with the interference table's (R, P(R)) choices, the whole device among them.

    ``split_s`` is what launching every operation of every layer once more costs an iteration.
    """

    memory_curve: tuple[tuple[float, float], ...]
    network_curve: tuple[tuple[float, float], ...]
    split_s: float = 0.0

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
        """The lesser of the sequential and the overlapped iteration, elementwise, in seconds."""
        sequential = StepClock.iteration_s(
            self,
            decodes=decodes,
            kv_tokens=kv_tokens,
            prefill_tokens=prefill_tokens,
            prefill_pairs=prefill_pairs,
            prefills=prefills,
            new_requests=new_requests,
        )
        tokens = np.add(decodes, prefill_tokens, dtype=float)
        attention = self.kv_read_s_per_token * np.asarray(kv_tokens, float)
        network = self.collective_s + self.collective_s_per_token * tokens
        prefill = self.attention_s_per_pair * np.asarray(prefill_pairs, float)
        alone = sequential - self.gemm_s(tokens) - attention - network - prefill
        dense = 2.0 * self.gemm_s(tokens / 2.0) + prefill
        # A collective's latency, like a launch, is paid once per nano-batch.
        overlapped = alone + self.split_s + self._beside_s(dense, attention, network + self.collective_s)
        return np.asarray(np.where(tokens >= 2.0, np.minimum(sequential, overlapped), sequential))

    def _beside_s(self, dense: FloatArray, attention: FloatArray, network: FloatArray) -> FloatArray:
        """The least period over all choices of a share for decode attention and one for collectives."""
        pairs = [
            (attention_share, 1 / attention_reached, network_share, 1 / network_reached)
            for (attention_share, attention_reached), (network_share, network_reached) in itertools.product(
                self.memory_curve, self.network_curve
            )
        ]
        shape = (len(pairs), *(1,) * np.broadcast(dense, attention, network).ndim)
        r_a, slow_a, r_n, slow_n = (np.array(column).reshape(shape) for column in zip(*pairs, strict=True))
        taken = dense + attention * r_a * slow_a + network * r_n * slow_n
        return np.asarray(np.maximum(taken, attention * slow_a + network * slow_n).min(axis=0))


def overlapped_clock(clock: StepClock, interference: Interference, *, layers: int, tp: int = 1) -> OverlappedClock:
    """The clock of the same configuration under an engine that may overlap two nano-batches.

    Raises InputError where the table knows nothing of decode attention.
    """
    if not interference.memory:
        raise InputError(
            "the interference table has no memory curve", fix="give one that was measured with decode attention"
        )
    curves = interference.curves()
    values = {item.name: getattr(clock, item.name) for item in fields(StepClock)} | {
        "memory_curve": curves["memory"],
        "network_curve": curves["network"] if tp > 1 else ((1.0, 1.0),),
        "split_s": layers * len(layer_kinds(tp)) * LAUNCH_S,
    }
    both = object.__new__(OverlappedClock)  # the clock passed its validation, which is about scalars, not stacks
    for name, value in values.items():
        object.__setattr__(both, name, value)
    return both


def engine_clock(clock: StepClock, *, engine: str, layers: int, tp: int) -> StepClock:
    """The clock under an engine: ``nanoflow`` may overlap, by the shipped table; any other keeps the clock."""
    return overlapped_clock(clock, shipped_interference(), layers=layers, tp=tp) if engine == "nanoflow" else clock


@cache
def shipped_interference() -> Interference:
    """The more cautious of the two published tables, both measured on an A100."""
    return read_interference(data_path("profiles/nanoflow/interference-authors.yaml"))
