"""Estimates under loads as people and programs read them."""

from __future__ import annotations

import csv
import io
import json

import pytest

from melange import Load, estimate_at_load, render_loads

SIZES = {"input_tokens": [1000.0], "output_tokens": [200.0]}


@pytest.fixture(scope="module")
def found():
    loads = [Load(concurrency=16), Load(rate_rps=2.0), Load(rate_rps=1e4), Load()]
    return estimate_at_load("llama-3.1-8b", ["H100", "B300"], loads, **SIZES)


def test_the_table_names_figures_units_and_bands(found):
    text = render_loads(found)
    for name in ("req/s", "tok/s", "80% band", "per GPU", "TPOT ms", "TTFT s", "E2E s", "slots", "bound"):
        assert name in text
    assert "TPOT is the decode mean" in " ".join(text.split())
    assert "llama-3.1-8b on 1xH100 (bf16, vllm)" in text
    row = next(line for line in text.splitlines() if "16 at once" in line)
    assert f"{found.rows[0].output_tokens_per_s:,.0f}" in row
    assert max(map(len, text.splitlines())) <= 110


def test_a_rate_above_saturation_is_said_with_the_saturation_rate(found):
    text = render_loads(found)
    assert "10000 req/s is above saturation" in text
    assert f"{found.rows[2].saturation_rps:.3g} req/s" in text
    assert "not kept" in text
    assert "inf" not in text


def test_the_nearest_measurement_stands_beside_its_prediction(found):
    text = " ".join(render_loads(found).split())
    assert "nearest public measurement (to 1000/200" in text
    assert "predicted there" in text
    assert "differs:" in text
    assert "nearest public measurement: none is known of the B300" in text


def test_json_holds_every_row_with_its_nearest(found):
    shown = json.loads(render_loads(found, "json"))
    assert shown["schema_version"] == 1
    assert len(shown["loads"]) == 8
    first, last = shown["loads"][0], shown["loads"][-1]
    assert first["nearest_public"]["point"]["gpu"] == "H100"
    assert first["nearest_public"]["predicted"]["output_tokens_per_s"] > 0
    assert last["nearest_public"] is None
    assert (shown["loads"][2]["kept"], shown["loads"][2]["ttft_mean_s"]) == (False, None)


def test_csv_is_one_line_a_row(found):
    rows = list(csv.DictReader(io.StringIO(render_loads(found, "csv"))))
    assert len(rows) == 8
    assert float(rows[0]["rate_rps"]) == pytest.approx(found.rows[0].rate_rps, rel=1e-4)
    assert rows[2]["ttft_mean_s"] == ""


def test_prompts_alone_count_prompt_tokens():
    found = estimate_at_load(
        "llama-3.1-8b", "H100", [Load(concurrency=1)], input_tokens=[1000.0, 200_000.0], output_tokens=[1.0]
    )
    text = render_loads(found)
    assert "prompts alone, prompt tok/s" in text
    assert f"{found.rows[0].input_tokens_per_s:,.0f}" in text
    assert "does not fit" in text
