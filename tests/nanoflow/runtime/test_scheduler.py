"""Scheduler and predictor: full batches, order, and memory that never overflows, for any run of any requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from melange.errors import InputError
from melange.nanoflow.runtime.batch import Batch
from melange.nanoflow.runtime.memory import LiveRequest, pages_of, peak_pages
from melange.nanoflow.runtime.scheduler import GenerationRequest, Scheduler, SchedulerLimits

END = 7


def limits(**changes: int | None) -> SchedulerLimits:
    values: dict[str, int | None] = {
        "batch_tokens": 16,
        "max_requests": 4,
        "pages": 32,
        "page_tokens": 4,
        "max_context_tokens": 64,
        "vocabulary": 100,
    }
    return SchedulerLimits(**(values | changes), end_tokens=frozenset({END}))  # type: ignore[arg-type]


def drive(
    scheduler: Scheduler,
    arrivals: list[tuple[int, GenerationRequest]],
    draw_token: Callable[[], int],
    watch: Callable[[Batch], None] = lambda batch: None,
    cancels: dict[int, str] | None = None,
) -> dict[str, list[int]]:
    """Run to the end as the engine does: batch i + 1 is formed before the tokens of batch i are handed in."""
    outputs: dict[str, list[int]] = defaultdict(list)
    in_flight: Batch | None = None
    pending = sorted(arrivals, key=lambda item: item[0])
    step = 0
    while pending or not scheduler.idle:
        while pending and pending[0][0] <= step:
            scheduler.submit(pending.pop(0)[1])
        batch = scheduler.form()
        if batch is not None:
            watch(batch)
        if cancels and step in cancels:
            scheduler.cancel(cancels[step])
        if in_flight is not None:
            for event in scheduler.complete([draw_token() for _ in in_flight.sampled_rows]):
                outputs[event.request_id].append(event.token)
        in_flight = batch
        step += 1
        assert step < 5000, "the scheduler makes no progress"
    return outputs


REQUESTS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40), st.integers(1, 24)), min_size=1, max_size=14)


def requests_of(drawn: list[tuple[int, int, int]], *, ignore_end: bool) -> list[tuple[int, GenerationRequest]]:
    return [
        (at, GenerationRequest(id=str(i), prompt=(1,) * prompt, max_tokens=out, ignore_end=ignore_end))
        for i, (at, prompt, out) in enumerate(drawn)
    ]


@settings(deadline=None, max_examples=150)
@given(
    drawn=REQUESTS,
    pages=st.integers(16, 40),
    page_tokens=st.sampled_from([1, 4, 16]),
    batch_tokens=st.integers(5, 40),
    tokens=st.randoms(use_true_random=False),
    ends=st.booleans(),
)
def test_admission_never_lets_memory_overflow(
    drawn: list[tuple[int, int, int]], pages: int, page_tokens: int, batch_tokens: int, tokens: object, ends: bool
) -> None:
    pages = max(pages, pages_of(63, page_tokens))
    scheduler = Scheduler(limits(pages=pages, page_tokens=page_tokens, batch_tokens=batch_tokens))
    end_token = (lambda: END if tokens.random() < 0.2 else 1) if ends else (lambda: 1)  # type: ignore[attr-defined]
    arrivals = requests_of(drawn, ignore_end=not ends)
    outputs = drive(scheduler, arrivals, end_token)
    # Putting a request back is how a lack of pages shows: with max_tokens as the forecast it must never happen.
    assert scheduler.put_back_requests == 0
    assert scheduler.free_pages == pages
    for _, request in arrivals:
        produced = outputs[request.id]
        assert len(produced) == request.max_tokens or produced[-1] == END
        assert END not in produced[:-1] or request.ignore_end


@settings(deadline=None, max_examples=100)
@given(drawn=REQUESTS, expected=st.integers(1, 6), batch_tokens=st.integers(5, 40))
def test_optimistic_admission_puts_back_and_still_finishes(
    drawn: list[tuple[int, int, int]], expected: int, batch_tokens: int
) -> None:
    scheduler = Scheduler(limits(pages=17, expected_output_tokens=expected, batch_tokens=batch_tokens))
    arrivals = requests_of(drawn, ignore_end=True)
    outputs = drive(scheduler, arrivals, lambda: 1)
    assert scheduler.free_pages == 17
    assert {r.id: len(outputs[r.id]) for _, r in arrivals} == {r.id: r.max_tokens for _, r in arrivals}


@settings(deadline=None, max_examples=100)
@given(
    drawn=REQUESTS,
    expected=st.sampled_from([None, 1, 4]),
    cancels=st.dictionaries(st.integers(0, 40), st.integers(0, 13).map(str), max_size=10),
)
def test_cancelling_anything_at_any_time_loses_no_page_and_disturbs_nobody(
    drawn: list[tuple[int, int, int]], expected: int | None, cancels: dict[int, str]
) -> None:
    scheduler = Scheduler(limits(pages=17, expected_output_tokens=expected))
    arrivals = requests_of(drawn, ignore_end=True)
    outputs = drive(scheduler, arrivals, lambda: 1, cancels=cancels)
    assert scheduler.free_pages == 17
    for _, request in arrivals:
        if request.id not in cancels.values():
            assert len(outputs[request.id]) == request.max_tokens


def test_a_page_less_than_the_forecast_would_overflow() -> None:
    """The bound is tight: two requests that peak together get in with room for both, and one waits with a page less."""
    peak = 2 * pages_of(8 + 15, 4)
    for pages, live in ((peak, 2), (peak - 1, 1)):
        scheduler = Scheduler(limits(pages=pages, batch_tokens=64))
        for name in "ab":
            scheduler.submit(GenerationRequest(id=name, prompt=(1,) * 8, max_tokens=16))
        scheduler.form()
        assert scheduler.live_requests == live


def test_the_forecast_lets_a_request_in_that_final_lengths_would_keep_out() -> None:
    """One request is nearly done: the other's growth fits into what it gives back."""
    old = LiveRequest(cached_tokens=40, prompt_tokens=0, decode_steps=1)
    new = LiveRequest(cached_tokens=0, prompt_tokens=8, decode_steps=40)
    peak = peak_pages([old, new], page_tokens=1, prefill_tokens=8)
    assert peak == 8 + 2 + 41
    assert peak < 41 + 48
    assert peak_pages([], page_tokens=1, prefill_tokens=8) == 0


