"""Results of other tools become load points; what they leave out stays absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.interop.benchmarks import import_results, read_result
from melange.measurements.file import read_measurements, record_line
from melange.measurements.measurement import Measurement
from melange.measurements.merge import merge_measurements
from melange.serving.config import ConfigKey

KEY = ConfigKey("llama", "L4", 1, "bf16", "vllm")

VLLM = {
    "date": "20260131-120000",
    "request_rate": 2.0,
    "max_concurrency": None,
    "completed": 4,
    "failed": 1,
    "duration": 2.0,
    "total_input_tokens": 400,
    "total_output_tokens": 40,
    "request_throughput": 2.0,
    "mean_ttft_ms": 100.0,
    "median_ttft_ms": 90.0,
    "p99_ttft_ms": 200.0,
    "mean_tpot_ms": 20.0,
}
GUIDELLM = {
    "benchmarks": [
        {
            "config": {"strategy": {"type_": "poisson", "rate": 3.0}},
            "duration": 30.0,
            "metrics": {
                "request_totals": {"successful": 90, "errored": 2, "incomplete": 1, "total": 93},
                "requests_per_second": {"successful": {"mean": 2.9}},
                "prompt_token_count": {"successful": {"mean": 128.0}},
                "output_token_count": {"successful": {"mean": 64.0}},
                "request_latency": {"successful": {"mean": 1.5, "percentiles": {"p50": 1.4, "p99": 2.0}}},
                "time_to_first_token_ms": {"successful": {"mean": 80.0, "percentiles": {"p50": 70.0}}},
                "inter_token_latency_ms": {"successful": {"mean": 22.0, "percentiles": {}}},
                "time_per_output_token_ms": {"successful": {"mean": 23.4, "percentiles": {"p95": 30.0}}},
            },
        },
        {
            "config": {"strategy": {"type_": "concurrent", "streams": 8}},
            "metrics": {
                "requests_per_second": {"successful": {"mean": 5.0}},
                "prompt_token_count": {"successful": {"mean": 128.0}},
                "output_token_count": {"successful": {"mean": 64.0}},
            },
        },
    ]
}
AIPERF = {
    "request_throughput": {"unit": "requests/sec", "avg": 4.0},
    "request_count": {"unit": "requests", "avg": 120.0},
    "error_request_count": {"unit": "requests", "avg": 3.0},
    "input_sequence_length": {"unit": "tokens", "avg": 550.0},
    "output_sequence_length": {"unit": "tokens", "avg": 150.0},
    "benchmark_duration": {"unit": "sec", "avg": 30.0},
    "time_to_first_token": {"unit": "ms", "avg": 250.0, "p50": 240.0, "p99": 400.0},
    "inter_token_latency": {"unit": "ms", "avg": 15.0},
    "request_latency": {"unit": "ms", "avg": 2500.0},
    "input_config": {"loadgen": {"concurrency": 10}},
}


def written(folder: Path, content: object, name: str = "r.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_vllm_bench_serve(tmp_path: Path) -> None:
    (point,) = read_result(written(tmp_path, VLLM), KEY, engine_version="0.11")
    assert (point.loop, point.offered_rps, point.achieved_rps) == ("open", 2.0, 2.0)
    assert (point.input_tokens, point.output_tokens, point.samples, point.failures) == (100.0, 10.0, 4, 1)
    assert point.ttft_s is not None
    assert (point.ttft_s.mean, point.ttft_s.p50, point.ttft_s.p90, point.ttft_s.p99) == (0.1, 0.09, None, 0.2)
    assert point.tpot_decode_s is not None
    assert point.tpot_decode_s.mean == pytest.approx(0.02)
    assert point.e2e_s is None
    assert (point.date, point.engine_version, point.extra["tool"]) == ("2026-01-31", "0.11", "vllm bench serve")


def test_vllm_bench_serve_detailed_keeps_samples_in_order_of_arrival(tmp_path: Path) -> None:
    detail = {
        "ttfts": [0.2, 0.1, 0.3],
        "itls": [[0.01, 0.03], [0.02, 0.02], []],
        "output_lens": [3, 3, 0],
        "start_times": [2.0, 1.0, 3.0],
        "errors": ["", "", "timeout"],
    }
    (point,) = read_result(written(tmp_path, VLLM | detail), KEY)
    assert point.sample_ttft_s == (0.1, 0.2)
    assert point.sample_e2e_s == (0.14, 0.24)
    assert point.sample_output_tokens == (3, 3)
    assert point.tpot_decode_s is not None
    assert point.tpot_decode_s.mean == pytest.approx(0.02)


def test_vllm_bench_serve_at_infinite_rate_is_a_closed_loop(tmp_path: Path) -> None:
    (point,) = read_result(written(tmp_path, VLLM | {"request_rate": "inf", "max_concurrency": 8}), KEY)
    assert (point.loop, point.offered_rps, point.concurrency) == ("closed", None, 8)


def test_guidellm(tmp_path: Path) -> None:
    poisson, concurrent = read_result(written(tmp_path, GUIDELLM), KEY)
    assert (poisson.loop, poisson.offered_rps, poisson.achieved_rps, poisson.failures) == ("open", 3.0, 2.9, 2)
    assert poisson.e2e_s is not None
    assert poisson.e2e_s.mean == 1.5  # GuideLLM gives this one in seconds
    assert poisson.tpot_e2e_per_token_s is not None
    assert poisson.tpot_e2e_per_token_s.p95 == pytest.approx(0.03)
    assert (concurrent.loop, concurrent.concurrency, concurrent.ttft_s) == ("closed", 8.0, None)


def test_aiperf(tmp_path: Path) -> None:
    (point,) = read_result(written(tmp_path, AIPERF), KEY)
    assert (point.loop, point.concurrency, point.achieved_rps, point.failures) == ("closed", 10.0, 4.0, 3)
    assert point.ttft_s is not None
    assert point.ttft_s.p99 == pytest.approx(0.4)
    assert point.e2e_s is not None
    assert point.e2e_s.mean == pytest.approx(2.5)


def test_a_rate_that_is_not_kept_is_saturated(tmp_path: Path) -> None:
    (point,) = read_result(written(tmp_path, VLLM | {"request_rate": 4.0}), KEY)
    assert point.saturated


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"hello": 1}, "not a result of"),
        ([1, 2], "holds no JSON object but a list"),
        ({k: v for k, v in VLLM.items() if k != "duration"}, "lacks 'duration'"),
        (VLLM | {"completed": 0}, "no request completed"),
        (AIPERF | {"time_to_first_token": {"unit": "fortnight", "avg": 1}}, "fortnight"),
    ],
)
def test_bad_results_say_where_and_why(tmp_path: Path, content: object, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_result(path, KEY)
    assert str(path) in str(caught.value)


def test_not_json_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"a": 1,\n oops}')
    with pytest.raises(InputError, match=r"r\.json:2:\d+: not valid JSON"):
        read_result(path, KEY)


def test_nothing_is_written_when_one_file_is_bad(tmp_path: Path) -> None:
    good, bad = written(tmp_path, VLLM, "good.json"), written(tmp_path, {}, "bad.json")
    with pytest.raises(InputError):
        import_results([good, bad], KEY, output=tmp_path / "m.jsonl")
    assert not (tmp_path / "m.jsonl").exists()
    assert len(import_results([good], KEY, output=tmp_path / "m.jsonl")) == 1
    assert read_measurements(tmp_path / "m.jsonl").headers[0].facts["imported"] == ["good.json"]


def test_merge_keeps_every_point_once_and_warns_of_mixed_versions(tmp_path: Path) -> None:
    def file(name: str, *points: Measurement) -> Path:
        path = tmp_path / name
        path.write_text("".join(record_line(point) for point in points))
        return path

    old = Measurement(model="m", gpu="L4", input_tokens=1, output_tokens=1, achieved_rps=1.0, engine_version="1")
    new = Measurement(model="m", gpu="L4", input_tokens=2, output_tokens=1, achieved_rps=1.0, engine_version="2")
    merged = merge_measurements(tmp_path / "all.jsonl", [file("a.jsonl", old), file("b.jsonl", old, new)])
    assert (merged.points, merged.repeated) == (2, 1)
    assert "engine versions 1, 2" in merged.warnings[0]
    assert len(read_measurements(tmp_path / "all.jsonl").points) == 2
