"""Building an engine: from a model's name or folder and a few options to a NanoFlowEngine that is ready to serve."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.nanoflow.pipeline import Pipeline
from melange.nanoflow.runtime.collectives import TensorParallel
from melange.nanoflow.runtime.config import DecoderConfig
from melange.nanoflow.runtime.decoder import Decoder
from melange.nanoflow.runtime.engine import NanoFlowEngine
from melange.nanoflow.runtime.executor import Executor
from melange.nanoflow.runtime.kv_cache import KvCache, pages_that_fit
from melange.nanoflow.runtime.placement import DTYPES, Placement, usable_device
from melange.nanoflow.runtime.scheduler import Scheduler, SchedulerLimits
from melange.nanoflow.runtime.weights import load_weights, random_weights

GPU_MEMORY_SHARE = 0.9
CPU_KV_GIB = 1.0
DEFAULT_REQUESTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How to run a model.

    ``model`` is a Hugging Face folder or the name of a catalog model; the latter, or ``random_weights``, runs weights
    drawn from ``seed``.
    ``kv_memory_gib``, on each process, is by default 90% of what the weights leave free on a GPU, and 1 GiB on a CPU.
    ``pipeline`` None runs one batch of ``batch_tokens``; else the pipeline's own size counts. ``max_requests`` must be
    less than the batch; None takes the decode requests that the pipeline was searched for, else 256, or half a smaller
    batch. ``expected_output_tokens``: see SchedulerLimits.
    """

    model: str
    dtype: str = "bf16"
    device: str = "cpu"
    tp: int = 1
    batch_tokens: int = 2048
    max_requests: int | None = None
    page_tokens: int = 16
    kv_memory_gib: float | None = None
    max_context_tokens: int | None = None
    expected_output_tokens: int | None = None
    pipeline: Pipeline | None = None
    random_weights: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}", fix=f"use one of {', '.join(DTYPES)}")
        if self.kv_memory_gib is not None and not self.kv_memory_gib > 0:
            raise InputError(f"kv_memory_gib is {self.kv_memory_gib}", fix="give a positive number")
        if self.pipeline is not None and self.pipeline.tp != self.tp:
            raise InputError(f"the pipeline is for tp {self.pipeline.tp}, not {self.tp}", fix="search one for this tp")

    @property
    def run_pipeline(self) -> Pipeline:
        if self.pipeline is not None:
            return self.pipeline
        return Pipeline.unsplit(model=self.model, gpu=self.device, batch_tokens=self.batch_tokens, tp=self.tp)

    @property
    def most_requests(self) -> int:
        """Requests that may be under way at once."""
        if self.max_requests is not None:
            return self.max_requests
        pipeline = self.run_pipeline
        searched = pipeline.decode_tokens or DEFAULT_REQUESTS
        most = pipeline.batch_tokens - 1 if pipeline.decode_tokens else pipeline.batch_tokens // 2
        return max(1, min(searched, most))


def resolve_model(name: str) -> tuple[DecoderConfig, Path | None]:
    """The shape of a model folder, and the folder; or of a catalog model, and None (no weights to read)."""
    folder = Path(name)
    if folder.is_dir():
        return DecoderConfig.from_folder(folder), folder
    if os.sep in name and folder.parent.is_dir():
        raise InputError("no such model folder", file=name)
    return DecoderConfig.from_catalog(load_catalog().model(name)), None


def check_options(options: EngineOptions) -> None:
    """Raise InputError for what cannot run here: the model, the split over processes, the limits, devices, memory."""
    config, _ = resolve_model(options.model)
    config.check_tensor_parallel(options.tp)
    _limits(config, options, pages=1)
    devices = [usable_device(options.device, rank) for rank in range(options.tp)]
    weights = config.parameters * DTYPES[options.dtype].itemsize
    kv = (options.kv_memory_gib or 0.0) * 2**30
    share = 1 if devices[0].type == "cpu" else options.tp  # processes on a CPU share its memory
    needed, free = weights / share + kv * (options.tp // share), _free_bytes(devices[0])
    if needed > free:
        raise InputError(
            f"{options.model}'s weights and KV cache take {needed / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are there",
            fix="use a smaller model, a smaller dtype, more tensor-parallel processes or less KV memory",
        )


def build_engine(options: EngineOptions, parallel: TensorParallel | None = None) -> NanoFlowEngine:
    """Load the weights and reserve the KV cache. A tensor-parallel follower uses only the engine's executor."""
    parallel = parallel or TensorParallel()
    check_options(options)
    config, folder = resolve_model(options.model)
    device = usable_device(options.device, parallel.rank)
    placement = Placement(dtype=DTYPES[options.dtype], device=device, rank=parallel.rank, tp=options.tp)
    if folder is None or options.random_weights:
        weights = random_weights(config, placement, seed=options.seed)
    else:
        weights = load_weights(folder, config, placement)
    tokens = options.page_tokens
    # GPUs may have different amounts of memory left, and every process must hold every page.
    memory = _kv_bytes(options, device)
    pages = parallel.least(pages_that_fit(config, placement, memory_bytes=memory, page_tokens=tokens))
    cache = KvCache.empty(config, placement, pages=pages, page_tokens=tokens)
    limits = _limits(config, options, pages=pages)
    decoder = Decoder(config, weights, cache, batch_tokens=limits.batch_tokens, parallel=parallel)
    return NanoFlowEngine(Scheduler(limits), Executor(decoder, options.run_pipeline, seed=options.seed))


def _free_bytes(device: torch.device) -> float:
    """Memory that a GPU has free; all the memory of the machine on a CPU, whose caches give way."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free)
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _kv_bytes(options: EngineOptions, device: torch.device) -> float:
    if options.kv_memory_gib is not None:
        return options.kv_memory_gib * 2**30
    if device.type == "cpu":
        return CPU_KV_GIB * 2**30
    return _free_bytes(device) * GPU_MEMORY_SHARE


def _limits(config: DecoderConfig, options: EngineOptions, *, pages: int) -> SchedulerLimits:
    context = options.max_context_tokens or config.max_context_tokens
    if context > config.max_context_tokens:
        raise InputError(f"max_context_tokens {context} exceed the model's {config.max_context_tokens}")
    return SchedulerLimits(
        batch_tokens=options.run_pipeline.batch_tokens,
        max_requests=options.most_requests,
        pages=pages,
        page_tokens=options.page_tokens,
        max_context_tokens=context,
        vocabulary=config.vocabulary,
        end_tokens=config.end_tokens,
        expected_output_tokens=options.expected_output_tokens,
    )
