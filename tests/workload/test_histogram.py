from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melange.errors import InputError
from melange.slo import Slo
from melange.traces import Trace, read_trace
from melange.workload.histogram import workload_from_requests, workload_from_trace
from melange.workload.sizes import SizeGrid

GRID = SizeGrid(input_edges_tokens=(10, 20), output_edges_tokens=(5, 15))
SLO = Slo(tpot_s=0.12)
PAPER_2000 = SizeGrid.paper(2000, 2000)


def trace(rows: list[tuple[int, int]], times: list[float] | None = None, cached: list[int] | None = None) -> Trace:
    return Trace(
        input_tokens=np.array([i for i, _ in rows], dtype=np.int64),
        output_tokens=np.array([o for _, o in rows], dtype=np.int64),
        arrival_s=None if times is None else np.array(times),
        cached_tokens=None if cached is None else np.array(cached, dtype=np.int64),
    )


def test_rates_and_means_by_hand() -> None:
    rows = [(10, 5), (2, 1), (11, 5), (20, 15)]
    workload, report = workload_from_requests([trace(rows, cached=[4, 1, 0, 16])], grid=GRID, slo=SLO, rate_rps=8)
    np.testing.assert_allclose(workload.rate_rps, [[4, 0], [2, 2]])
    np.testing.assert_allclose(workload.mean_input_tokens, [[6, np.nan], [11, 20]])
    np.testing.assert_allclose(workload.mean_output_tokens, [[3, np.nan], [5, 15]])
    np.testing.assert_allclose(workload.mean_product_tokens2, [[(50 + 2) / 2, np.nan], [55, 300]])
    np.testing.assert_allclose(workload.mean_cached_tokens, [[2.5, np.nan], [0, 16]])
    assert workload.provenance["rate"] == "given"
    assert (report.rows, report.kept, report.dropped_share, report.warnings) == (4, 4, 0, ())
    assert report.mean_cached_tokens == pytest.approx(21 / 4)


def test_each_row_is_dropped_under_its_first_reason() -> None:
    rows = [(5, 5), (0, 5), (0, 0), (0, 99), (5, 0), (99, 0), (21, 16), (21, 5), (5, 16), (5, 5)]
    times = [0.0, 1, 2, 3, 4, 5, 6, 7, 8, 50]
    _, report = workload_from_requests([trace(rows, times)], grid=GRID, slo=SLO, window_s=(0, 20))
    assert report.dropped == {
        "outside_window": 1,
        "zero_input": 3,
        "zero_output": 2,
        "input_above_grid": 2,
        "output_above_grid": 1,
    }
    assert report.kept == 1
    assert report.dropped_share == pytest.approx(8 / 9)
    assert "88.9% of the requests are dropped: 1 outside the window, 3 with zero input tokens" in report.warnings[0]


def test_no_warning_up_to_one_percent() -> None:
    rows = [(5, 5)] * 99 + [(0, 5)]
    assert workload_from_requests([trace(rows)], grid=GRID, slo=SLO, rate_rps=1)[1].warnings == ()
    assert workload_from_requests([trace(rows[1:])], grid=GRID, slo=SLO, rate_rps=1)[1].warnings != ()


def test_rate_is_of_kept_requests_over_the_span_of_all() -> None:
    rows = [(0, 5), (5, 5), (5, 5), (99, 5)]
    workload, report = workload_from_requests([trace(rows, [0, 2, 5, 10])], grid=GRID, slo=SLO)
    assert report.span_s == 10
    assert workload.total_rate_rps == pytest.approx(0.2)
    assert workload_from_requests([trace(rows, [0, 2, 5, 10])], grid=GRID, slo=SLO, rate_rps=3)[
        0
    ].total_rate_rps == pytest.approx(3)


@pytest.mark.parametrize(
    ("window", "span", "kept"),
    [((2, 6), 4, 2), ((2, 5), 3, 1), ((-9, 5), 5, 2), ((2, math.inf), 8, 3), ((5, 99), 5, 2)],
)
def test_window_is_half_open_and_cuts_the_span(window: tuple[float, float], span: float, kept: int) -> None:
    rows = [(5, 5)] * 4
    _, report = workload_from_requests([trace(rows, [0, 2, 5, 10])], grid=GRID, slo=SLO, window_s=window)
    assert (report.span_s, report.kept) == (span, kept)
    assert report.rate_rps == pytest.approx(kept / span)


