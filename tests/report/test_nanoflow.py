"""NanoFlow's cost analysis and searched pipelines, told to people and machines."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest

from melange.catalog.hardware import load_catalog
from melange.nanoflow.costs import Device, analyse
from melange.nanoflow.operation_times import OperationTimes
from melange.nanoflow.pipeline_search import search_pipeline
from melange.perfmodel.interference import Interference
from melange.report.nanoflow import analysis_dict, render_analysis, render_search, search_dict

CATALOG = load_catalog()


@pytest.fixture(scope="module")
def analysis():
    device = Device.of(CATALOG.gpu("A100-80GB"), gpus=2)
    return analyse(CATALOG.model("llama-3-8b"), device, input_tokens=1024, output_tokens=512, batch_tokens=1536)


@pytest.fixture(scope="module")
def search():
    """Two nano-batches of one token: 16 s in one batch, 8 in stage I, 12 in stage II."""
    seconds = {"kqv": 1.0, "decode_attention": 4.0, "prefill_attention": 1.0, "o": 1.0, "up_gate": 1.0, "down": 1.0}
    points = {kind: ((1.0, s), (2.0, 2 * s)) for kind, s in seconds.items()}
    times = OperationTimes(model="m", gpu="g", context_tokens=100, points=points, source="a test")
    interference = Interference(gpu="g", source="a guess", memory=((0.5, 1.0),))
    return search_pipeline(times, interference, batch_tokens=2, decode_tokens=2, quantum_tokens=1)


def test_an_analysis_counts_all_layers(analysis):
    plain = analysis_dict(analysis, "A100-80GB")
    assert (plain["model"], plain["gpu"], plain["gpus"]) == ("llama-3-8b", "A100-80GB", 2)
    assert plain["batch"]["tokens"] == pytest.approx(1536)
    assert plain["batch"]["decode_tokens"] == pytest.approx(512)
    assert plain["bound"] == analysis.bound
    kqv = plain["operations"][0]
    # KQV of 1536 tokens: 2 x 1536 x 4096 x 6144 FLOP in each of 32 layers, over 2 x 312 TFLOPS.
    flop = 32 * 2 * 1536 * 4096 * 6144
    assert kqv["operation"] == "kqv"
    assert kqv["gflop"] == pytest.approx(flop / 1e9)
    assert kqv["t_compute_s"] == pytest.approx(flop / (2 * 312e12))
    reduce = next(row for row in plain["operations"] if row["operation"] == "o_all_reduce")
    assert reduce["t_network_s"] > 0
    assert json.loads(render_analysis(analysis, "A100-80GB", "json")) == plain


def test_csv_and_table_are_its_operations(analysis):
    operations = analysis_dict(analysis, "A100-80GB")["operations"]
    rows = list(csv.DictReader(render_analysis(analysis, "A100-80GB", "csv").splitlines()))
    assert [row["operation"] for row in rows] == [row["operation"] for row in operations]
    assert [float(row["gflop"]) for row in rows] == pytest.approx([row["gflop"] for row in operations])
    text = render_analysis(analysis, "A100-80GB", "table")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.split()}
    assert "llama-3-8b on 2xA100-80GB (fp16)" in text
    assert lines["kqv"][-1] == "compute"
    assert lines["decode_attention"][-1] == "memory"
    assert lines["o_all_reduce"][-1] == "network"
    assert lines["T_R"][-1] == f"{analysis.t_r:.2f}"
    assert "not predictions of an engine" in text


def test_a_searched_pipeline(search):
    text = render_search(search, "table")
    said = " ".join(text.split())
    assert "m on 1xg, 2 tokens, 2 of them decode at context 100 (predicted)" in said
    assert "one batch, operation by operation 16000.000" in said
    assert "stage I, no interference 8000.000" in said
    assert "stage II, with interference 12000.000" in said
    assert "proven" in said
    assert "nano-batches end at 1, 2; predicted 1.33x one batch" in said
    assert "times: a test" in text
    assert "interference: a guess (g)" in text
    names = [line.split()[0] for line in text.splitlines() if line.split()]
    assert all(operation.name in names for operation in search.pipeline.operations)


def test_a_gap_is_told_where_nothing_is_proven(search):
    said = render_search(replace(search, pipeline=replace(search.pipeline, gap=0.025)), "table")
    assert "gap 2.5%" in said
    assert "proven" not in said


def test_machines_get_the_pipeline_and_each_splits_stages(search):
    plain = json.loads(render_search(search, "json"))
    assert plain == json.loads(json.dumps(search_dict(search)))
    assert plain["pipeline"] == json.loads(json.dumps(search.pipeline.to_dict()))
    assert plain["predicted_speedup"] == pytest.approx(16 / 12)
    (split,) = plain["splits"]
    assert split["splits"] == [1, 2]
    assert split["stage1"]["period_s"] == pytest.approx(8)
    assert split["stage2"]["period_s"] == pytest.approx(12)
    assert split["stage2"]["found"]
