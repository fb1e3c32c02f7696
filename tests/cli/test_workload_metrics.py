"""``melange workload from-metrics`` as users call it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from melange.cli.workload_metrics import from_metrics

METRICS = """
vllm:request_prompt_tokens_bucket{le="100",model_name="m"} 50
vllm:request_prompt_tokens_bucket{le="200",model_name="m"} 100
vllm:request_prompt_tokens_bucket{le="+Inf",model_name="m"} 100
vllm:request_prompt_tokens_sum{model_name="m"} 10000
vllm:request_prompt_tokens_count{model_name="m"} 100
vllm:request_generation_tokens_bucket{le="10",model_name="m"} 50
vllm:request_generation_tokens_bucket{le="20",model_name="m"} 100
vllm:request_generation_tokens_bucket{le="+Inf",model_name="m"} 100
vllm:request_generation_tokens_sum{model_name="m"} 1000
vllm:request_generation_tokens_count{model_name="m"} 100
"""


def test_workload_from_metrics_independent_and_shaped(tmp_path: Path) -> None:
    scrape = tmp_path / "metrics.txt"
    scrape.write_text(METRICS.lstrip())
    trace = tmp_path / "trace.csv"
    trace.write_text("input_tokens,output_tokens\n" + "50,5\n" * 20 + "150,15\n" * 20)
    options = ["--rate", "4", "--input-edges", "100,200", "--output-edges", "10,20", "--model", "llama-2-7b"]
    plain = CliRunner().invoke(from_metrics, [str(scrape), *options, "-o", str(tmp_path / "a.yaml")])
    assert plain.exit_code == 0, plain.output
    assert "independent" in plain.stderr
    shaped = CliRunner().invoke(
        from_metrics, [str(scrape), *options, "--trace", str(trace), "-o", str(tmp_path / "b.yaml")]
    )
    assert shaped.exit_code == 0, shaped.output
    from melange.planning.workload_file import load_workload

    a, b = (load_workload(tmp_path / name).workload for name in ("a.yaml", "b.yaml"))
    assert a.rate_rps == pytest.approx(1.0, abs=0.02)
    assert b.rate_rps[0, 0] == pytest.approx(2.0, rel=0.05)
    assert b.rate_rps[0, 1] == pytest.approx(0.0, abs=0.05)
