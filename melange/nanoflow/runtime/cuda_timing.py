"""Timing on an NVIDIA GPU: work alone, two kernels at once, and streams confined to part of the multiprocessors."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from melange.errors import EngineError
from melange.nanoflow.runtime.bench import Bench
from melange.nanoflow.runtime.overlap_samples import OverlapSample, TimedJob, overlap_performance

WARM_UPS = 3
REPEATS = 11
# Work is queued behind a pause of some 50 ms, so that the time Python takes to launch it does not show.
PAUSE_CYCLES = 100_000_000
SM_STEP = 8
OVERLAP_S = 0.02

cuda: Any = torch.cuda  # its own annotations are incomplete


def cuda_timer(work: Callable[[], None]) -> float:
    """Median seconds of the GPU's own time for ``work``, launched on the current stream and whatever joins it."""
    taken = []
    for repeat in range(WARM_UPS + REPEATS):
        begin, end = (cuda.Event(enable_timing=True) for _ in range(2))
        cuda._sleep(PAUSE_CYCLES)
        begin.record()
        work()
        end.record()
        end.synchronize()
        if repeat >= WARM_UPS:
            taken.append(begin.elapsed_time(end) / 1000)
    return float(statistics.median(taken))


def confined_stream(sms: int) -> tuple[Any, Any]:
    """(context, stream): a stream whose kernels run on about ``sms`` multiprocessors; keep the context alive.

    Raises EngineError where torch, the driver or the GPU cannot do it.
    """
    try:
        from torch.cuda.green_contexts import GreenContext

        context: Any = GreenContext.create(num_sms=sms, device_id=cuda.current_device())
        stream = context.Stream()
        _on(stream, lambda: None)()
        return context, stream
    except (ImportError, AttributeError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EngineError(f"no stream confined to {sms} multiprocessors: {reason}") from None


def overlap_samples(bench: Bench) -> tuple[list[OverlapSample], str | None]:
    """The up-gate GEMM of the prefill tokens beside decode attention, with attention given more and more of the device.

    Attention runs on streams confined to a part of the multiprocessors, where that is possible (else the second value
    says why not), and on unconfined streams of low and of high priority.
    """
    plan = bench.plan
    gemm = bench.operation("up_gate", plan.decode_tokens, plan.batch_tokens)
    other = bench.operation("decode_attention", 0, plan.decode_tokens)
    samples = [
        _sample(gemm, other, cuda.Stream(priority=priority), None, f"unconfined stream of {name} priority")
        for name, priority in (("low", 0), ("high", -1))
    ]
    total = cuda.get_device_properties(cuda.current_device()).multi_processor_count
    try:
        for sms in range(SM_STEP, total, SM_STEP):
            context, stream = confined_stream(sms)
            samples.append(_sample(gemm, other, stream, sms, f"stream confined to {sms} of {total} multiprocessors"))
            del context
    except EngineError as error:
        return samples, str(error)
    return samples, None


def _sample(
    gemm: Callable[[], None], other: Callable[[], None], stream: Any, sms: int | None, how: str
) -> OverlapSample:
    works = (gemm, other)
    counts = [max(1, round(OVERLAP_S / cuda_timer(work))) for work in works]
    jobs = [_repeat(work, count) for work, count in zip(works, counts, strict=True)]
    streams = (cuda.Stream(), stream)
    alone = [cuda_timer(job) for job in jobs]
    placed = [cuda_timer(_on(stream, job)) for stream, job in zip(streams, jobs, strict=True)]
    runs = sorted((_together(jobs, streams) for _ in range(REPEATS)), key=max)
    ends = runs[len(runs) // 2]
    timed = [TimedJob(alone_s=a, placed_s=p, ended_s=e) for a, p, e in zip(alone, placed, ends, strict=True)]
    kept, reached = overlap_performance(timed[0], timed[1])
    return OverlapSample(gemm=kept, other=reached, sms=sms, how=how)


def _together(jobs: list[Callable[[], None]], streams: tuple[Any, Any]) -> tuple[float, float]:
    """When each of two jobs ended, in seconds after both were let go."""
    cuda.synchronize()
    begin = cuda.Event(enable_timing=True)
    ends = [cuda.Event(enable_timing=True) for _ in jobs]
    cuda._sleep(PAUSE_CYCLES)
    begin.record()
    for job, stream, end in zip(jobs, streams, ends, strict=True):
        stream.wait_event(begin)
        with cuda.stream(stream):
            job()
        end.record(stream)
    cuda.synchronize()
    first, second = (begin.elapsed_time(end) / 1000 for end in ends)
    return first, second


def _on(stream: Any, work: Callable[[], None]) -> Callable[[], None]:
    def moved() -> None:
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            work()
        cuda.current_stream().wait_stream(stream)

    return moved


def _repeat(work: Callable[[], None], count: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(count):
            work()

    return repeated
