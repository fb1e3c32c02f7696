"""``melange estimate`` as users call it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from melange.cli.estimate import estimate
from melange.errors import InputError
from melange.measurements.file import read_measurements


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


SMALL = ("--grid", "250,1000x100")


def test_estimate_shows_a_table_with_bands():
    text = run(estimate, "--model", "llama-3.1-8b", "--gpu", "L4,H100", *SMALL, "--slo-tpot-ms", 40)
    assert "llama-3.1-8b on 1xH100" in text
    assert "80% band" in text
    assert "[" in text


def test_estimate_writes_a_ladder_that_a_workload_can_use(tmp_path):
    file = tmp_path / "points.jsonl"
    out = run(estimate, "--model", "llama-3.1-8b", "--gpu", "H100", *SMALL, "--save", file, "-o", "json")
    shown = json.loads(out)
    read = read_measurements(file)
    assert [point.to_dict() for point in read.points] == shown["points"]
    assert {point.source for point in read.points} == {"estimated"}
    assert len({point.achieved_rps for point in read.points if point.input_tokens == 250}) >= 8
    assert shown["rates"][0]["gpu"] == "H100"


def test_estimate_csv_is_the_load_points():
    lines = run(estimate, "--model", "llama-3.1-8b", "--gpu", "H100", *SMALL, "-o", "csv").splitlines()
    assert lines[0].startswith("model,gpu,tp,precision,engine,input_tokens,output_tokens")
    assert "tpot_decode_p99_s" in lines[0]
    assert len(lines) > 10


def test_estimate_tries_numbers_of_requests_at_once():
    usual = ("--model", "llama-3.1-8b", "--gpu", "H100", *SMALL, "--slo-tpot-ms", "p95=30", "-o", "json")
    named = json.loads(run(estimate, *usual, "--sequences", "64,128"))["rates"]
    assert [row["max_num_seqs"] for row in named] == [64, 128]
    own, *suiting = json.loads(run(estimate, *usual, "--sequences", "best"))["rates"]
    assert "max_num_seqs" not in own
    assert max(max(row["max_rate_rps"][0]) for row in suiting) > max(own["max_rate_rps"][0])


def test_estimate_says_what_does_not_fit():
    text = run(estimate, "--model", "llama-3.1-70b", "--gpu", "H100", "--tp", "1,4", *SMALL)
    assert "GiB per GPU are missing" in text
    with pytest.raises(InputError, match="GiB per GPU are missing"):
        run(estimate, "--model", "llama-3.1-70b", "--gpu", "L4", *SMALL)


def test_estimate_takes_described_gpus_and_models(tmp_path):
    (tmp_path / "gpus.yaml").write_text(
        "gpus:\n  Mine: {memory_gib: 40, bandwidth_gb_s: 1000, tflops: {fp16: 200}, interconnect: PCIe, "
        "interconnect_gb_s: 32}\n"
    )
    config = {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "intermediate_size": 5632,
        "vocab_size": 32000,
        "_name_or_path": "my/small-model",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    files = ("--gpu-file", tmp_path / "gpus.yaml", "--model-config", tmp_path / "config.json")
    assert "my/small-model on 1xMine" in run(estimate, *files, "--gpu", "Mine", *SMALL)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--model", "llama-3.1-9b", "--gpu", "L4"), "did you mean"),
        (("--model", "llama-3.1-8b", "--gpu", "L5"), "did you mean"),
        (("--gpu", "L4"), "either --model or --model-config"),
        (("--model", "llama-3.1-8b", "--gpu", "L4", "--tp", "two"), "--tp is two"),
        (("--model", "llama-3.1-8b", "--gpu", "L4", "--tp", "3"), "do not divide"),
        (("--model", "llama-3.1-8b", "--gpu", "L4", "--precision", "fp7"), "precision is 'fp7'"),
        (("--model", "llama-3.1-8b", "--gpu", "L4", "--calibration", "missing.yaml"), "cannot read it"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, problem):
    with pytest.raises(InputError, match=problem):
        run(estimate, *arguments, *SMALL)


@pytest.mark.parametrize("grid", ["250", "0x100", "axb", "infx1"])
def test_a_bad_grid_is_a_usage_error(grid):
    result = CliRunner().invoke(estimate, ["--model", "llama-3.1-8b", "--gpu", "L4", "--grid", grid])
    assert result.exit_code == 2
