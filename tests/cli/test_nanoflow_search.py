"""``melange nanoflow analyse`` and ``search`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from melange.cli.nanoflow_search import analyse, search
from melange.errors import InputError
from melange.nanoflow.pipeline import read_pipeline


def run(command: object, *arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)  # type: ignore[arg-type]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_analyse_prints_the_breakdown_and_the_bound() -> None:
    result = run(analyse, "--model", "llama-3-8b", "--gpu", "A100-80GB", "--input", "1024", "--output", "512")
    assert result.exit_code == 0
    for part in ("decode_attention", "T_R = T_mem / T_comp", "0.66", "compute"):
        assert part in result.output


def test_analyse_tells_machines_the_paper_s_figures() -> None:
    arguments = ("--model", "llama-2-70b", "--gpu", "A100-80GB", "--tp", "8", "--figures", "nanoflow-paper")
    sizes = ("--input", "512", "--output", "1024", "--batch", "2048")
    plain = json.loads(run(analyse, *arguments, *sizes, "--format", "json").output)
    kqv = plain["operations"][0]
    assert (kqv["operation"], round(kqv["gflop"], 1)) == ("kqv", 27487.8)
    lines = run(analyse, *arguments, *sizes, "--format", "csv").output.splitlines()
    assert lines[0].split(",")[:2] == ["operation", "gflop"]
    assert len(lines) == 9


def test_search_writes_a_pipeline_that_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.json"
    arguments = ("--times", "a100-llama-3-8b", "--batch", "1024", "--decode", "384", "-o", str(file))
    result = run(search, *arguments, "--interference", "paper")
    assert result.exit_code == 0
    assert "proven" in result.output
    assert "(predicted)" in result.output
    pipeline = read_pipeline(file)
    assert pipeline.splits == (384, 1024)
    assert pipeline.stage2_s == pytest.approx(2.327e-3, abs=1e-6)


def test_search_models_the_times_where_none_are_given() -> None:
    plain = json.loads(run(search, "--model", "llama-3-8b", "--gpu", "L4", "--format", "json").output)
    assert plain["pipeline"]["splits"] == [plain["pipeline"]["batch_tokens"]]
    assert plain["predicted_speedup"] == 1.0
    assert plain["pipeline"]["provenance"]["times"].startswith("modelled")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--times", "a100-llama-3-8b", "--gpu", "H100"), "--gpu is H100"),
        (("--times", "a100-llama-3-8b", "--tp", "2"), "--tp is 2"),
        (("--times", "nowhere.yaml"), "nowhere.yaml: cannot read it"),
        (("--model", "llama-3-8b", "--gpu", "A100-80G0"), "did you mean"),
        (("--model", "llama-3-70b", "--gpu", "L4"), "GB more than 1 such GPU holds; use at least 6"),
        (("--model", "llama-3-8b", "--gpu", "L4", "--batch", "4000"), "the memory holds"),
        (("--model", "llama-3-8b", "--gpu", "H100", "--interference", "none.yaml"), "none.yaml"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    file = tmp_path / "pipeline.json"
    with pytest.raises(InputError, match=message):
        run(search, *arguments, "-o", str(file))
    assert not file.exists()


def test_a_missing_model_is_a_usage_error() -> None:
    assert run(search, "--gpu", "H100").exit_code == 2
    assert run(search, "--times", "a100-llama-3-8b", "--context", "0").exit_code == 2
    assert run(analyse, "--model", "llama-3-8b").exit_code == 2


@pytest.mark.parametrize("command", [analyse, search])
def test_help_shows_examples_and_documents_every_option(command: object) -> None:
    assert "Examples:" in run(command, "--help").output
    assert all(getattr(option, "help", None) for option in command.params)  # type: ignore[attr-defined]