@settings(deadline=None, max_examples=100)
@given(drawn=REQUESTS, batch_tokens=st.integers(5, 40))
def test_batches_are_full_decodes_first_and_place_tokens_apart(
    drawn: list[tuple[int, int, int]], batch_tokens: int
) -> None:
    scheduler = Scheduler(limits(pages=1000, max_requests=4, batch_tokens=batch_tokens))

    def watch(batch: Batch) -> None:
        sizes = np.diff(batch.chunk_starts)
        assert (sizes[: batch.decodes] == 1).all()
        assert batch.tokens <= batch_tokens
        prompt_left = any(s.prompt_left for s in scheduler._live)
        assert batch.tokens == batch_tokens or not prompt_left, "prompt tokens wait while the batch has room"
        assert len(set(batch.slots.tolist())) == batch.tokens, "two tokens share a place in the cache"
        for row, start in enumerate(batch.chunk_starts[:-1]):
            rows = slice(start, batch.chunk_starts[row + 1])
            assert batch.positions[rows].tolist() == list(range(batch.lengths[row] - sizes[row], batch.lengths[row]))
            used = pages_of(int(batch.lengths[row]), 4)
            expected = batch.tables[row, :used].repeat(4) * 4 + np.tile(np.arange(4), used)
            assert (batch.slots[rows] == expected[batch.positions[rows]]).all()

    drive(scheduler, requests_of(drawn, ignore_end=True), lambda: 1, watch)


def test_a_request_that_ends_leaves_in_the_batch_after_the_next() -> None:
    scheduler = Scheduler(limits())
    scheduler.submit(GenerationRequest(id="a", prompt=(1, 2), max_tokens=20))
    first = scheduler.form()
    second = scheduler.form()
    assert first is not None
    assert second is not None
    assert second.carried_from.tolist() == [0], "the second batch names the unknown token by its place"
    assert second.tokens == 1, "the request is still in batch i + 1"
    (event,) = scheduler.complete([END])
    assert event.finish_reason == "stop"
    assert scheduler.form() is None, "and has left in batch i + 2"
    assert scheduler.complete([3]) == [], "the token computed for it meanwhile is dropped"
    assert scheduler.idle


def test_cancelled_requests_give_their_pages_back_in_every_state() -> None:
    scheduler = Scheduler(limits(max_requests=1))
    for name in "ab":
        scheduler.submit(GenerationRequest(id=name, prompt=(1,) * 20, max_tokens=4))
    scheduler.form()
    scheduler.cancel("b")
    scheduler.cancel("a")
    scheduler.cancel("unknown")
    assert scheduler.complete([]) == []
    assert scheduler.free_pages == 32
    assert scheduler.idle


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": ()}, "prompt is empty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": float("nan")}, "temperature"),
        ({"prompt": (1,) * 60}, "context of 64"),
        ({"prompt": (100,)}, "outside the vocabulary"),
        ({"prompt": (-1,)}, "outside the vocabulary"),
    ],
)
def test_impossible_requests_are_refused(request_: dict[str, object], message: str) -> None:
    scheduler = Scheduler(limits())
    with pytest.raises(InputError, match=message):
        scheduler.submit(GenerationRequest(**({"id": "a", "prompt": (1,), "max_tokens": 8} | request_)))  # type: ignore[arg-type]
    assert scheduler.idle


def test_requests_beyond_the_cache_and_double_ids_are_refused() -> None:
    scheduler = Scheduler(limits(pages=2))
    with pytest.raises(InputError, match="KV cache of 8 tokens"):
        scheduler.submit(GenerationRequest(id="a", prompt=(1,) * 8, max_tokens=2))
    scheduler.submit(GenerationRequest(id="a", prompt=(1,) * 8, max_tokens=1))
    with pytest.raises(InputError, match="in use"):
        scheduler.submit(GenerationRequest(id="a", prompt=(1,), max_tokens=1))


@pytest.mark.parametrize("change", [{"pages": 0}, {"batch_tokens": 4}, {"expected_output_tokens": 0}])
def test_impossible_limits_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError):
        limits(**change)
