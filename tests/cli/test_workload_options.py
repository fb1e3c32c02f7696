"""What the commands that make workload files share: sizes, model, profiles, and how the file is handed out."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from melange.cli.workload import workload
from melange.errors import InputError
from melange.planning.workload_file import load_workload
from melange.workload.sizes import PAPER_OUTPUT_EDGES_TOKENS

CSV = "arrival_s,input_tokens,output_tokens\n0,20,30\n1,200,30\n2,20,0\n4,9000,30\n8,20,40\n"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "requests.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


def from_trace(*arguments: str) -> Result:
    return CliRunner().invoke(workload, ["from-trace", *arguments])


def test_measurements_are_named_as_seen_from_the_workload_file(trace: Path) -> None:
    measured = trace.parent / "profiles" / "mine.jsonl"
    measured.parent.mkdir()
    measured.write_text("", encoding="utf-8")
    out = trace.parent / "workloads" / "w.yaml"
    out.parent.mkdir()
    done = from_trace(str(trace), "--model", "my-own", "--profiles", str(measured), "-o", str(out))
    assert done.exit_code == 0, done.output
    assert "../profiles/mine.jsonl" in out.read_text(encoding="utf-8")
    assert [Path(file).resolve() for file in load_workload(out).profiles.files] == [measured]
    assert "add one" not in done.stderr


def test_neither_model_nor_profiles(trace: Path) -> None:
    out = trace.parent / "w.yaml"
    done = from_trace(str(trace), "-o", str(out))
    assert done.exit_code == 0
    assert "add one to solve it" in done.stderr
    with pytest.raises(InputError, match="neither profiles nor model"):
        load_workload(out)


def test_the_model_is_resolved_when_the_file_is_written(trace: Path, shared: Path) -> None:
    out = trace.parent / "w.yaml"
    slo = ("--max-input", "1000", "--slo-tpot-ms", "50", "--tpot-definition", "decode")
    done = from_trace(str(trace), *slo, "--model", "meta-llama/Llama-3.1-8B-Instruct", "-o", str(out))
    assert done.exit_code == 0, done.output
    assert "model: llama-3.1-8b\n" in out.read_text()
    described = trace.parent / "mine.json"
    described.write_text((shared / "cases" / "awq.json").read_text())
    done = from_trace(str(trace), *slo, "--model", str(described), "-o", str(out))
    assert done.exit_code == 0, done.output
    assert "model: mine.json\n" in out.read_text()
    spec = load_workload(out)
    assert spec.workload.model == "mine"
    assert spec.profiles.set == "estimated/mine"
    with pytest.raises(InputError, match=r"did you mean llama-3\.1-8b"):
        CliRunner().invoke(
            workload, ["from-trace", str(trace), *slo, "--model", "llama-3.1-9b"], catch_exceptions=False
        )


def test_edges_end_where_asked(trace: Path) -> None:
    out = trace.parent / "w.yaml"
    asked = ("--input-edges", "50,500,5000", "--max-input", "600", "--max-output", "100", "--model", "llama-3.1-8b")
    assert from_trace(str(trace), *asked, "-o", str(out)).exit_code == 0
    grid = load_workload(out).workload.grid
    assert grid.input_edges_tokens == (50, 500, 600)
    assert grid.output_edges_tokens[-1] == 100
    assert grid.output_edges_tokens[0] == PAPER_OUTPUT_EDGES_TOKENS[0]
