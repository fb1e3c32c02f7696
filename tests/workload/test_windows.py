from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melange.errors import InputError
from melange.slo import Slo
from melange.traces import Trace
from melange.workload.histogram import workload_from_requests, workload_from_trace
from melange.workload.sizes import SizeGrid
from melange.workload.windows import Window, WindowRule, window_paces
from melange.workload.workload import Workload

GRID = SizeGrid(input_edges_tokens=(10, 20), output_edges_tokens=(5,))
SLO = Slo(tpot_s=0.12)


def trace(times: list[float] | np.ndarray, inputs: list[int] | None = None) -> Trace:
    sizes = np.array(inputs or [5] * len(times), dtype=np.int64)
    return Trace(input_tokens=sizes, output_tokens=np.full(len(sizes), 3), arrival_s=np.asarray(times, dtype=float))


def of(part: Trace, rule: WindowRule | None, **options: object) -> Workload:
    return workload_from_requests([part], grid=GRID, slo=SLO, windows=rule, **options)[0]  # type: ignore[arg-type]


def test_windows_of_equal_length_by_hand() -> None:
    workload = of(trace([0, 1, 2, 3, 9, 10], [5, 5, 15, 5, 15, 15]), WindowRule(count=2))
    assert [(w.start_s, w.length_s) for w in workload.windows] == [(0, 5), (5, 5)]
    assert [w.requests.tolist() for w in workload.windows] == [[[3], [1]], [[0], [2]]]
    np.testing.assert_allclose(workload.window_rates_rps(), [[[0.6], [0.2]], [[0.0], [0.4]]])


def test_the_rate_scales_windows_in_proportion_and_they_average_to_it() -> None:
    workload = of(trace([0, 1, 2, 3, 9, 10], [5, 5, 15, 5, 15, 15]), WindowRule(count=2), rate_rps=60)
    np.testing.assert_allclose(workload.window_rates_rps().sum(axis=(1, 2)), [80, 40])
    again = workload.at_rate(6)
    np.testing.assert_allclose(again.window_rates_rps().mean(axis=0), again.rate_rps)
    alone = again.in_window(1)
    assert (alone.total_rate_rps, alone.windows, alone.sample_requests) == (pytest.approx(4), (), 2)
    assert alone.mean_input_tokens[1, 0] == 15


def test_the_default_holds_a_thousand_requests_a_window() -> None:
    def number(requests: int) -> int:
        return len(of(trace(np.linspace(0, 50, requests)), WindowRule()).windows)

    assert [number(n) for n in (1999, 2000, 2999, 5500, 400_000)] == [0, 2, 2, 5, 168]


def test_windows_of_a_length_start_at_the_first_row_and_join_a_short_rest() -> None:
    def starts(times: list[float], length_s: float) -> list[float]:
        return [w.start_s for w in of(trace(times), WindowRule(length_s=length_s)).windows]

    assert starts([0, 60, 119, 151], 60) == [0, 60, 120]
    assert starts([0, 60, 119, 149], 60) == [0, 60]  # 29 s are left, under half a length
    assert starts([0, 60, 119, 120], 60) == [0, 60]
    assert starts([0, 40], 60) == []


def test_a_cut_trace_has_windows_of_the_cut_alone() -> None:
    workload = of(trace(list(range(101))), WindowRule(count=2), window_s=(20, 60))
    assert [(w.start_s, w.end_s, w.count) for w in workload.windows] == [(20, 40, 20), (40, 60, 20)]


def test_times_may_go_backwards() -> None:
    times = [100.0, 0, 50, -100, 20]
    workload = of(trace(times), WindowRule(count=2))
    assert [(w.start_s, w.length_s, w.count) for w in workload.windows] == [(-100, 100, 1), (0, 100, 4)]


def test_a_gap_of_hours_is_windows_without_requests() -> None:
    times = [*range(10), *range(7200, 7210)]
    workload = of(trace([float(t) for t in times]), WindowRule(length_s=600))
    assert [w.count for w in workload.windows] == [10, *[0] * 10, 10]  # the last 9 s join the window before them
    with pytest.raises(InputError, match="nothing arrives in the window at 600 s"):
        workload.in_window(1)


def test_rows_that_are_dropped_count_for_the_span_but_not_for_the_windows() -> None:
    workload = of(trace([0, 10, 40, 100], [5, 5, 5, 99]), WindowRule(count=5))
    assert [w.count for w in workload.windows] == [2, 0, 1, 0, 0]
    assert workload.windows[-1].end_s == 100


@pytest.mark.parametrize("times", [[0.0], [7.0, 7.0, 7.0]])
def test_one_instant_has_no_windows(times: list[float]) -> None:
    assert of(trace(times), WindowRule(count=3), rate_rps=1).windows == ()


