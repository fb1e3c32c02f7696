"""``melange sweep`` as a command."""

from __future__ import annotations

import json
import sys

import click
import pytest
from click.testing import CliRunner

from melange.cli.main import melange
from melange.cli.sweep import gpu_values, values
from melange.errors import InputError, MissingExtraError


def run(*arguments):
    return CliRunner().invoke(melange, ["sweep", "arena-120ms", *arguments])


@pytest.mark.parametrize(
    ("text", "expected"), [("1,2,4", (1, 2, 4)), ("2:8:4", (2, 4, 6, 8)), ("8:2:3", (8, 5, 2)), ("0.5", (0.5,))]
)
def test_values(text, expected):
    assert values(None, None, text) == expected


@pytest.mark.parametrize("text", ["", "a", "1:2", "1:2:1", "1:2:2.5", "1,,2"])
def test_values_that_are_none(text):
    with pytest.raises(click.BadParameter):
        values(None, None, text)


def test_the_paper_s_figure_is_one_command(tmp_path):
    """Optimal costs on the published table, as the reference lists them."""
    done = run("--rates", "1,2,4,8,16,32", "--plot", str(tmp_path / "curve.svg"), "-o", "json")
    assert done.exit_code == 0, done.output
    costs = [round(point["cost_usd_per_hour"], 2) for point in json.loads(done.stdout)["points"]]
    assert costs == [1.71, 2.72, 4.37, 8.35, 16.06, 32.12]
    assert b"requests per second" in (tmp_path / "curve.svg").read_bytes()


def test_a_single_value_of_another_axis_applies_throughout():
    done = run("--rates", "2,4", "--price", "H100=0.5", "-o", "json")
    assert done.exit_code == 0, done.output
    assert all(point["instances"].keys() == {"H100"} for point in json.loads(done.stdout)["points"])


@pytest.mark.parametrize(
    "arguments", [[], ["--rates", "1,2", "--slo-tpot-ms", "40,80"], ["--rates", "1", "--price", "H100=2"]]
)
def test_one_axis_is_swept(arguments):
    done = run(*arguments)
    assert done.exit_code == 2
    assert "several values" in done.output


def test_no_fleet_at_any_point_is_exit_3():
    done = run("--rates", "50,60", "--only", "L4", "--max", "L4=1")
    assert done.exit_code == 3
    assert "no point has a fleet" in done.stderr


def test_a_bad_plot_name_writes_nothing(tmp_path):
    done = run("--rates", "1,2", "--plot", str(tmp_path / "x.bmp"))
    assert isinstance(done.exception, InputError)
    assert list(tmp_path.iterdir()) == []


def test_without_its_library_a_picture_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("melange.analysis.sweep.sweep_rates", None)
    done = run("--rates", "1,2", "--plot", str(tmp_path / "x.svg"))
    assert isinstance(done.exception, MissingExtraError)
    assert done.stdout == ""


def test_a_picture_that_cannot_be_written_is_refused_before_the_work_and_loses_no_table(tmp_path, monkeypatch):
    done = run("--rates", "1,2", "--plot", str(tmp_path / "missing" / "x.svg"))
    assert "its folder does not exist" in str(done.exception)
    assert done.stdout == ""

    def full(path, content):
        raise InputError("no space left")

    monkeypatch.setattr("melange.files.text.write_atomic", full)
    done = run("--rates", "1,2", "--plot", str(tmp_path / "x.svg"))
    assert "no space left" in str(done.exception)
    assert "cheapest" in done.stdout


def test_a_release_config_is_solved_not_swept(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"gpu_info": {}}')
    done = CliRunner().invoke(melange, ["sweep", str(path), "--rates", "1,2"])
    assert "can be solved, not swept" in str(done.exception)


def test_rates_are_scaled_to_the_load_asked_for():
    asked = ["sweep", "azure-code", "--rates", "20,40", "--only", "H100", "-o", "json"]
    plain = json.loads(CliRunner().invoke(melange, asked).stdout)
    done = CliRunner().invoke(melange, [*asked, "--rate", "peak", "--margin", "10%"])
    assert done.exit_code == 0, done.output
    scaled = json.loads(done.stdout)
    assert plain["load_scale"] is None
    assert (scaled["load_scale"]["statistic"], scaled["load_scale"]["margin"]) == ("peak", 0.1)
    assert [point["rate_rps"] for point in scaled["points"]] == [20, 40]
    costs = [[point["cost_usd_per_hour"] for point in swept["points"]] for swept in (plain, scaled)]
    assert all(peak > mean for mean, peak in zip(*costs, strict=True))
    text = CliRunner().invoke(melange, [*asked[:-2], "--margin", "0.1"]).stdout
    assert text.splitlines()[1] == "planned for 1.1 times the rate (margin 10%)"


def test_values_of_a_gpu_s_price():
    assert gpu_values(None, None, " H100 =2:8:3") == ("H100", (2, 5, 8))
    assert gpu_values(None, None, None) is None
    for text in ("H100", "=2,4"):
        with pytest.raises(click.BadParameter, match="is not GPU=VALUES"):
            gpu_values(None, None, text)
