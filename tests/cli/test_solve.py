"""``melange solve`` as users call it; ``--attain`` as somebody meets it who has read nothing."""

from __future__ import annotations

import csv
import io
import json

import pytest
import yaml
from click.testing import CliRunner

from melange.cli.main import main
from melange.cli.solve import solve

QUICK = ("arena-120ms-mean", "--rate", "2", "--requests", "1500")


def invoke(*arguments):
    return CliRunner().invoke(solve, [*QUICK, *arguments], catch_exceptions=False)


def failure(capsys, *arguments) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["solve", *QUICK, *arguments])
    return exit_.value.code, capsys.readouterr().err


def test_a_confirmed_plan_is_a_success_and_says_what_was_confirmed(tmp_path):
    file = tmp_path / "plan.json"
    result = invoke("--attain", "0.98", "--plan", str(file))
    assert result.exit_code == 0
    plan = json.loads(file.read_text(encoding="utf-8"))
    report = plan["attain"]
    assert report["complete"]
    assert plan["status"] == "feasible"
    assert plan["bound_usd_per_hour"] is None
    shown = " ".join(result.stdout.split())
    for words in (
        f"confirmed at {100 * report['fleet']['attainment']:.2f}%",
        f"at least {100 * report['fleet']['attainment_low']:.2f}% with 90% confidence (target 98%)",
        f"that is ${report['promise_usd_per_hour']:.2f}",
        "more than the plan for the mean load",
        "every cheaper fleet ruled out",
        f"{report['simulated']} fleet{'' if report['simulated'] == 1 else 's'} simulated",
        "headroom found",
    ):
        assert words in shown
    assert set(report["fleet"]["headroom"]) == set(plan["replicas"])


@pytest.mark.parametrize("share", ["0", "1", "nan", "inf", "-1", "101%", "2"])
def test_targets_that_are_no_shares_are_refused_in_one_line(capsys, share):
    code, text = failure(capsys, "--attain", share)
    assert code == 2
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slice-factor", "8"], "stands alone"),
        (["--explain"], "stands alone"),
        (["--uncertainty", "20"], "stands alone"),
        (["--policy", "shares:predictor"], "needs a predictor"),
        (["--policy", "bogus"], "unknown policy 'bogus'"),
        (["--arrivals", "trace"], "needs --trace"),
        (["--stands", "-1"], "--stands"),
        (["--for-every-window", "--trace", "nowhere.csv"], "windows have their own"),
        (["--for-every-window"], "no windows to plan for"),
        (["--trace", "nowhere.csv"], "nowhere.csv"),
        (["--rate", "1e5"], "more than the 1,000,000"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(capsys, arguments, words):
    asked = ["--attain", "0.98", *arguments]
    if "--rate" in arguments:
        with pytest.raises(SystemExit) as exit_:
            main(["solve", "arena-120ms-mean", *asked])
        code, text = exit_.value.code, capsys.readouterr().err
    else:
        code, text = failure(capsys, *asked)
    assert code == 2
    assert words in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("option", ["seed", "jobs"])
def test_what_nothing_would_read_is_refused(capsys, option):
    for others in ([], ["--nano-batching"], ["--explain"]):
        with pytest.raises(SystemExit) as exit_:
            main(["solve", "arena-120ms-mean", f"--{option}", "3", *others])
        assert exit_.value.code == 2
        assert f"--{option} goes with --attain or --uncertainty" in capsys.readouterr().err


def test_a_promise_without_a_share_is_the_slo_s_own(capsys):
    code, text = failure(capsys, "--attain")
    assert code == 2
    assert "the workload's SLO is about means and states no share to attain" in text
    assert len(text.splitlines()) == 1
    asked = ("--fill", "estimated", "--slo-tpot-ms", "p95=120", "--slo-ttft-ms", "p95=1000")
    code, text = failure(capsys, *asked, "--attain", "0.9")
    assert code == 2
    assert "the SLO promises percentiles" in text
    assert len(text.splitlines()) == 1
    result = invoke(*asked, "--stands", "0", "--attain")
    assert result.exit_code == 0
    assert "of simulated requests within each limit of the SLO" in " ".join(result.output.split())


def test_a_budget_below_any_fleet_that_keeps_the_promise_is_infeasible(capsys):
    code, text = failure(capsys, "--attain", "0.98", "--max-cost-usd-per-hour", "1.5")
    assert code == 3
    assert "no fleet within the limits was confirmed to attain 98%" in text.splitlines()[-1]


def test_an_interrupted_search_leaves_no_plan_behind(capsys, tmp_path, monkeypatch):
    def interrupted(self, plan):
        raise KeyboardInterrupt

    monkeypatch.setattr("melange.attainment.trial.Trials.screen", interrupted)
    code, text = failure(capsys, "--attain", "0.98", "--plan", str(tmp_path / "plan.json"))
    assert code == 130
    # After what was under way, the one line that says how it ended.
    assert text.split("\n")[-2] == "melange: interrupted"
    assert not list(tmp_path.iterdir())


def test_solve_prints_the_fleet():
    done = CliRunner().invoke(solve, ["arena-120ms"])
    assert done.exit_code == 0
    assert "1 x L4 + 1 x A100-80GB at $4.37/h" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("output", ["json", "yaml", "csv"])
def test_machine_readable_outputs(output):
    text = CliRunner().invoke(solve, ["arena-120ms", "-o", output]).stdout
    if output == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["config"] for row in rows] == ["L4", "A100-80GB"]
    else:
        data = json.loads(text) if output == "json" else yaml.safe_load(text)
        assert data["schema_version"] == 2
        assert data["cost_usd_per_hour"] == pytest.approx(4.37)


def test_plan_file_that_cannot_be_written(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["solve", "arena-120ms", "--plan", str(tmp_path / "no" / "such" / "plan.json")])
    assert ended.value.code == 2
    assert "cannot write it" in capsys.readouterr().err


def test_no_fleet_is_exit_3_and_says_why():
    done = CliRunner().invoke(solve, ["arena-120ms", "--only", "L4", "--max", "L4=2"])
    assert done.exit_code == 3
    assert done.stderr.startswith("melange: no fleet serves the workload within its limits: ")
    assert len(done.stderr.splitlines()) == 1
    # Said once: what is on stdout is the plan's data.
    for reason in ("the load cannot be met under L4 <= 2", "nearest: raise L4 <= 2 to", "best effort: within all"):
        assert done.stderr.count(reason) == 1
        assert reason not in done.stdout
    assert "no fleet can serve it" in done.stdout
    record = json.loads(
        CliRunner().invoke(solve, ["arena-120ms", "--only", "L4", "--max", "L4=2", "-o", "json"]).stdout
    )
    assert record["status"] == "infeasible"
    assert len(record["reasons"]) == 3


def test_a_promise_that_no_fleet_keeps_is_an_answer_too():
    done = CliRunner().invoke(
        solve, ["azure-conversation", "--only", "L4", "--attain", "0.99", "--requests", "200", "-o", "json"]
    )
    assert done.exit_code == 3
    plan = json.loads(done.stdout)
    assert plan["status"] == "infeasible"
    assert len(plan["reasons"]) == 1
    assert done.stderr.count(plan["reasons"][0]) == 1