def test_burstiness_of_regular_and_clumped_arrivals() -> None:
    rows = [(5, 5)] * 5
    regular = workload_from_requests([trace(rows, [0, 1, 2, 3, 4])], grid=GRID, slo=SLO)[0]
    assert regular.burstiness_cv == pytest.approx(0, abs=1e-7)
    clumped = workload_from_requests([trace(rows, [0, 0, 4, 4, 8])], grid=GRID, slo=SLO)[0]
    assert clumped.burstiness_cv == pytest.approx(1)


def test_poisson_arrivals_have_cv_one() -> None:
    times = np.cumsum(np.random.default_rng(7).exponential(0.5, 40_000)).tolist()
    report = workload_from_requests([trace([(5, 5)] * len(times), times)], grid=GRID, slo=SLO)[1]
    assert report.interarrival_cv == pytest.approx(1, abs=0.02)
    assert report.rate_rps == pytest.approx(2, rel=0.02)


def test_arrivals_out_of_order_tell_no_burstiness_and_say_so() -> None:
    parts = [trace([(5, 5)] * 2, [0, 9]), trace([(5, 5)] * 2, [3, 20])]
    workload, report = workload_from_requests(parts, grid=GRID, slo=SLO)
    assert workload.burstiness_cv is None
    assert report.span_s == 20
    assert "1 requests arrive before the one above them" in report.warnings[0]


def test_peak_to_mean_counts_whole_minutes_only() -> None:
    times = [0.0, 10, 30, 70, 125, 126, 127, 128, 129]
    report = workload_from_requests([trace([(5, 5)] * len(times), times)], grid=GRID, slo=SLO)[1]
    assert report.peak_to_mean == pytest.approx(3 / 2)
    short = workload_from_requests([trace([(5, 5)] * 3, [0, 50, 119])], grid=GRID, slo=SLO)[1]
    assert short.peak_to_mean is None


