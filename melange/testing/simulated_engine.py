"""SimulatedEngine: a batching server in virtual time, with a capacity that can be computed as exactly as one likes.

Prefills run one at a time and before decodes, and every decode step gives each running request one token in
``step_s + step_per_sequence_s * running`` seconds: enough to have queueing, interference and saturation. All requests
of a load are alike, so they finish in the order in which they were admitted.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from melange.arrays import FloatArray
from melange.profiler.load import Load, LoadRun, RequestRecord, Size
from melange.profiler.statistics import LOOKS
from melange.slo import Slo, tpot_s

OVERTIME = 3.0


def serve(
    sent_s: FloatArray,
    concurrency: int,
    until_s: float,
    output_tokens: int,
    prefill_s: float,
    step_s: float,
    step_per_sequence_s: float,
    max_sequences: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Times (sent, first token, end), each (n,), infinite where not reached by ``until_s``.

    ``sent_s`` are ascending arrivals; with ``concurrency`` > 0 it is a mere buffer, and each end sends the next one.
    Plain loops over arrays: numba compiles it as it stands.
    """
    total = len(sent_s)
    sent = sent_s.copy()
    first, end = np.full(total, np.inf), np.full(total, np.inf)
    finish_step = np.zeros(total, dtype=np.int64)
    if concurrency > 0:
        sent[:] = np.inf
        sent[:concurrency] = 0.0
    head = admitted = steps = 0
    known = concurrency
    now = 0.0
    while now < until_s and head < total:
        if admitted < total and sent[admitted] <= now and admitted - head < max_sequences:
            now += prefill_s
            first[admitted] = now
            finish_step[admitted] = steps + output_tokens - 1
            admitted += 1
        elif admitted > head:
            now += step_s + step_per_sequence_s * (admitted - head)
            steps += 1
        elif admitted < total:
            now = max(now, sent[admitted])
        while head < admitted and finish_step[head] <= steps:
            end[head] = now
            head += 1
            if concurrency > 0 and known < total:
                sent[known] = now
                known += 1
    return sent, first, end


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedEngine:
    """A server whose prefill takes ``prefill_s_per_token`` x input tokens; times in seconds.

    ``noise`` is the relative standard deviation of a factor on each load's times: what differs from run to run.
    """

    step_s: float = 0.012
    step_per_sequence_s: float = 0.0006
    prefill_s_per_token: float = 0.00005
    max_sequences: int = 256
    noise: float = 0.0

    def run(self, load: Load, stop: Callable[[LoadRun], bool]) -> LoadRun:
        """Run a load as :func:`melange.profiler.loadgen.run_load` would, without the waiting."""
        sent, first, end = self._times(load, OVERTIME * load.max_s)
        ends = np.sort(end)
        if load.loop == "closed":
            enough = ends[load.min_requests - 1] if load.min_requests <= len(ends) else math.inf
            return self._until(load, min(float(enough), max(load.max_s, float(ends[0]))), sent, first, end)
        for share, _ in LOOKS:
            run = self._until(load, share * load.max_s, sent, first, end)
            if len(run.records) >= load.min_requests and stop(run):
                return run
        if not run.records:
            return self._until(load, min(float(ends[0]), OVERTIME * load.max_s), sent, first, end)
        return run

    def _times(self, load: Load, until_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        draw = random.Random(f"simulated {load.seed}")
        factor = math.exp(draw.gauss(0.0, self.noise)) if self.noise else 1.0
        if load.rate_rps is not None:
            arrivals, at = [], draw.expovariate(load.rate_rps)
            while at < load.max_s:
                arrivals.append(at)
                at += draw.expovariate(load.rate_rps)
            sent = np.array(arrivals or [0.0])
        else:
            lone = self.lone_e2e_s(load.size) * factor
            sent = np.zeros(math.ceil((load.concurrency or 1) * (until_s / lone + 2)))
        return serve(
            sent,
            load.concurrency or 0,
            until_s,
            load.size.output_tokens,
            self.prefill_s_per_token * load.size.input_tokens * factor,
            self.step_s * factor,
            self.step_per_sequence_s * factor,
            self.max_sequences,
        )

    def lone_e2e_s(self, size: Size) -> float:
        """Latency of a request that has the engine to itself."""
        prefill = self.prefill_s_per_token * size.input_tokens
        return prefill + (size.output_tokens - 1) * (self.step_s + self.step_per_sequence_s)

    def saturation_rps(self, size: Size) -> float:
        """Highest throughput: every slot taken, prefills and decodes sharing the time."""
        slots = self.max_sequences
        prefill = self.prefill_s_per_token * size.input_tokens
        return 1 / (prefill + (size.output_tokens - 1) * (self.step_s / slots + self.step_per_sequence_s))

    def _until(self, load: Load, at_s: float, sent: FloatArray, first: FloatArray, end: FloatArray) -> LoadRun:
        done = np.flatnonzero(end <= at_s)
        waiting = (sent <= at_s) & (end > at_s)
        tokens = load.size
        records = tuple(
            RequestRecord(
                sent_s=float(sent[n]),
                scheduled_s=float(sent[n]),
                first_s=float(first[n]),
                end_s=float(end[n]),
                input_tokens=tokens.input_tokens,
                output_tokens=tokens.output_tokens,
            )
            for n in done
        )
        return LoadRun(load=load, records=records, in_flight_sent_s=tuple(sent[waiting].tolist()), elapsed_s=at_s)

    def true_capacity_rps(
        self, size: Size, slo: Slo, *, requests: int = 40_000, serve_with: Callable[..., object] = serve
    ) -> float:
        """Largest Poisson rate whose long-run statistic keeps the SLO, by bisection over long runs; 0 if none does.

        ``serve_with`` may be ``numba.njit(serve)``, which is some hundred times faster.
        """
        arrivals = np.random.default_rng(2024).exponential(size=requests).cumsum()
        low, high = 0.0, self.saturation_rps(size)
        if not self._holds(size, slo, arrivals / (high * 1e-3), serve_with):
            return 0.0
        while high - low > 0.002 * high:
            middle = (low + high) / 2
            if self._holds(size, slo, arrivals / middle, serve_with):
                low = middle
            else:
                high = middle
        return (low + high) / 2

    def _holds(self, size: Size, slo: Slo, sent_s: FloatArray, serve_with: Callable[..., object]) -> bool:
        times = serve_with(
            sent_s,
            0,
            math.inf,
            size.output_tokens,
            self.prefill_s_per_token * size.input_tokens,
            self.step_s,
            self.step_per_sequence_s,
            self.max_sequences,
        )
        sent, first, end = (column[len(sent_s) // 10 :] for column in times)  # type: ignore[attr-defined]
        ttft, e2e = first - sent, end - sent
        if slo.attainment is not None:
            met = slo.met(e2e_s=e2e, ttft_s=ttft, output_tokens=size.output_tokens)
            return float(met.mean()) >= slo.attainment
        if slo.quantiles:
            within = slo.within(e2e_s=e2e, ttft_s=ttft, output_tokens=size.output_tokens)
            return all(float(within[name].mean()) >= quantile for name, quantile in slo.quantiles.items())
        tpot = tpot_s(slo.tpot_definition, e2e_s=e2e, ttft_s=ttft, output_tokens=size.output_tokens)
        means = {"tpot": float(tpot.mean()), "ttft": float(ttft.mean()), "e2e": float(e2e.mean())}
        return all(means[name] <= limit for name, limit in slo.thresholds_s.items())
