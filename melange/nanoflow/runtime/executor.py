"""Executor: runs batches through a decoder in the order of a pipeline, on CUDA streams or, without them, on a CPU."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from melange.errors import InputError
from melange.nanoflow.pipeline import Pipeline
from melange.nanoflow.runtime.batch import Batch
from melange.nanoflow.runtime.decoder import Decoder, Placed, draw_tokens
from melange.nanoflow.runtime.launches import Launch, launch_order

REMEMBERED_ORDERS = 256

cuda: Any = torch.cuda  # its own annotations are incomplete


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What an iteration produced: ``tokens`` (sampled rows,) in host memory once ``ready`` has happened."""

    tokens: Tensor
    ready: torch.cuda.Event | None


@dataclass(frozen=True, slots=True)
class InFlight:
    """An iteration that was launched and may still run."""

    future: Future[Output]

    def tokens(self) -> list[int]:
        """Wait for the iteration's tokens, one a sampled row."""
        output = self.future.result()
        if output.ready is not None:
            output.ready.synchronize()
        return [int(token) for token in output.tokens]


class Executor:
    """Launches iterations from a thread of its own, so that the next batch is formed while one runs.

    ``streams`` gives the CUDA stream of each of the pipeline's streams where they should not be made here (a green
    context's, for example); a CPU has none, and runs the same launches one after the other.
    """

    def __init__(
        self, decoder: Decoder, pipeline: Pipeline, *, seed: int = 0, streams: Mapping[str, Any] | None = None
    ) -> None:
        if pipeline.tp != decoder.parallel.tp:
            raise InputError(f"a pipeline for tp {pipeline.tp} on {decoder.parallel.tp} processes")
        self.decoder = decoder
        self.pipeline = pipeline
        self._cuda = decoder.device.type == "cuda"
        self._streams = dict(streams or {})
        if self._cuda and not self._streams:
            self._streams = {name: cuda.Stream(decoder.device) for name in pipeline.streams}
        self._orders: dict[tuple[int, ...], tuple[Launch, ...]] = {}
        self._previous: Tensor | None = None
        self._generator = torch.Generator(decoder.device).manual_seed(seed)
        self._boundaries = sorted({op.end_token for op in pipeline.operations})
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nanoflow")

    def launch(self, batch: Batch) -> InFlight:
        """Start an iteration after those launched before; returns at once."""
        return InFlight(self._thread.submit(self._lead, batch))

    def follow(self) -> None:
        """Run what the leader of the tensor-parallel processes launches, until it closes."""
        while (batch := self.decoder.parallel.share_batch(None)) is not None:
            self._run(batch)

    def close(self) -> None:
        """Finish what is launched and release the followers."""
        self._thread.submit(self.decoder.parallel.share_batch, None).result()
        self._thread.shutdown()

    def _lead(self, batch: Batch) -> Output:
        self.decoder.parallel.share_batch(batch)
        return self._run(batch)

    @torch.inference_mode()
    def _run(self, batch: Batch) -> Output:
        with cuda.device(self.decoder.device) if self._cuda else nullcontext():
            self.forward(batch)
            tokens = self._sample(batch)
            self._previous = tokens
            if not self._cuda:
                return Output(tokens=tokens, ready=None)
            host = tokens.to("cpu", non_blocking=True)
            ready = cuda.Event()
            ready.record()
            return Output(tokens=host, ready=ready)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> None:
        """Embed the batch and run every layer's operations in the pipeline's order."""
        placed = self.decoder.place(batch)
        self.decoder.embed(batch, self._previous)
        self.execute(self._order(batch), placed)

    def execute(self, launches: tuple[Launch, ...], placed: Placed) -> None:
        """Run these launches on the rows of a placed batch; on CUDA, what follows on this stream waits for them."""
        if self._cuda:
            self._run_on_streams(launches, placed)
        else:
            self._run_in_turn(launches, placed)

    def _run_in_turn(self, launches: tuple[Launch, ...], placed: Placed) -> None:
        for launch in launches:
            self.decoder.run(launch.kind, launch.layer, placed, launch.start, launch.end)

    def _run_on_streams(self, launches: tuple[Launch, ...], placed: Placed) -> None:
        main = cuda.current_stream()
        for stream in self._streams.values():
            stream.wait_stream(main)
        ended: dict[int, Any] = {}
        for place, launch in enumerate(launches):
            stream = self._streams[launch.stream]
            for parent in launch.waits:
                stream.wait_event(ended[parent])
            with cuda.stream(stream):
                self.decoder.run(launch.kind, launch.layer, placed, launch.start, launch.end)
            if launch.signals:
                ended[place] = stream.record_event()
        for stream in self._streams.values():
            main.wait_stream(stream)

    def _order(self, batch: Batch) -> tuple[Launch, ...]:
        starts = batch.chunk_starts.tolist()
        # Launches depend on a batch's chunks only by which of them a nano-operation's boundary falls into.
        cut = [starts[bisect_right(starts, end) - 1] for end in self._boundaries if end < batch.tokens]
        key = (batch.tokens, batch.decodes, *cut)
        if key not in self._orders:
            if len(self._orders) >= REMEMBERED_ORDERS:
                del self._orders[next(iter(self._orders))]
            self._orders[key] = launch_order(
                self.pipeline, layers=self.decoder.config.layers, decodes=batch.decodes, chunk_starts=starts
            )
        return self._orders[key]

    def _sample(self, batch: Batch) -> Tensor:
        logits = self.decoder.logits(batch)
        if batch.temperatures.any():
            temperatures = torch.as_tensor(batch.temperatures, dtype=torch.float32).to(logits.device)
            tokens = draw_tokens(logits, temperatures, self._generator)
        else:
            tokens = logits.argmax(-1)
        return self.decoder.parallel.from_leader(tokens)
