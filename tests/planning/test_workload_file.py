from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from melange import InputError, ServingChoice, load_workload, plan_fleet, write_workload
from melange.planning.limits import Limits, TypeLimit
from melange.planning.workload_file import dump_workload

GOOD = """\
version: 1
name: mine
model: llama-2-7b
slo: {tpot_ms: 120, tpot_definition: e2e_per_token, statistic: mean}
rate_rps: 4
sizes:
  input_edges_tokens: [100, 1000]
  output_edges_tokens: [100]
  buckets:
  - {input_tokens_max: 100, output_tokens_max: 100, share: 3}
  - {input_tokens_max: 1000, output_tokens_max: 100, share: 1, mean_input_tokens: 400, mean_output_tokens: 50}
profiles: {set: melange-2024/llama-2-7b, assume_slo: true}
prices: paper-2024
fleet: {L4: {max: 10}, A10G: {}, H100: {min: 0}}
"""


def load(tmp_path, text):
    file = tmp_path / "w.yaml"
    file.write_text(text)
    return load_workload(file)


def test_the_file_as_values(tmp_path):
    spec = load(tmp_path, GOOD)
    assert spec.workload.rate_rps.tolist() == [[3.0], [1.0]]
    assert spec.workload.mean_input_tokens.tolist() == [[100.0], [400.0]]
    assert spec.workload.slo.tpot_s == 0.12
    assert spec.limits.fleet == ("L4", "A10G", "H100")
    assert spec.limits.types["L4"] == TypeLimit(maximum=10)
    assert spec.prices.price_set == "paper-2024"


