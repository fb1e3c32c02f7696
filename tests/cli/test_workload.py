from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from melange.cli.workload import workload
from melange.planning.workload_file import load_workload

CSV = "arrival_s,input_tokens,output_tokens\n0,20,30\n1,200,30\n2,20,0\n4,9000,30\n8,20,40\n"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "melange", "workload", "from-trace", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "requests.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


def from_trace(*arguments: str) -> Result:
    return CliRunner().invoke(workload, ["from-trace", *arguments])


def test_written_file_is_read_back(trace: Path) -> None:
    out = trace.parent / "w.yaml"
    done = from_trace(
        str(trace), "--max-input", "1000", "--slo-tpot-ms", "50", "--tpot-definition", "decode",
        "--slo-ttft-ms", "500", "--attainment", "0.99", "--model", "llama-2-7b",
        "--profiles", "melange-2024/llama-2-7b",
        "--assume-slo", "--assume-slo-reason", "a test", "--prices", "paper-2024", "--name", "mine", "-o", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "5 read, 3 kept" in done.stderr
    assert "warning: 40.0% of the requests are dropped: 1 with zero output tokens, 1 above" in done.stderr
    spec = load_workload(out)
    assert spec.workload.name == "mine"
    assert spec.workload.total_rate_rps == pytest.approx(3 / 8)
    assert spec.workload.grid.input_edges_tokens == (25, 100, 250, 500, 1000)
    assert (spec.workload.slo.tpot_s, spec.workload.slo.ttft_s, spec.workload.slo.attainment) == (0.05, 0.5, 0.99)
    assert (spec.profiles.set, spec.profiles.assume_slo, spec.profiles.reason) == (
        "melange-2024/llama-2-7b",
        True,
        "a test",
    )
    assert spec.prices.price_set == "paper-2024"


def test_without_a_file_the_workload_goes_to_standard_output(trace: Path) -> None:
    done = from_trace(
        str(trace), "--rate", "6", "--window", "1:", "--input-edges", "50,500", "--output-edges", "50",
        "--representative", "upper_edge", "--model", "llama-3.1-8b",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    copy = trace.parent / "copy.yaml"
    copy.write_text(done.stdout, encoding="utf-8")
    spec = load_workload(copy)
    assert spec.workload.rate_rps.tolist() == [[3.0], [3.0]]
    assert spec.workload.representative == "upper_edge"
    assert spec.profiles.set == "estimated/llama-3.1-8b"


def test_columns_and_units(trace: Path) -> None:
    trace.write_text("at,Request tokens,n_out\n0,20,30\n4000,20,40\n", encoding="utf-8")
    done = from_trace(
        str(trace), "--columns", "time=at,input=Request tokens", "--columns", "output=n_out", "--time-unit", "ms",
        "--model", "llama-3.1-8b",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "rate_rps: 0.5\n" in done.stdout


def test_metrics_are_read_too(trace: Path) -> None:
    bins = "".join(
        f'vllm:request_{kind}_tokens_bucket{{le="{le}",model_name="m"}} {count}\n'
        for kind in ("prompt", "generation")
        for le, count in (("25.0", 5), ("100.0", 10), ("+Inf", 10))
    )
    trace.write_text(f"# TYPE vllm:request_prompt_tokens histogram\n{bins}", encoding="utf-8")
    done = from_trace(str(trace), "--rate", "4", "--model", "llama-3.1-8b")
    assert done.exit_code == 0, done.output
    assert "joint distribution is lost" in done.stderr


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (CSV.replace("200", "many"), [], "requests.csv:3:3: input_tokens is 'many', not a number"),
        (gzip.compress(CSV.encode(), mtime=0)[:-9], [], "truncated"),
        (b"\x00\x01\x02", [], "not a text file"),
        ("", [], "the trace is empty"),
        ("a,b\n1,2\n", [], "found 'a', 'b'; say which are which: --columns"),
        (CSV, ["--rate", "nan"], "rate is nan"),
        (CSV, ["--rate", "-1"], "rate is -1"),
        (CSV, ["--window", "5"], "not START:END"),
        (CSV, ["--window", "9:"], "no request is kept"),
        (CSV, ["--input-edges", "100,50"], "not ascending"),
        (CSV, ["--input-edges", "100,x"], "not a list of whole numbers"),
        (CSV, ["--columns", "input"], "not ROLE=COLUMN"),
        (CSV, ["--columns", "input=a,input=b"], "given twice"),
        (CSV, ["--format", "excel"], "unknown trace format 'excel'"),
        (CSV, ["--time-unit", "days"], "unknown time unit 'days'"),
        (CSV, ["--slo-tpot-ms", "50"], "go together"),
        (CSV, ["--attainment", "0.9"], "needs a limit"),
        (CSV, ["--model", "llama-3.1-8c"], "unknown model 'llama-3.1-8c'"),
        (CSV, ["--assume-slo-reason", "x"], "goes with --assume-slo"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, content: str | bytes, arguments: list[str], message: str
) -> None:
    path = tmp_path / "requests.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    done = run(tmp_path, "requests.csv", "--model", "llama-3.1-8b", *arguments, "-o", "w.yaml")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == [path]


def windowed(folder: Path, *options: str) -> list[float]:
    """Starts of the windows that from-trace keeps of 2,400 requests a second apart."""
    path, out = folder / "long.csv", folder / "long.yaml"
    rows = "".join(f"{n},{20 + n % 7},30\n" for n in range(2400))
    path.write_text("arrival_s,input_tokens,output_tokens\n" + rows, encoding="utf-8")
    done = from_trace(str(path), "--model", "llama-3.1-8b", "--name", "mine", "-o", str(out), *options)
    assert done.exit_code == 0, done.output
    return [window.start_s for window in load_workload(out).workload.windows]


def test_windows_are_kept_as_asked(tmp_path: Path) -> None:
    assert windowed(tmp_path) == [0, pytest.approx(1199.5, abs=0.5)]
    assert len(windowed(tmp_path, "--windows", "12")) == 12
    assert windowed(tmp_path, "--window-minutes", "10") == [0, 600, 1200, 1800]
    assert windowed(tmp_path, "--windows", "none") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--windows", "3", "--window-minutes", "5"], "--windows or --window-minutes, not both"),
        (["--windows", "few"], "'few' is neither a whole number nor none"),
        (["--windows", "0"], "0 windows are asked for"),
        (["--window-minutes", "0"], "0.0 is not in the range"),
    ],
)
def test_windows_that_cannot_be_made(trace: Path, options: list[str], message: str) -> None:
    done = from_trace(str(trace), "--model", "llama-3.1-8b", *options)
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
