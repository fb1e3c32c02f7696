"""The measurements of one GPU: operation times, interference, a search on them, and four arms beside predictions.

It has not been run on a GPU yet: its arithmetic and its course are tested on a CPU, its timings are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from melange.errors import EngineError, InputError
from melange.nanoflow.nano_graph import NanoGraph
from melange.nanoflow.pipeline import Pipeline
from melange.nanoflow.pipeline_search import search_pipeline
from melange.nanoflow.runtime.bench import PAGE_TOKENS, BatchPlan, Bench, Timer
from melange.nanoflow.runtime.build import resolve_model
from melange.nanoflow.runtime.config import DecoderConfig
from melange.nanoflow.runtime.overlap_samples import OverlapSample, interference_curve, partition_for
from melange.nanoflow.runtime.placement import DTYPES, Placement, usable_device
from melange.nanoflow.runtime.report import Arm, GpuReport
from melange.perfmodel.interference import Interference

Samples = tuple[list[OverlapSample], str | None]
MEMORY_SHARE = 0.9
# The launches of more layers fill the GPU's queue (1024 kernels a stream), and Python's own time would show.
MOST_LAYERS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """How to measure on a device: a timer, the two-kernel samples (and why some are missing), confined streams."""

    timer: Timer
    samples: Callable[[Bench], Samples]
    confined_stream: Callable[[int], tuple[Any, Any]]
    streams: Callable[[], dict[str, Any]]


def measure_gpu(
    *, model: str, plan: BatchPlan, layers: int = 8, dtype: str = "fp16", time_limit_s: float = 60.0
) -> GpuReport:
    """Measure the first CUDA device with ``layers`` layers of a model's shape and random weights.

    Takes minutes. A machine without a CUDA device, a mixture of experts (its routing waits for the host, which a queue
    behind a pause cannot) and a shape beyond the GPU's memory raise InputError.
    """
    from melange.nanoflow.runtime.cuda_timing import confined_stream, cuda, cuda_timer, overlap_samples

    device = usable_device("cuda")
    config = _measurable(model, layers)
    placement = Placement(dtype=DTYPES[dtype], device=device)
    _check_memory(config, placement, plan)
    properties = torch.cuda.get_device_properties(device)
    facts = {
        "GPU": properties.name,
        "multiprocessors": str(properties.multi_processor_count),
        "memory": f"{properties.total_memory / 2**30:.1f} GiB",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    instruments = Instruments(
        timer=cuda_timer,
        samples=overlap_samples,
        confined_stream=confined_stream,
        streams=lambda: {name: cuda.Stream() for name in ("compute", "memory")},
    )
    report = measure(
        config, placement, plan, instruments, gpu=properties.name, precision=dtype, time_limit_s=time_limit_s
    )
    return replace(report, facts=facts | dict(report.facts))


def measure(
    config: DecoderConfig,
    placement: Placement,
    plan: BatchPlan,
    instruments: Instruments,
    *,
    gpu: str,
    precision: str,
    time_limit_s: float,
) -> GpuReport:
    """The measurements and the search, with whatever instruments the device has."""
    bench = Bench.build(config, placement, plan, instruments.timer)
    source = f"measured on {gpu} with torch {torch.__version__}, {config.layers} layers, random weights"
    times = bench.times(model=config.name, gpu=gpu, precision=precision, source=source)
    samples, obstacle = instruments.samples(bench)
    interference = Interference(
        gpu=gpu, source=f"measured: up_gate beside decode attention on {gpu}", memory=interference_curve(samples)
    )
    found = search_pipeline(
        times,
        interference,
        batch_tokens=plan.batch_tokens,
        decode_tokens=plan.decode_tokens,
        time_limit_s=time_limit_s,
    ).pipeline
    notes = [] if obstacle is None else [f"Streams could not be confined: {obstacle}."]
    split, prediction, predicted_s = found, "stage II", found.stage2_s
    if found.nano_batches == 1:
        notes.append("The search says not to split: the split arms run the paper's order, unsearched.")
        split = Pipeline.interleaved(model=config.name, gpu=gpu, splits=(plan.decode_tokens, plan.batch_tokens))
        prediction, predicted_s = "not searched", None
    whole = Pipeline.unsplit(model=config.name, gpu=gpu, batch_tokens=plan.batch_tokens)
    serial = Pipeline.serial(model=config.name, gpu=gpu, splits=split.splits)
    serial_s = NanoGraph.of(times, splits=split.splits, decode_tokens=plan.decode_tokens).serial_s()
    arms = _Arms(
        bench=bench,
        instruments=instruments,
        split=split,
        prediction=prediction,
        predicted_s=predicted_s,
        expected=bench.logits(whole),
        obstacle=obstacle,
    )
    return GpuReport(
        facts=_facts(config, plan, precision),
        times=times,
        samples=tuple(samples),
        interference=interference,
        pipeline=found,
        arms=(
            arms.run("one batch", whole, "sum of operations", found.unsplit_s),
            arms.run("split, serial", serial, "sum of nano-operations", serial_s),
            arms.overlapped(),
            arms.confined(samples),
        ),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arms:
    """What the arms share: ``expected`` are the logits of one batch, ``obstacle`` says why nothing can be confined."""

    bench: Bench
    instruments: Instruments
    split: Pipeline
    prediction: str
    predicted_s: float | None
    expected: Tensor
    obstacle: str | None

    def run(
        self, name: str, pipeline: Pipeline, prediction: str, predicted_s: float | None, streams: Any = None
    ) -> Arm:
        logits = self.bench.logits(pipeline, streams)
        return Arm(
            name=name,
            splits=pipeline.splits,
            prediction=prediction,
            predicted_s=predicted_s,
            measured_s=self.bench.layer_s(pipeline, streams),
            difference=float((logits - self.expected).abs().max() / self.expected.abs().max()),
        )

    def overlapped(self) -> Arm:
        streams = self.instruments.streams()
        return self.run("overlapped streams", self.split, self.prediction, self.predicted_s, streams)

    def confined(self, samples: list[OverlapSample]) -> Arm:
        """Decode attention confined to as many multiprocessors as its share R of the searched pipeline asks for."""
        share = next(op.share for op in self.split.operations if op.kind == "decode_attention")
        sms = partition_for(samples, share)
        if sms is None:
            return self.not_run(self.obstacle or f"no confined stream left the GEMM {1 - share:.0%} of its speed")
        try:
            stream = self.instruments.confined_stream(sms)  # a pair: the stream lives as long as its context
        except EngineError as error:
            return self.not_run(str(error))
        streams = self.instruments.streams() | {"memory": stream[1]}
        name = f"overlapped, attention confined to {sms} multiprocessors"
        return self.run(name, self.split, self.prediction, self.predicted_s, streams)

    def not_run(self, reason: str) -> Arm:
        return Arm(
            name="overlapped, attention confined",
            splits=self.split.splits,
            prediction=self.prediction,
            predicted_s=self.predicted_s,
            measured_s=None,
            not_run=reason,
        )


def _facts(config: DecoderConfig, plan: BatchPlan, precision: str) -> dict[str, str]:
    return {
        "model": f"{config.name}, {config.layers} layers of it, {precision}, random weights",
        "batch": f"{plan.batch_tokens} tokens: {plan.decode_tokens} requests decode at context "
        f"{plan.context_tokens}, one prompt of {plan.prefill_tokens}",
        "layer time": "difference between all layers and half of them, median of repeated runs",
    }


def _measurable(model: str, layers: int) -> DecoderConfig:
    config, _ = resolve_model(model)
    if config.experts:
        raise InputError(f"{model} routes to experts", fix="measure a dense model")
    if not 2 <= layers <= MOST_LAYERS:
        raise InputError(f"{layers} layers", fix=f"use 2 to {MOST_LAYERS}")
    return replace(config, layers=min(layers, config.layers))


def _check_memory(config: DecoderConfig, placement: Placement, plan: BatchPlan) -> None:
    element = placement.dtype.itemsize
    tokens = plan.pages * PAGE_TOKENS
    cache = tokens * config.layers * 2 * config.kv_heads * config.head_size * element
    needed = config.parameters * element + cache
    free, _ = torch.cuda.mem_get_info(placement.device)
    if needed > MEMORY_SHARE * free:
        raise InputError(
            f"{config.layers} layers, their KV cache and embeddings take {needed / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free",
            fix="measure fewer layers, a smaller batch or a shorter context",
        )