def test_written_files_read_back_equal(tmp_path, small_spec):
    spec = replace(
        small_spec,
        workload=replace(small_spec.workload, sample_requests=500),
        headroom=0.1,
        late_by_design=0.2,
        limits=Limits(fleet=("L4",), types={"L4": TypeLimit(minimum=1, maximum=3)}),
        prices=replace(small_spec.prices, spot=True, providers=("aws",)),
    )
    write_workload(tmp_path / "w.yaml", spec, comment="a comment")
    again = load_workload(tmp_path / "w.yaml")
    assert again.workload.slo == spec.workload.slo
    assert again.workload.sample_requests == 500
    assert again.late_by_design == 0.2
    assert (again.limits, again.prices, again.profiles, again.headroom) == (
        spec.limits,
        spec.prices,
        spec.profiles,
        spec.headroom,
    )
    np.testing.assert_allclose(again.workload.rate_rps, spec.workload.rate_rps)
    np.testing.assert_allclose(again.workload.mean_product_tokens2[0], spec.workload.mean_product_tokens2[0])
    assert dump_workload(replace(again, file=None)) == dump_workload(spec)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate_rps: 4", "rate_rsp: 4", r"w.yaml:5:1: unknown key 'rate_rsp' in the document; did you mean 'rate_rps'"),
        ("rate_rps: 4", "rate_rps: -4", r"w.yaml:5:11: rate_rps is -4; give a value above 0"),
        ("rate_rps: 4", "rate_rps: fast", r"w.yaml:5:11: rate_rps is the text 'fast', not a number"),
        ("rate_rps: 4", "rate_rps: .nan", r"w.yaml:5:11: the value is NaN"),
        ("rate_rps: 4", "rate_rps: .inf", r"w.yaml:5:11: the value is infinite"),
        ("rate_rps: 4\n", "", "rate_rps is missing"),
        ("share: 3", "share: .nan", r"w.yaml:10:\d+: the value is NaN"),
        ("[100, 1000]", "[1000, 100]", r"w.yaml:7:30: input_edges_tokens is not ascending: 100 follows 1000"),
        ("share: 3", "share: -3", r"w.yaml:10:.*-3; give a value at least 0"),
        ("{input_tokens_max: 1000, ", "{input_tokens_max: 900, ", r"w.yaml:11:24: input_tokens_max 900 is not an edge"),
        ("share: 3", "shar: 3", "unknown key 'shar'.*did you mean 'share'"),
        ("statistic: mean", "statistic: median", r"w.yaml:4:\d+: slo.statistic is the text 'median'"),
        ("statistic: mean", "statistic: attainment", "attainment is missing"),
        ("tpot_definition: e2e_per_token, ", "", "tpot_definition is missing"),
        ("{max: 10}", "{max: 1, min: 2}", "min 2 exceeds max 1"),
        ("version: 1", "version: 2", "version is 2"),
        ("name: mine", "name: mine\nname: yours", r"w.yaml:3:1: key 'name' occurs twice"),
        ("[100]\n", "[]\n", "output_edges_tokens is empty"),
        ("name: mine", "name: [", "not valid YAML"),
        ("mean_output_tokens: 50", "mean_output_tokens: 500", "above its bucket's edge"),
    ],
)
def test_bad_input_names_place_problem_and_cure(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(InputError, match=message):
        load(tmp_path, GOOD.replace(old, new))


def test_an_empty_histogram_is_refused(tmp_path):
    with pytest.raises(InputError, match="histogram is empty"):
        load(tmp_path, GOOD.replace("share: 3", "share: 0").replace("share: 1,", "share: 0,"))


@pytest.mark.parametrize(
    ("content", "message"), [(b"\x00\x01\xff", "not a text file"), (b"- 1\n", "no mapping"), (b"", "no mapping")]
)
def test_files_that_are_no_workload(tmp_path, content, message):
    file = tmp_path / "w.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_workload(file)
    with pytest.raises(InputError, match="cannot read it"):
        load_workload(tmp_path / "absent.yaml")


def test_numbers_that_yaml_reads_as_text(tmp_path):
    assert load(tmp_path, GOOD.replace("rate_rps: 4", "rate_rps: 1e1")).workload.total_rate_rps == pytest.approx(10)


def test_json_is_yaml(tmp_path):
    file = tmp_path / "w.json"
    import json

    file.write_text(json.dumps(yaml.safe_load(GOOD)))
    assert load_workload(file).workload.total_rate_rps == 4


WINDOWS = """\
windows:
- {start_s: 0, length_s: 60, requests: [3, 1]}
- {start_s: 60, length_s: 60, requests: [9, 3]}
"""


def test_windows_are_read_scaled_and_written_back(tmp_path):
    spec = load(tmp_path, GOOD + WINDOWS)
    np.testing.assert_allclose(spec.workload.window_rates_rps(), [[[1.5], [0.5]], [[4.5], [1.5]]])
    write_workload(tmp_path / "w2.yaml", spec)
    again = load_workload(tmp_path / "w2.yaml").workload
    assert [w.requests.tolist() for w in again.windows] == [w.requests.tolist() for w in spec.workload.windows]
    assert [(w.start_s, w.length_s) for w in again.windows] == [(0, 60), (60, 60)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[9, 3]", "[9]", r"w.yaml:17:41: the window has 1 numbers of requests, the workload 2 buckets"),
        ("[9, 3]", "[9, -3]", r"w.yaml:17:45: .*-3; give a value at least 0"),
        (
            "length_s: 60, requests: [9",
            "length_s: 0, requests: [9",
            r"w.yaml:17:27: .*length_s is 0; give a value abov",
        ),
        ("start_s: 60", "start_s: 30", r"w.yaml:17:13: the window at 30 s starts before the one above it ends \(60"),
        ("start_s: 60", "start: 60", r"w.yaml:17:4: unknown key 'start'.*did you mean 'start_s'"),
        (
            "- {start_s: 60, length_s: 60, requests: [9, 3]}",
            "- {start_s: 60}",
            r"w.yaml:17:3: .*lacks the key 'length_",
        ),
    ],
)
def test_windows_that_make_no_sense_are_named(tmp_path, old, new, message):
    assert old in WINDOWS
    with pytest.raises(InputError, match=message):
        load(tmp_path, GOOD + WINDOWS.replace(old, new))


