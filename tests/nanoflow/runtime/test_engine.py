"""The engine against transformers: same random weights, same greedy tokens, whatever the batching and the pipeline."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch

from melange.nanoflow.pipeline import Pipeline
from melange.nanoflow.runtime import decoder as decoder_module
from melange.nanoflow.runtime import executor as executor_module
from melange.nanoflow.runtime.batch import Batch
from melange.nanoflow.runtime.build import EngineOptions, build_engine
from melange.nanoflow.runtime.engine import NanoFlowEngine
from melange.nanoflow.runtime.processes import running_engine
from melange.nanoflow.runtime.scheduler import GenerationRequest, Scheduler, SchedulerLimits

MODELS = ["llama", "mixtral"]


def prompts(lengths: list[int], seed: int = 3) -> list[tuple[int, ...]]:
    draw = np.random.default_rng(seed)
    return [tuple(int(t) for t in draw.integers(3, 128, length)) for length in lengths]


def requests(lengths: list[int], outputs: list[int], **changes: Any) -> list[GenerationRequest]:
    return [
        GenerationRequest(**({"id": str(i), "prompt": p, "max_tokens": o, "ignore_end": True} | changes))
        for i, (p, o) in enumerate(zip(prompts(lengths), outputs, strict=True))
    ]


def greedy(oracle: Any, request: GenerationRequest) -> list[int]:
    """transformers' greedy continuation, recomputed from scratch for every token."""
    ids = torch.tensor([request.prompt])
    with torch.no_grad():
        for _ in range(request.max_tokens):
            ids = torch.cat([ids, oracle(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    return [int(t) for t in ids[0, len(request.prompt) :]]


def watch_logits(engine: NanoFlowEngine, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """A list that gets the logits of every iteration."""
    seen: list[torch.Tensor] = []
    logits = engine.executor.decoder.logits

    def keep(batch: Batch) -> torch.Tensor:
        seen.append(logits(batch))
        return seen[-1]

    monkeypatch.setattr(engine.executor.decoder, "logits", keep)
    return seen


def pipelines() -> dict[str, Pipeline]:
    names = {"model": "tiny", "gpu": "cpu"}
    reversed_ = Pipeline.interleaved(**names, splits=(7, 18, 32))
    return {
        "unsplit": Pipeline.unsplit(**names, batch_tokens=32),
        "serial": Pipeline.serial(**names, splits=(12, 32)),
        "interleaved": Pipeline.interleaved(**names, splits=(12, 32)),
        "three": Pipeline.interleaved(**names, splits=(5, 20, 32)),
        # Against every batch's data flow where a prompt is cut: the executor must still find an order that works.
        "reversed": replace(reversed_, operations=tuple(reversed(reversed_.operations))),
    }


LENGTHS = [1, 3, 4, 5, 8, 40, 17, 2, 33, 16, 12, 70]
OUTPUTS = [9, 1, 12, 4, 5, 8, 3, 20, 2, 7, 4, 6]


@pytest.mark.parametrize("order", list(pipelines()))
@pytest.mark.parametrize("model", MODELS)
def test_greedy_tokens_equal_transformers(
    make_engine: Callable[..., NanoFlowEngine], oracles: dict[str, Any], model: str, order: str
) -> None:
    """Ragged requests, prompts longer than a batch, lengths on and beside page boundaries, more than run at once."""
    wanted = requests(LENGTHS, OUTPUTS)
    produced = make_engine(model, pipeline=pipelines()[order]).generate(wanted)
    assert produced == {request.id: greedy(oracles[model], request) for request in wanted}


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 8)), min_size=1, max_size=5),
    splits=st.lists(st.integers(9, 40), min_size=1, max_size=3, unique=True).map(sorted),
    page_tokens=st.integers(1, 9),
    order=st.randoms(use_true_random=False),
)
def test_any_requests_any_splits_any_pages_any_order(
    options: Callable[..., EngineOptions],
    oracles: dict[str, Any],
    drawn: list[tuple[int, int]],
    splits: list[int],
    page_tokens: int,
    order: random.Random,
) -> None:
    pipeline = Pipeline.interleaved(model="tiny", gpu="cpu", splits=splits)
    operations = list(pipeline.operations)
    order.shuffle(operations)
    wanted = requests([length for length, _ in drawn], [outputs for _, outputs in drawn])
    engine = build_engine(options("llama", pipeline=replace(pipeline, operations=operations), page_tokens=page_tokens))
    try:
        produced = engine.generate(wanted)
    finally:
        engine.close()
    assert produced == {request.id: greedy(oracles["llama"], request) for request in wanted}


