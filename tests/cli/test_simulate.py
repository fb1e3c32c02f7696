from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from melange.cli.main import main
from melange.cli.simulate import simulate
from melange.plan.file import plan_record, write_plan
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload


@pytest.fixture(scope="module")
def plan():
    return plan_fleet(load_workload("arena-120ms").with_rate(4))


@pytest.fixture
def plan_file(plan, tmp_path):
    path = tmp_path / "plan.json"
    write_plan(path, plan)
    return str(path)


def invoke(*arguments):
    return CliRunner().invoke(simulate, [str(a) for a in arguments], catch_exceptions=False)


QUICK = ("--requests", 800, "--replications", 2)


def test_the_table_tells_attainment_loads_and_causes(plan_file):
    result = invoke(plan_file, *QUICK)
    assert result.exit_code == 0
    for words in ("meet the limits jointly", "TTFT", "TPOT", "A100-80GB", "goodput", "per million tokens", "warning:"):
        assert words in result.output


def test_json_has_a_schema_version_and_the_same_bytes_each_time(plan_file):
    first, again = (invoke(plan_file, *QUICK, "-o", "json", "--policy", "power-of-two").output for _ in range(2))
    assert first == again
    report = json.loads(first)
    assert report["schema_version"] == 1
    assert report["attainment"]["low"] <= report["attainment"]["mean"] <= report["attainment"]["high"]


def test_policies_compare_in_one_command(plan_file):
    result = invoke(plan_file, *QUICK, "--compare-policies", "-o", "json")
    assert {"paper", "shares", "round-robin", "shares:oracle"} <= set(json.loads(result.output))
    table = invoke(plan_file, *QUICK, "--policies", "paper,shares:predictor=0.7").output
    assert "shares:predictor=0.7" in table


def test_plots_are_written_twice_the_same(plan_file, tmp_path):
    pytest.importorskip("matplotlib")
    for folder in ("a", "b"):
        assert invoke(plan_file, *QUICK, "--plot", tmp_path / folder).exit_code == 0
    for name in ("tpot_cdf.svg", "load_over_time.svg", "tpot_cdf.png", "load_over_time.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert ET.parse(tmp_path / "a" / "tpot_cdf.svg").getroot().tag.endswith("svg")


def test_failures_are_counted(plan_file):
    output = invoke(plan_file, *QUICK, "--fail", "A100-80GB@30+60", "-o", "json").output
    report = json.loads(output)
    assert report["outages"] == 2
    assert report["means"]["restarted_share"] > 0


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in ("simulate", *arguments)])
    message = capsys.readouterr().err.strip()
    assert caught.value.code == 2
    assert "\n" not in message
    return message


def test_bad_input_is_one_clear_line(plan, plan_file, tmp_path, capsys):
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps({**plan_record(plan), "schema_version": 99}))
    assert "upgrade" in fails(capsys, newer)
    assert "needs a predictor" in fails(capsys, plan_file, "--policy", "shares:predictor")
    trace = tmp_path / "trace.csv"
    trace.write_text("input_tokens,output_tokens\n10,20\n")
    assert "no arrival times" in fails(capsys, plan_file, "--trace", trace, "--arrivals", "trace")
    trace.write_text("input_tokens,output_tokens\n")
    assert "no rows" in fails(capsys, plan_file, "--trace", trace)
    trace.write_text("")
    assert "empty" in fails(capsys, plan_file, "--trace", trace)
    assert "arrivals are" in fails(capsys, plan_file, "--arrivals", "gamma")
    bare = tmp_path / "bare.json"
    write_plan(bare, replace(plan, buckets=tuple(replace(b, max_rate_rps={}) for b in plan.buckets)))
    assert "shares.L4 is 1 of a config that cannot serve the bucket" in fails(capsys, bare)
    assert "missing.json" in fails(capsys, tmp_path / "missing.json")


def test_a_fleet_of_a_workload_is_played_and_kept_as_a_plan(tmp_path):
    kept = tmp_path / "asked.json"
    asked = ("azure-conversation", "--fleet", "1xL40S + 1xL40S/fp8", *QUICK, "-o", "json")
    first = json.loads(invoke(*asked, "--rate", 3, "--plan", kept).output)
    assert first["provenance"]["replicas"] == {"L40S/bt512": 1, "L40S#2/fp8/bt512": 1}
    assert first["cost_usd_per_hour"] == pytest.approx(2.18)
    again = json.loads(invoke(kept, *QUICK, "-o", "json").output)
    assert again == first
    # The SLO and what may run are the command's where it says so.
    strict = json.loads(invoke(*asked, "--slo-ttft-ms", 1, "--precision", "fp8").output)
    assert strict["attainment"]["mean"] == 0
    assert set(strict["provenance"]["replicas"]) == {"L40S/fp8", "L40S#2/fp8"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--fleet", "2xH1000"), "unknown GPU or instance type 'H1000'; did you mean 'H100'?"),
        (("--fleet", "2xT4"), "price set 2026-11 has no offer of T4"),
        (("--fleet", ""), "a part is empty"),
        (("--fleet", "1xL4/tp2"), "no machine of L4 for TP 2"),
        ((), "a workload takes --fleet"),
        (("--tp", 2), "--tp goes with --fleet"),
        (("--plan", "plan.json"), "--plan goes with --fleet"),
    ],
)
def test_a_fleet_that_cannot_be_is_one_clear_line(arguments, problem, capsys):
    assert problem in fails(capsys, "azure-conversation", *arguments)


def test_a_plan_takes_no_fleet(plan_file, capsys):
    assert "--fleet takes a workload" in fails(capsys, plan_file, "--fleet", "2xH100")


@pytest.mark.parametrize("other", ["--compare-policies", "--additivity", "--unknown-lengths"])
def test_a_picture_is_of_one_simulation(plan_file, tmp_path, other):
    done = invoke(plan_file, *QUICK, other, "--plot", tmp_path / "plots")
    assert done.exit_code == 2
    assert "--plot draws one simulation" in done.output
    assert not (tmp_path / "plots").exists()