def test_windows_without_a_request_are_refused(tmp_path):
    empty = WINDOWS.replace("[3, 1]", "[0, 0]").replace("[9, 3]", "[0, 0]")
    with pytest.raises(InputError, match=r"w.yaml:16:1: no window holds a request"):
        load(tmp_path, GOOD + empty)


TRACED = """\
version: 1
name: mine
model: llama-2-7b
trace: {path: t.csv}
"""


def test_a_trace_in_the_file_makes_windows(tmp_path):
    rows = "".join(f"{n},{20 + n % 7},30\n" for n in range(2400))
    (tmp_path / "t.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    assert [w.count for w in load(tmp_path, TRACED).workload.windows] == [1200, 1200]
    three = load(tmp_path, TRACED.replace("t.csv", "t.csv, windows: 3")).workload
    assert len(three.windows) == 3
    lengths = load(tmp_path, TRACED.replace("t.csv", "t.csv, window_minutes: 10")).workload.windows
    assert [w.start_s for w in lengths] == [0, 600, 1200, 1800]
    assert load(tmp_path, TRACED.replace("t.csv", "t.csv, windows: none")).workload.windows == ()
    both = TRACED.replace("t.csv", "t.csv, windows: 3, window_minutes: 10")
    with pytest.raises(InputError, match=r"w.yaml:4:31: both a number and a length of windows"):
        load(tmp_path, both)
    with pytest.raises(InputError, match=r"w.yaml:5:10: windows beside a trace"):
        load(tmp_path, TRACED + "windows: []\n")


def test_a_model_may_be_described_beside_the_file(tmp_path, shared):
    (tmp_path / "config.json").write_text((shared / "cases" / "awq.json").read_text())
    text = GOOD.replace("model: llama-2-7b", "model: ./config.json").replace(
        "profiles: {set: melange-2024/llama-2-7b, assume_slo: true}\n", ""
    )
    spec = load(tmp_path, text)
    assert spec.workload.model == tmp_path.name
    assert spec.catalog().model(tmp_path.name).precision == "int4"
    assert load(tmp_path, dump_workload(spec)).workload.model == spec.workload.model
    plan = plan_fleet(spec.limited(only=["H100"]))
    assert {config.precision for config in plan.configs.values()} == {"int4"}
    assert all(config.model_shape is not None for config in plan.configs.values())
    with pytest.raises(InputError, match=r"w.yaml:3:\d+: model ./no.json: "):
        load(tmp_path, text.replace("./config.json", "./no.json"))


def test_serving_choices_are_read_and_written(tmp_path):
    text = (
        GOOD
        + "serving: {precisions: [any], tp: [1, 2], kv_dtypes: [auto, fp8], batched_tokens: [512], sequences: [64]}\n"
    )
    serving = load(tmp_path, text).serving
    assert serving == ServingChoice(
        precisions=("any",), tp=(1, 2), kv_dtypes=("auto", "fp8"), batched_tokens=(512,), sequences=(64,)
    )
    assert load(tmp_path, dump_workload(load(tmp_path, text))).serving == serving
    with pytest.raises(InputError, match=r"w.yaml:\d+:\d+: .*any stands alone"):
        load(tmp_path, text.replace("[any]", "[any, fp8]"))


def test_the_part_that_may_be_late_by_design_is_half_unless_the_file_says_otherwise(tmp_path, small_spec):
    file = tmp_path / "w.yaml"
    file.write_text(dump_workload(small_spec))
    assert load_workload(file).late_by_design == 0.5
    assert "late_by_design" not in file.read_text()
    lines = len(file.read_text().splitlines())
    file.write_text(file.read_text() + "late_by_design: 1.5\n")
    with pytest.raises(InputError, match=rf"w.yaml:{lines + 1}.*late_by_design"):
        load_workload(file)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("arena-12ms", "did you mean arena-120ms?"),
        ("zzz", "shipped workloads: arena-120ms,"),
        ("no/zzz", "cannot read it: No such"),
    ],
)
def test_a_workload_that_is_not_there(name: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        load_workload(name)