def test_no_windows_where_none_are_asked_for_or_no_times_are_told() -> None:
    assert of(trace(list(range(100))), None).windows == ()
    untimed = Trace(input_tokens=np.full(5000, 5), output_tokens=np.full(5000, 3))
    assert of(untimed, WindowRule(), rate_rps=1).windows == ()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"count": 0}, "0 windows are asked for; give 1 to 2048"),
        ({"count": 3000}, "3000 windows are asked for"),
        ({"length_s": 0.0}, "0 minutes long"),
        ({"length_s": float("nan")}, "nan minutes long"),
        ({"count": 3, "length_s": 60.0}, "both a number and a length"),
    ],
)
def test_rules_that_make_no_sense(asked: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WindowRule(**asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("span_s", [3000 * 60.0, 1e9])
def test_too_many_windows_are_refused(span_s: float) -> None:
    with pytest.raises(InputError, match="more than 2048 windows of 1 minutes; make them longer"):
        of(trace([0, span_s]), WindowRule(length_s=60))


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([Window(start_s=0, length_s=1, requests=np.ones((1, 1)))], r"shape \(1, 1\), the grid \(2, 1\)"),
        ([Window(start_s=s, length_s=6, requests=np.ones((2, 1))) for s in (0, 5)], "at 5 s starts before"),
        ([Window(start_s=0, length_s=1, requests=np.zeros((2, 1)))], "no window holds a request"),
    ],
)
def test_a_workload_checks_its_windows(windows: list[Window], message: str) -> None:
    whole = of(trace([0, 1]), None)
    fields = {name: getattr(whole, name) for name in Workload.__dataclass_fields__}
    with pytest.raises(InputError, match=message):
        Workload(**{**fields, "windows": tuple(windows)})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("length_s", 0.0, "0.0 s long"), ("start_s", float("inf"), "starts at inf"), ("requests", [[-1.0]], "holds -1.0")],
)
def test_a_window_checks_itself(field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Window(**{"start_s": 0.0, "length_s": 1.0, "requests": np.ones((1, 1)), field: value})  # type: ignore[arg-type]


def test_a_bucket_that_no_window_saw_comes_evenly() -> None:
    windows = [Window(start_s=s, length_s=1, requests=np.array([[n, 0.0]])) for s, n in ((0, 1.0), (1, 3.0))]
    np.testing.assert_allclose(window_paces(windows), [[[0.5, 1]], [[1.5, 1]]])


_TIMES = st.one_of(
    st.floats(0, 100), st.floats(-1e4, 1e6), st.sampled_from([0.0, 1e-9, 60.0, 3600.0, 1e12, -1e12])
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(
    times=st.lists(_TIMES, min_size=2, max_size=40), cuts=st.lists(st.integers(0, 40), max_size=4), n=st.integers(2, 9)
)
@example(times=[663714.0, 667808.0], cuts=[], n=2)
@example(times=[0.0, 0.0, 0.0, 0.0, 0.0, -5e-324, 524287.0], cuts=[6], n=2)
@example(times=[2.272912682709898e-25, -2.4795621215064133e-290], cuts=[], n=2)
def test_parts_make_no_difference_and_no_request_is_lost(times: list[float], cuts: list[int], n: int) -> None:
    inputs = [5 if k % 3 else 15 for k in range(len(times))]
    whole = trace(times, inputs)
    ends = sorted({0, len(times), *(cut for cut in cuts if cut < len(times))})
    parts = [trace(times[a:b], inputs[a:b]) for a, b in pairwise(ends)]
    rule = WindowRule(count=n)
    together = of(whole, rule, rate_rps=1).windows
    apart = workload_from_requests(parts, grid=GRID, slo=SLO, rate_rps=1, windows=rule)[0].windows
    assert [(w.start_s, w.length_s, w.requests.tolist()) for w in apart] == [
        (w.start_s, w.length_s, w.requests.tolist()) for w in together
    ]
    starts = [window.start_s for window in together]
    ends_s = [*starts[1:], np.inf][: len(starts)]
    for window, start, end in zip(together, starts, ends_s, strict=True):
        assert window.count == sum(start <= t < end for t in times)
    if together:
        span = max(times) - min(times)
        reach = max(*times, 0) - min(*times, 0)  # bins cover the file's first row, at 0, too
        lengths = [w.length_s for w in together]
        assert starts[0] == min(times)
        assert together[-1].end_s == pytest.approx(max(times), abs=1e-9 * span)
        assert max(lengths) - min(lengths) <= 2 * reach / 4096 + 4e-9


class TestSharedTraces:
    @pytest.mark.parametrize(
        ("name", "windows"),
        [
            ("azure_llm_2023_code.csv", 8),
            ("azure_llm_2023_conv.csv", 19),
            ("mooncake_conversation.jsonl", 9),
            ("arena_lmsys_conversations.csv", 0),
            ("lmsys_chat_1m_sample.csv", 0),
        ],
    )
    def test_every_trace(self, shared: object, name: str, windows: int) -> None:
        workload, report = workload_from_trace(shared / "traces" / name, grid=SizeGrid.paper(), slo=SLO, rate_rps=4)  # type: ignore[operator]
        assert len(workload.windows) == windows
        if windows:
            assert sum(w.count for w in workload.windows) == report.kept
            lengths = np.array([w.length_s for w in workload.windows])
            mean = (workload.window_rates_rps() * lengths[:, None, None]).sum(axis=0) / lengths.sum()
            np.testing.assert_allclose(mean, workload.rate_rps)
            assert lengths.sum() == pytest.approx(report.span_s)