@pytest.mark.parametrize(
    ("rows", "times", "options", "problem"),
    [
        ([(5, 5)], None, {}, "no arrival times.*--rate"),
        ([(5, 5), (5, 5)], [1, 1], {}, "one instant.*--rate"),
        ([(5, 5)], None, {"rate_rps": 0}, "rate is 0"),
        ([(5, 5)], None, {"rate_rps": float("nan")}, "rate is nan"),
        ([(5, 5)], None, {"rate_rps": 1, "window_s": (0, 5)}, "without arrival times"),
        ([(5, 5)], [0], {"rate_rps": 1, "window_s": (5, 5)}, "its end must come after"),
        ([(5, 5), (5, 5)], [0, 8], {"rate_rps": 1, "window_s": (20, 30)}, "runs from 0 to 8 s"),
        (
            [(0, 5), (99, 5)],
            None,
            {"rate_rps": 1},
            "no request is kept of 2: 1 with zero input.*1 above the grid's last input edge",
        ),
    ],
)
def test_bad_input(
    rows: list[tuple[int, int]], times: list[float] | None, options: dict[str, object], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        workload_from_requests([trace(rows, times)], grid=GRID, slo=SLO, **options)  # type: ignore[arg-type]


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("input_tokens,output_tokens\n0,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"t\.csv: no request is kept"):
        workload_from_trace(path, grid=GRID, slo=SLO, rate_rps=1)


def test_workload_of_a_file_says_where_it_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "t.2.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,9,1\n2,9,1\n4,0,1\n", encoding="utf-8")
    workload, _ = workload_from_trace(path, grid=GRID, slo=SLO, model="llama-2-7b", representative="upper_edge")
    assert (workload.name, workload.model, workload.representative) == ("t", "llama-2-7b", "upper_edge")
    assert workload.provenance["trace"] == "t.2.csv"
    assert workload.sample_requests == 2
    assert workload.provenance["dropped"] == {"zero_input": 1}
    assert workload.provenance["rate"] == "kept requests / span_s"


ROW = st.tuples(st.integers(0, 25), st.integers(0, 20), st.integers(0, 1000), st.integers(0, 25))


@given(rows=st.lists(ROW, min_size=2, max_size=60), cuts=st.lists(st.integers(0, 60), max_size=5))
@settings(max_examples=150, deadline=None)
def test_parts_make_no_difference_and_sums_equal_a_plain_loop(
    rows: list[tuple[int, int, int, int]], cuts: list[int]
) -> None:
    rows = sorted(rows, key=lambda row: row[2])
    whole = trace(
        [(i, o) for i, o, _, _ in rows], [float(t) for _, _, t, _ in rows], [min(c, i) for i, _, _, c in rows]
    )
    kept = [(i, o, t, min(c, i)) for i, o, t, c in rows if 0 < i <= 20 and 0 < o <= 15]
    if not kept:
        with pytest.raises(InputError, match="no request is kept"):
            workload_from_requests([whole], grid=GRID, slo=SLO, rate_rps=1)
        return
    edges = sorted({0, *(min(cut, len(rows)) for cut in cuts), len(rows)})
    parts = [
        Trace(
            **{
                name: getattr(whole, name)[a:b]
                for name in ("input_tokens", "output_tokens", "arrival_s", "cached_tokens")
            }
        )
        for a, b in pairwise(edges)
    ]
    workload, report = workload_from_requests(parts, grid=GRID, slo=SLO, rate_rps=len(kept))
    together, report_together = workload_from_requests([whole], grid=GRID, slo=SLO, rate_rps=len(kept))
    _assert_equal_to_plain_loop(workload, kept)
    np.testing.assert_array_equal(workload.rate_rps, together.rate_rps)
    np.testing.assert_array_equal(workload.mean_product_tokens2, together.mean_product_tokens2)
    assert report.dropped == report_together.dropped
    assert report.peak_to_mean == report_together.peak_to_mean
    assert report.span_s == rows[-1][2] - rows[0][2]
    gaps = np.diff([t for _, _, t, _ in kept])
    if len(gaps) >= 2 and gaps.sum() > 0:
        assert report.interarrival_cv == pytest.approx(gaps.std() / gaps.mean(), abs=1e-6)
    else:
        assert report.interarrival_cv is None


def _assert_equal_to_plain_loop(workload: object, kept: list[tuple[int, int, int, int]]) -> None:
    counts: Counter[tuple[int, int]] = Counter()
    sums: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for i, o, _, c in kept:
        cell = (0 if i <= 10 else 1, 0 if o <= 5 else 1)
        counts[cell] += 1
        for n, value in enumerate((i, o, i * o, c)):
            sums[cell][n] += value
    names = ("mean_input_tokens", "mean_output_tokens", "mean_product_tokens2", "mean_cached_tokens")
    for cell in np.ndindex(2, 2):
        assert workload.rate_rps[cell] == pytest.approx(counts[cell])  # type: ignore[attr-defined]
        for n, name in enumerate(names):
            expected = sums[cell][n] / counts[cell] if counts[cell] else math.nan
            assert getattr(workload, name)[cell] == pytest.approx(expected, nan_ok=True)


class TestRealTraces:
    def test_arena_on_the_papers_grid(self, shared: Path) -> None:
        path = shared / "traces" / "arena_lmsys_conversations.csv"
        rows = [tuple(map(int, line.split(","))) for line in path.read_text(encoding="utf-8").split()[1:]]
        kept = [(i, o) for i, o in rows if 0 < i <= 2000 and 0 < o <= 2000]
        workload, report = workload_from_trace(path, grid=PAPER_2000, slo=SLO, rate_rps=4)
        assert (report.rows, report.kept) == (201_570, len(kept))
        assert report.dropped["input_above_grid"] == sum(i > 2000 and o > 0 for i, o in rows)
        assert report.mean_input_tokens == pytest.approx(sum(i for i, _ in kept) / len(kept))
        small = [(i, o) for i, o in kept if i <= 25 and o <= 25]
        assert workload.rate_rps[0, 0] == pytest.approx(4 * len(small) / len(kept))
        assert workload.mean_product_tokens2[0, 0] == pytest.approx(sum(i * o for i, o in small) / len(small))
        assert len(report.warnings) == 1
        assert report.warnings[0].startswith("5.8% of the requests are dropped")

    @pytest.mark.parametrize(
        "name", ["azure_llm_2023_conv.csv", "azure_llm_2023_code.csv", "mooncake_conversation.jsonl"]
    )
    def test_timed_traces_tell_their_rate_and_burstiness(self, shared: Path, name: str) -> None:
        path = shared / "traces" / name
        grid = SizeGrid(input_edges_tokens=(1000, 8000, 200_000), output_edges_tokens=(100, 10_000))
        workload, report = workload_from_trace(path, grid=grid, slo=SLO)
        whole = read_trace(path)
        assert report.kept == len(whole)
        assert workload.total_rate_rps == pytest.approx(len(whole) / whole.span_s)
        gaps = np.diff(whole.arrival_s)
        assert report.interarrival_cv == pytest.approx(gaps.std() / gaps.mean())
        assert workload.input_tokens_per_s == pytest.approx(whole.input_tokens.sum() / whole.span_s)
