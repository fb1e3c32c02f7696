from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from melange.cli.capacity import capacity
from melange.cli.main import main
from melange.plan.file import write_plan
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload

QUICK = ("--requests", 500, "--resolution", "20%", "--jobs", 1)


def invoke(*arguments):
    return CliRunner().invoke(capacity, [str(a) for a in arguments], catch_exceptions=False)


def test_the_table_tells_ways_rates_and_how_they_were_found():
    result = invoke("azure-conversation", "--fleet", "1xL40S", *QUICK)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for words in ("1 x L40S", "(best)", "fp8 (not asked for)", "program:", "seed 0", "found to 20%", "--precision"):
        assert words in text
    assert "req/s" in result.stderr


def test_json_is_data_alone_and_the_same_each_time():
    arguments = ("azure-conversation", "--own", "L40S=1", *QUICK, "-o", "json")
    first, again = (invoke(*arguments).stdout for _ in range(2))
    assert first == again
    record = json.loads(first)
    assert record["schema_version"] == 1
    assert record["best"]["simulated_rps"] > 0
    assert record["machines"] == {"L40S@owned": 1}
    assert record["target"] == 0.99


def test_a_plan_is_asked_as_it_stands(tmp_path):
    file = tmp_path / "plan.json"
    write_plan(file, plan_fleet(load_workload("arena-120ms-mean").with_rate(3)))
    record = json.loads(invoke(file, "--program-only", "-o", "json").stdout)
    assert [way["label"] for way in record["ways"]] == ["planned"]
    assert record["ways"][0]["simulated_rps"] is None
    assert "simulated:" not in invoke(file, "--program-only").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("azure-conversation",), 2, "the workload owns no machines; name some with --fleet"),
        (("azure-conversation", "--fleet", "1xL4", "--own", "L4=1"), 2, "either --fleet or --own"),
        (("plan.json", "--fleet", "1xL4"), 2, "take a workload"),
        (("plan.json", "--tp", "2"), 2, "--tp goes with a workload"),
        (("azure-conversation", "--fleet", "1xH100", "--arrivals", "trace"), 2, "a replayed trace has one rate"),
        (("azure-conversation", "--fleet", "1xH100", "--resolution", "0"), 2, "is not between 0 and 1"),
        (
            ("azure-conversation", "--fleet", "1xL40S", "--slo-ttft-ms", "0.5", "--requests", "300"),
            3,
            "at no rate do these machines keep 99% of all requests",
        ),
    ],
)
def test_what_cannot_be_is_one_clear_line(arguments, code, problem, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["capacity", *arguments])
    said = capsys.readouterr()
    assert caught.value.code == code
    assert said.out == ""
    last = said.err.strip().splitlines()[-1]
    assert problem in last
    assert last.startswith("melange: ")
