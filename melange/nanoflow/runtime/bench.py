"""Bench: a decoder with a batch in place, whose operations and pipelines can be timed one by one.

The timer is passed in: CUDA events on a GPU, a clock on a CPU (which times nothing worth reporting, but runs the same
code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from melange.errors import InputError
from melange.nanoflow.operation_times import OperationTimes
from melange.nanoflow.pipeline import Pipeline
from melange.nanoflow.runtime.batch import Batch, Chunk, join_chunks
from melange.nanoflow.runtime.config import DecoderConfig
from melange.nanoflow.runtime.decoder import Decoder, Placed
from melange.nanoflow.runtime.executor import Executor
from melange.nanoflow.runtime.kv_cache import KvCache
from melange.nanoflow.runtime.launches import launch_order
from melange.nanoflow.runtime.memory import pages_of
from melange.nanoflow.runtime.placement import Placement
from melange.nanoflow.runtime.weights import random_weights
from melange.perfmodel.operations import OperationKind, layer_kinds

Timer = Callable[[Callable[[], None]], float]
PAGE_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The batch to time: ``decode_tokens`` requests at ``context_tokens`` each, and one prompt fills the rest."""

    batch_tokens: int
    decode_tokens: int
    context_tokens: int

    def __post_init__(self) -> None:
        if not (0 < self.decode_tokens < self.batch_tokens and self.context_tokens > 0):
            raise InputError(
                f"{self.decode_tokens} of {self.batch_tokens} tokens decode at context {self.context_tokens}",
                fix="let some tokens decode and some not",
            )

    @property
    def prefill_tokens(self) -> int:
        return self.batch_tokens - self.decode_tokens

    @property
    def pages(self) -> int:
        """KV pages that the batch needs."""
        prompt = pages_of(self.prefill_tokens, PAGE_TOKENS)
        return self.decode_tokens * pages_of(self.context_tokens, PAGE_TOKENS) + prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A decoder, the batch on its device, and how to time work there."""

    plan: BatchPlan
    decoder: Decoder
    batch: Batch
    placed: Placed
    timer: Timer

    @classmethod
    def build(
        cls, config: DecoderConfig, placement: Placement, plan: BatchPlan, timer: Timer, *, seed: int = 0
    ) -> Bench:
        """Random weights, a cache full of random keys and values, and the planned batch."""
        weights = random_weights(config, placement, seed=seed)
        cache = KvCache.empty(config, placement, pages=plan.pages, page_tokens=PAGE_TOKENS)
        cache.pages.normal_(0.0, 1.0, generator=torch.Generator(placement.device).manual_seed(seed))
        decoder = Decoder(config, weights, cache, batch_tokens=plan.batch_tokens)
        batch = planned_batch(plan, config.vocabulary, seed=seed)
        return cls(plan=plan, decoder=decoder, batch=batch, placed=decoder.place(batch), timer=timer)

    def operation(self, kind: OperationKind, start: int, end: int) -> Callable[[], None]:
        """One pass of an operation over all layers, each with its own weights, on these rows."""

        @torch.inference_mode()
        def work() -> None:
            for layer in range(self.decoder.config.layers):
                self.decoder.run(kind, layer, self.placed, start, end)

        return work

    def operation_s(self, kind: OperationKind, start: int, end: int) -> float:
        """Seconds of one layer's operation on these rows, alone."""
        return self.timer(self.operation(kind, start, end)) / self.decoder.config.layers

    def times(self, *, model: str, gpu: str, precision: str, source: str) -> OperationTimes:
        """Every operation at several token counts: quarters of the batch and of its decode and prefill parts."""
        plan = self.plan
        points: dict[OperationKind, tuple[tuple[float, float], ...]] = {}
        for kind in layer_kinds(1):
            base, own = (0, plan.batch_tokens)
            if kind == "decode_attention":
                own = plan.decode_tokens
            if kind == "prefill_attention":
                base, own = plan.decode_tokens, plan.prefill_tokens
            extra = () if kind.endswith("attention") else (plan.decode_tokens, plan.prefill_tokens)
            counts = _quarters(own, extra)
            points[kind] = tuple((n, self.operation_s(kind, base, base + n)) for n in counts)
        return OperationTimes(
            model=model,
            gpu=gpu,
            precision=precision,
            context_tokens=plan.context_tokens,
            points=points,
            source=source,
        )

    def layer_s(self, pipeline: Pipeline, streams: Mapping[str, Any] | None = None) -> float:
        """Seconds that each further layer takes in this pipeline.

        The difference of a run over all layers and one over half of them: prologue and epilogue drop out.
        """
        layers = self.decoder.config.layers
        if layers < 2:
            raise InputError(f"{layers} layer cannot show a pipeline", fix="use at least 2")
        executor = Executor(self.decoder, pipeline, streams=streams)
        try:
            whole, half = (self._run_s(executor, count) for count in (layers, layers // 2))
        finally:
            executor.close()
        return (whole - half) / (layers - layers // 2)

    def logits(self, pipeline: Pipeline, streams: Mapping[str, Any] | None = None) -> Tensor:
        """(sampled rows, vocabulary) that this pipeline computes, to hold against another's."""
        executor = Executor(self.decoder, pipeline, streams=streams)
        try:
            with torch.inference_mode():
                executor.forward(self.batch)
                return self.decoder.logits(self.batch)
        finally:
            executor.close()

    def _run_s(self, executor: Executor, layers: int) -> float:
        launches = launch_order(
            executor.pipeline,
            layers=layers,
            decodes=self.batch.decodes,
            chunk_starts=self.batch.chunk_starts.tolist(),
        )

        @torch.inference_mode()
        def work() -> None:
            executor.execute(launches, self.placed)

        return self.timer(work)


def planned_batch(plan: BatchPlan, vocabulary: int, *, seed: int) -> Batch:
    """The batch of a plan, with pages of its own for every request and random tokens."""
    draw = np.random.default_rng(seed)
    each = pages_of(plan.context_tokens, PAGE_TOKENS)

    def chunk(start: int, tokens: int, first_page: int, pages: int) -> Chunk:
        return Chunk(
            start=start,
            tokens=tokens,
            pages=np.arange(first_page, first_page + pages, dtype=np.int64),
            ids=draw.integers(0, vocabulary, tokens),
            carried_from=None,
            sampled=True,
            temperature=0.0,
        )

    chunks = [chunk(plan.context_tokens - 1, 1, request * each, each) for request in range(plan.decode_tokens)]
    taken = plan.decode_tokens * each
    chunks.append(chunk(0, plan.prefill_tokens, taken, plan.pages - taken))
    return join_chunks(chunks, decodes=plan.decode_tokens, page_tokens=PAGE_TOKENS)


def _quarters(tokens: int, extra: Iterable[int]) -> list[int]:
    return sorted({max(1, tokens * part // 4) for part in (1, 2, 3, 4)} | set(extra))