def test_the_next_batch_is_launched_before_the_last_tokens_are_taken() -> None:
    happened: list[str] = []

    class Launched:
        def __init__(self, number: int) -> None:
            self.number = number

        def tokens(self) -> list[int]:
            happened.append(f"tokens {self.number}")
            return [5]

    class Recorder:
        launches = 0

        def launch(self, batch: Batch) -> Launched:
            self.launches += 1
            happened.append(f"launch {self.launches}")
            return Launched(self.launches)

    limits = SchedulerLimits(
        batch_tokens=8, max_requests=2, pages=8, page_tokens=4, max_context_tokens=32, vocabulary=9
    )
    NanoFlowEngine(Scheduler(limits), Recorder()).generate([GenerationRequest(id="a", prompt=(1, 2), max_tokens=3)])  # type: ignore[arg-type]
    assert happened == ["launch 1", "launch 2", "tokens 1", "launch 3", "tokens 2", "tokens 3"]


@pytest.mark.parametrize("model", MODELS)
def test_half_precision_stays_near_full_precision(
    make_engine: Callable[..., NanoFlowEngine], oracles: dict[str, Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 keeps 8 bits: the logits of a prompt, chunked and split, correlate with fp32's to better than 0.1%."""
    engine = make_engine(model, dtype="bf16", pipeline=pipelines()["interleaved"])
    seen = watch_logits(engine, monkeypatch)
    (request,) = requests([50], [1])
    engine.generate([request])
    with torch.no_grad():
        exact = oracles[model](torch.tensor([request.prompt])).logits[0, -1]
    assert torch.corrcoef(torch.stack([seen[-1][0], exact]))[0, 1] > 0.999


@pytest.mark.parametrize("model", MODELS)
def test_logits_are_close_to_transformers_at_every_step(
    make_engine: Callable[..., NanoFlowEngine], oracles: dict[str, Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(model, pipeline=pipelines()["interleaved"])
    seen = watch_logits(engine, monkeypatch)
    (request,) = requests([50], [6])
    tokens = engine.generate([request])[request.id]
    with torch.no_grad():
        whole = oracles[model](torch.tensor([[*request.prompt, *tokens]]), use_cache=False).logits[0, 49:-1]
    ours = torch.cat([step for step in seen if len(step)])
    torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_tokens_stay_the_same_at_full_memory(
    make_engine: Callable[..., NanoFlowEngine], oracles: dict[str, Any], model: str
) -> None:
    """A cache that holds little more than the longest request: requests wait, or are put back, and lose nothing."""
    wanted = requests(LENGTHS, OUTPUTS)
    page_gib = 3 * 2 * 4 * 2 * 8 * 4 / 2**30
    expected = {request.id: greedy(oracles[model], request) for request in wanted}
    patient = make_engine(model, kv_memory_gib=19.5 * page_gib, pipeline=pipelines()["interleaved"])
    assert patient.scheduler.limits.pages == 19
    assert patient.generate(wanted) == expected
    assert patient.scheduler.put_back_requests == 0
    hasty = make_engine(
        model, kv_memory_gib=19.5 * page_gib, expected_output_tokens=1, pipeline=pipelines()["interleaved"]
    )
    assert hasty.generate(wanted) == expected
    assert hasty.scheduler.put_back_requests > 0


def test_decode_attention_in_small_blocks_is_the_same(
    make_engine: Callable[..., NanoFlowEngine], oracles: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "GATHERED_TOKENS", 40)
    wanted = requests(LENGTHS, OUTPUTS)
    produced = make_engine("llama").generate(wanted)
    assert produced == {request.id: greedy(oracles["llama"], request) for request in wanted}


def test_end_tokens_stop_a_request_unless_ignored(
    make_engine: Callable[..., NanoFlowEngine], oracles: dict[str, Any]
) -> None:
    (request,) = requests([5], [20])
    expected = greedy(oracles["llama"], request)
    engine = make_engine("llama")
    end = expected[6]
    engine.scheduler.limits = replace(engine.scheduler.limits, end_tokens=frozenset({end}))
    stopped = engine.generate([replace(request, ignore_end=False)])[request.id]
    assert stopped == expected[: expected.index(end) + 1]
    assert engine.generate([request])[request.id] == expected


def test_sampling_follows_the_softmax(make_engine: Callable[..., NanoFlowEngine], oracles: dict[str, Any]) -> None:
    """1,600 first tokens at temperature 2: their frequencies lie within 5 standard deviations of the probabilities."""
    (prompt,) = prompts([6])
    with torch.no_grad():
        shares = (oracles["llama"](torch.tensor([prompt])).logits[0, -1] / 2.0).softmax(-1)
    engine = make_engine("llama", batch_tokens=1024, max_requests=128)
    draws = 1600
    produced = engine.generate(
        GenerationRequest(id=str(i), prompt=prompt, max_tokens=1, temperature=2.0) for i in range(draws)
    )
    counts = torch.bincount(torch.tensor([tokens[0] for tokens in produced.values()]), minlength=128)
    deviation = (draws * shares * (1 - shares)).sqrt()
    assert ((counts - draws * shares).abs() <= 5 * deviation + 1).all()


class _LateStream:
    """Like a CUDA stream: work is queued, and done later, in order, once the events waited for have happened."""

    def __init__(self, world: _LateCuda) -> None:
        self.world = world
        self.queue: deque[Callable[[], bool]] = deque()

    def add(self, work: Callable[[], None]) -> None:
        self.queue.append(lambda: work() or True)

    def wait_event(self, event: list[bool]) -> None:
        self.queue.append(lambda: bool(event))

    def record_event(self) -> list[bool]:
        event: list[bool] = []
        self.add(lambda: event.append(True))
        return event

    def wait_stream(self, other: _LateStream) -> None:
        if other is not self.world.main:
            self.world.drain()


class _LateCuda:
    """Stands in for torch.cuda and runs streams in a random interleaving: what events do not order, happens anyhow."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.main = self.current = _LateStream(self)
        self.streams: dict[str, _LateStream] = {}

    def current_stream(self) -> _LateStream:
        return self.main

    @contextmanager
    def stream(self, stream: _LateStream) -> Iterator[None]:
        self.current = stream
        yield
        self.current = self.main

    def drain(self) -> None:
        waiting = [stream for stream in self.streams.values() if stream.queue]
        while waiting:
            # Long runs of one stream let it get as far ahead as the events allow.
            stream = self.random.choice(waiting)
            for _ in range(self.random.randint(1, 30)):
                if not (stream.queue and stream.queue[0]()):
                    break
                stream.queue.popleft()
            waiting = [stream for stream in self.streams.values() if stream.queue]


@pytest.mark.parametrize("order", ["interleaved", "three", "reversed"])
@pytest.mark.parametrize("model", MODELS)
def test_events_alone_order_the_streams(
    make_engine: Callable[..., NanoFlowEngine],
    oracles: dict[str, Any],
    model: str,
    order: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The CUDA path without a GPU: streams that lag and overtake each other at random still give the same tokens."""
    engine = make_engine(model, pipeline=pipelines()[order])
    executor, decoder = engine.executor, engine.executor.decoder
    fake = _LateCuda(seed=1)
    fake.streams = {name: _LateStream(fake) for name in executor.pipeline.streams}
    run = decoder.run
    monkeypatch.setattr(executor_module, "cuda", fake)
    monkeypatch.setattr(executor, "_streams", fake.streams)
    monkeypatch.setattr(decoder, "run", lambda *work: fake.current.add(lambda: run(*work)))
    monkeypatch.setattr(executor, "_run_in_turn", executor._run_on_streams)
    wanted = requests(LENGTHS, OUTPUTS)
    assert engine.generate(wanted) == {request.id: greedy(oracles[model], request) for request in wanted}


@pytest.mark.parametrize("model", MODELS)
def test_two_processes_produce_the_same_tokens(
    options: Callable[..., EngineOptions], oracles: dict[str, Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads and MLPs halved over two gloo processes, the all-reduces in the pipeline's order between nano-batches."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    wanted = requests(LENGTHS, OUTPUTS)
    pipeline = Pipeline.interleaved(model="tiny", gpu="cpu", splits=(12, 32), tp=2)
    with running_engine(options(model, tp=2, pipeline=pipeline)) as engine:
        produced = engine.generate(wanted)
    assert produced == {request.id: greedy(oracles[model], request) for request in wanted}
