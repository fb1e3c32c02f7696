from __future__ import annotations

import numpy as np
import pytest

from melange.errors import InputError
from melange.workload.window_counts import LEAST_BINS, WindowCounts
from melange.workload.windows import MOST_ASKED, WindowRule


def counted(
    rule: WindowRule, times: list[float], buckets: list[int], origin_s: float = 0.0, shape: tuple[int, int] = (2, 1)
) -> WindowCounts:
    counts = WindowCounts(rule, shape, origin_s)
    counts.add(np.array(times), np.array(buckets))
    return counts


def test_each_request_is_counted_in_its_window_and_bucket() -> None:
    counts = counted(WindowRule(count=2), [0.0, 1, 4, 6, 10], [0, 1, 1, 0, 0])
    windows = counts.windows(0.0, 10.0)
    assert [(w.start_s, w.end_s) for w in windows] == [(0, 5), (5, 10)]
    assert [w.requests.tolist() for w in windows] == [[[1], [2]], [[2], [0]]]


@pytest.mark.parametrize("origin_s", [0.0, -3.5, 1e9])
def test_stretches_add_up_however_the_span_grows(origin_s: float) -> None:
    rng = np.random.default_rng(7)
    times = origin_s + rng.choice([-1, 1], 300) * np.geomspace(1, 1e5, 300)  # each farther out than those before
    buckets = rng.integers(0, 2, 300)
    rule, shape = WindowRule(count=MOST_ASKED), (16, 8)  # windows of four bins: one out of place shows
    whole = counted(rule, times.tolist(), buckets.tolist(), origin_s, shape)
    parts = WindowCounts(rule, shape, origin_s)
    for part in (slice(0, 1), slice(1, 50), slice(50, 50), slice(50, 51), slice(51, 200), slice(200, 300)):
        parts.add(times[part], buckets[part])
    ends = float(times.min()), float(times.max())
    expected = [(w.start_s, w.requests.tolist()) for w in whole.windows(*ends)]
    assert [(w.start_s, w.requests.tolist()) for w in parts.windows(*ends)] == expected
    assert sum(np.sum(requests) for _, requests in expected) == 300


def test_a_rule_of_a_length_keeps_its_windows_until_they_are_too_many() -> None:
    rule = WindowRule(length_s=60)
    counts = counted(rule, [0.0, 59, 60, 150], [0, 0, 0, 1])
    assert [(w.start_s, w.count) for w in counts.windows(0.0, 150.0)] == [(0, 2), (60, 1), (120, 1)]
    last_s = 60.0 * MOST_ASKED
    with pytest.raises(InputError, match=f"more than {MOST_ASKED} windows of 1 minutes"):
        counted(rule, [0.0, last_s], [0, 0]).windows(0.0, last_s)
    assert len(counted(rule, [0.0, last_s - 1], [0, 0]).windows(0.0, last_s - 1)) == MOST_ASKED
    assert LEAST_BINS > MOST_ASKED


def test_one_instant_or_one_window_is_none() -> None:
    assert counted(WindowRule(count=3), [5.0, 5.0], [0, 1]).windows(5.0, 5.0) == ()
    assert counted(WindowRule(count=1), [0.0, 9.0], [0, 1]).windows(0.0, 9.0) == ()


def test_memory_stays_bounded_however_long_the_trace() -> None:
    counts = WindowCounts(WindowRule(), (10, 6), 0.0)
    for day in range(400):
        counts.add(np.linspace(86400.0 * day, 86400.0 * (day + 1), 500), np.arange(500) % 60)
    assert counts._counts.nbytes <= 4 << 20
    windows = counts.windows(0.0, 86400.0 * 400)
    assert len(windows) == 168
    assert sum(w.count for w in windows) == 200_000
