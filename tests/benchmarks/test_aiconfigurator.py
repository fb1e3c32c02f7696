"""What aiconfigurator is told of a public measurement, and how its answers are read."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import click
import pytest

pytest.importorskip("aiohttp")

import bench_aiconfigurator
from bench_aiconfigurator import answers_of, its_errors, job_of
from public_points import modelled_point

from melange.errors import InputError
from melange.measurements.public import PublicPoint

POINT = PublicPoint(
    source="a test",
    url="https://example.com",
    date="2026-01-01",
    engine="vllm",
    engine_version="0.14.0",
    gpu="H100",
    model="mixtral-8x7b",
    tp=2,
    precision="bf16",
    kv_dtype="auto",
    engine_args=("--max-num-seqs=64",),
    load="closed",
    requests=1000,
    input_tokens=512.4,
    output_tokens=128.0,
    concurrency=100.0,
    rate_rps=None,
    output_tokens_per_s=1000.0,
    ttft_s=0.1,
    tpot_s=0.02,
    is_median=False,
)


def test_a_point_is_told_with_its_sizes_and_no_more_sequences_than_the_engine_runs():
    job = job_of(modelled_point(POINT))
    assert (job["like"], job["changes"]["hidden_size"]) == ("mistralai/Mixtral-8x7B-v0.1", 4096)
    assert (job["system"], job["backend"], job["tp"], job["experts"]) == ("h100_sxm", "vllm", 2, True)
    assert (job["input_tokens"], job["output_tokens"], job["sequences"], job["rate_rps"]) == (512, 128, 64, None)
    assert job["quantisation"]["moe_quant_mode"] == "bfloat16"


def test_a_burst_is_all_its_requests_and_a_rate_is_told():
    assert job_of(modelled_point(replace(POINT, load="burst", requests=40)))["sequences"] == 40
    assert job_of(modelled_point(replace(POINT, load="open", rate_rps=3.0)))["rate_rps"] == 3.0


@pytest.mark.parametrize("change", [{"gpu": "MI300X"}, {"model": "glm-4.5-air"}, {"precision": "mxfp4"}])
def test_what_it_has_no_data_for_is_not_asked(change):
    with pytest.raises(InputError, match="no "):
        job_of(modelled_point(replace(POINT, **change)))


def test_errors_are_logarithms_of_predicted_over_measured():
    estimate = {"output_tokens_per_s": 2000.0, "ttft_s": 0.1, "tpot_s": 0.01}
    assert its_errors(modelled_point(POINT), estimate) == pytest.approx((math.log(2), -math.log(2), 0.0))
    assert math.isnan(its_errors(modelled_point(replace(POINT, load="open", rate_rps=1.0)), estimate)[0])


def test_answers_come_in_the_order_of_the_jobs(tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text("import json, sys\nfor line in sys.stdin: print(json.dumps({'refused': json.loads(line)['n']}))")
    monkeypatch.setattr(bench_aiconfigurator, "WORKER", worker)
    assert answers_of(sys.executable, [{"n": 1}, {"n": 2}]) == [{"refused": 1}, {"refused": 2}]


def test_an_environment_without_it_is_one_line(tmp_path):
    with pytest.raises(click.ClickException, match="does not run the worker"):
        answers_of(str(tmp_path / "none"), [json.loads("{}")])
