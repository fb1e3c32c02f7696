"""``melange estimate`` under a stated load."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from melange.cli.estimate import estimate

BASE = ("--model", "llama-3.1-8b", "--gpu", "H100")


def invoke(*arguments):
    result = CliRunner().invoke(estimate, [*BASE, *(str(a) for a in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def loads(*arguments):
    result = invoke(*arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["loads"]


def test_clients_and_rates_are_rows_in_their_order():
    rows = loads("--grid", "1000x100,200", "--concurrency", "4,16", "--concurrency", "4")
    assert [(row["output_tokens"], row["concurrency"]) for row in rows] == [(100, 4), (100, 16), (200, 4), (200, 16)]
    rows = loads("--grid", "1000x100", "--rate", "0.5,1e3")
    assert [(row["offered_rps"], row["kept"]) for row in rows] == [(0.5, True), (1000.0, False)]


def test_the_table_is_the_default():
    text = invoke("--grid", "1000x100", "--rate", "2").stdout
    assert "2 req/s" in text
    assert "nearest public measurement" in text


def test_prompts_alone_are_a_lone_one_and_the_highest_rate():
    for grid in ("1000", "1000x100"):
        lone, highest = loads("--grid", grid, "--prefill-only")
        assert (lone["output_tokens"], lone["concurrency"], highest["concurrency"]) == (1, 1, None)
        assert lone["ttft_mean_s"] > 0
        assert highest["input_tokens_per_s"] == pytest.approx(1000 * highest["rate_rps"])
    (row,) = loads("--grid", "1000", "--rate", "5", "--prefill-only")
    assert row["offered_rps"] == 5


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--concurrency", "0"), "not a whole number from 1"),
        (("--concurrency", "2.5"), "not a whole number from 1"),
        (("--rate", "-1"), "not a rate above 0"),
        (("--rate", "nan"), "not a rate above 0"),
        (("--rate", "inf"), "not a rate above 0"),
        (("--rate", "1,"), "not a rate above 0"),
        (("--rate", "1", "--concurrency", "2"), "two loads"),
        (("--concurrency", "2", "--slo-ttft-ms", "50"), "states the load"),
        (("--prefill-only", "--attainment", "0.9"), "states the load"),
        (("--rate", "1", "--tpot-definition", "e2e_per_token"), "TPOT is the decode mean"),
        (("--rate", "1", "--save", "p.jsonl"), "--save writes the ladder"),
        (("--rate", "1", "--grid", "1000"), "is not 'paper'"),
    ],
)
def test_nonsense_is_a_usage_error(arguments, problem):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert problem in " ".join(result.output.replace("│", " ").split())
