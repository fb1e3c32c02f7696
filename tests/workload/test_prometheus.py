from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melange.errors import InputError
from melange.slo import Slo
from melange.traces import read_trace
from melange.workload.histogram import workload_from_trace
from melange.workload.prometheus import PROMPT, workload_from_metrics
from melange.workload.sizes import SizeGrid

GRID = SizeGrid(input_edges_tokens=(4, 10, 20), output_edges_tokens=(5, 10))
SLO = Slo(tpot_s=0.05)


def histogram(kind: str, bins: dict[str, float], total: float, labels: str = 'model_name="m",engine="0"') -> str:
    name = f"vllm:request_{kind}_tokens"
    lines = [f"# HELP {name} tokens", f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{{le="{le}",{labels}}} {count}' for le, count in bins.items()]
    lines += [f"{name}_sum{{{labels}}} {total}", f"{name}_count{{{labels}}} {max(bins.values())}"]
    return "\n".join(lines) + "\n"


PROMPTS = histogram("prompt", {"2.0": 10, "10.0": 90, "40.0": 110, "+Inf": 120}, 999)
ANSWERS = histogram("generation", {"5.0": 60, "10.0": 120, "+Inf": 120}, 600)


def written(folder: Path, text: str) -> Path:
    path = folder / "metrics.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_bins_are_spread_evenly_and_the_two_sizes_multiplied(tmp_path: Path) -> None:
    path = written(tmp_path, "# TYPE python_info gauge\npython_info 1\n" + PROMPTS + ANSWERS)
    workload, report = workload_from_trace(path, grid=GRID, slo=SLO, rate_rps=11, model="llama-2-7b")
    # By hand: bin (0, 2] holds 10, (2, 10] 80 over 8 sizes, (10, 40] 20 over 30 sizes; 10 lie above every bin.
    kept = np.array([10 + 20, 60, 20 / 3])
    np.testing.assert_allclose(workload.rate_rps, np.outer(kept / kept.sum(), [0.5, 0.5]) * 11)
    np.testing.assert_allclose(workload.mean_input_tokens[:, 0], [(10 * 1.5 + 20 * 3.5) / 30, 7.5, 15.5])
    np.testing.assert_allclose(workload.mean_output_tokens[0], [3, 8])
    np.testing.assert_allclose(
        workload.mean_product_tokens2, np.outer(workload.mean_input_tokens[:, 0], workload.mean_output_tokens[0])
    )
    assert (report.rows, report.kept, report.dropped["input_above_grid"]) == (120, 97, 23)
    assert "joint distribution is lost" in report.warnings[0]
    assert "8.3 input and 5.0 output" in report.warnings[1]
    assert "19.2% of the requests are dropped" in report.warnings[2]


def test_engines_of_a_model_are_added(tmp_path: Path) -> None:
    second = 'model_name="m",engine="1"'
    more = histogram("prompt", {"2.0": 110, "10.0": 110, "40.0": 110, "+Inf": 110}, 110, second)
    _, report = workload_from_metrics(written(tmp_path, PROMPTS + more + ANSWERS), grid=GRID, slo=SLO, rate_rps=1)
    assert report.rows == 230


@pytest.mark.parametrize(
    ("text", "rate", "problem"),
    [
        (PROMPTS + ANSWERS, None, "tell no rate.*--rate"),
        (PROMPTS + ANSWERS, 0, "rate is 0"),
        (PROMPTS, 1, "no histogram vllm:request_generation_tokens"),
        (PROMPTS + ANSWERS.replace('"m"', '"n"'), 1, "of 2 models: m, n"),
        (PROMPTS + ANSWERS.replace("} 60", "} 130"), 1, "counts fall"),
        (PROMPTS + ANSWERS.replace("} 60", "} sixty"), 1, r"metrics\.txt:11: not a sample .*sixty"),
        (PROMPTS + histogram("generation", {"5.0": 0, "+Inf": 0}, 0), 1, "no requests"),
        (PROMPTS + histogram("generation", {"5.0": 0, "+Inf": 9}, 0), 1, "no request lies inside the grid"),
    ],
)
def test_bad_metrics(tmp_path: Path, text: str, rate: float | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        workload_from_metrics(written(tmp_path, text), grid=GRID, slo=SLO, rate_rps=rate)


def test_metrics_have_no_single_requests_no_window_and_no_columns(tmp_path: Path) -> None:
    path = written(tmp_path, PROMPTS + ANSWERS)
    with pytest.raises(InputError, match="no single requests"):
        read_trace(path)
    with pytest.raises(InputError, match="neither columns nor times"):
        workload_from_trace(path, grid=GRID, slo=SLO, rate_rps=1, window_s=(0, 5))


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=50))
@settings(max_examples=50, deadline=None)
def test_bins_that_match_the_grid_give_its_shares_exactly(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    bins = {f"{edge}.0": float(sum(size <= edge for size in sizes)) for edge in GRID.input_edges_tokens}
    text = histogram("prompt", bins | {"+Inf": len(sizes)}, sum(sizes)) + ANSWERS
    assert PROMPT in text
    path = written(tmp_path_factory.mktemp("metrics"), text)
    workload, _ = workload_from_metrics(path, grid=GRID, slo=SLO, rate_rps=len(sizes))
    lows = (0, *GRID.input_edges_tokens[:-1])
    expected = [
        sum(low < size <= high for size in sizes) for low, high in zip(lows, GRID.input_edges_tokens, strict=True)
    ]
    np.testing.assert_allclose(workload.rate_rps.sum(axis=1), expected)
