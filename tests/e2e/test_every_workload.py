"""The main job on everything at hand: shipped workloads and real traces, three rates each, default options.

Each ends in a fleet or in an honest exit 3 or 4, and claims no more than it says of itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from melange import load_workload

pytestmark = pytest.mark.e2e

SHIPPED = ("arena-120ms", "arena-120ms-mean", "azure-code", "azure-conversation", "mooncake-conversation")
TRACES = (
    "arena_lmsys_conversations.csv", "azure_llm_2023_code.csv", "azure_llm_2023_conv.csv", "lmsys_chat_1m_sample.csv",
    "mooncake_conversation.jsonl",
)  # fmt: skip
TIMES_OWN_RATE = (0.5, 1.0, 2.0)
RATES_RPS = (1.0, 4.0, 16.0)


def melange(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "melange", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check(done: subprocess.CompletedProcess[str]) -> None:
    """A fleet that keeps its promise, or exit 3 or 4 and why."""
    assert done.returncode in (0, 3, 4), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode == 3:
        assert done.stderr.splitlines()[-1].startswith("melange: ")
        return
    plan = json.loads(done.stdout)
    report = plan["attain"]
    assert report["fleet"]["attainment_low"] >= report["target"]
    assert plan["cost_usd_per_hour"] > 0
    assert (done.returncode == 0) == report["complete"]
    assert report["complete"] or report["not_ruled_out"]
    alone = [fleet["cost_usd_per_hour"] for fleet in report["single_type"].values() if fleet["cost_usd_per_hour"]]
    assert plan["cost_usd_per_hour"] <= min(alone, default=plan["cost_usd_per_hour"]) * (1 + 1e-9)


@pytest.mark.parametrize("times", TIMES_OWN_RATE)
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_workload(name, times):
    rate = times * load_workload(name).workload.total_rate_rps
    check(melange("solve", name, "--rate", f"{rate:.6g}", "--attain", "0.99", "-o", "json"))


@pytest.mark.parametrize("rate", RATES_RPS)
@pytest.mark.parametrize("name", TRACES)
def test_every_trace(shared, tmp_path: Path, name, rate):
    workload = str(tmp_path / "workload.yaml")
    promise = ("--slo-ttft-ms", "2000", "--slo-tpot-ms", "100", "--tpot-definition", "decode")
    made = melange(
        "workload", "from-trace", str(shared / "traces" / name), "--model", "llama-3.1-8b", "--rate", str(rate),
        *promise, "-o", workload,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    check(melange("solve", workload, "--attain", "0.99", "-o", "json"))
