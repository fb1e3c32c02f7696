from __future__ import annotations

import csv
import io
import sys
import zipfile
from datetime import UTC, datetime, timedelta

import pytest

from melange.cli.main import main

HEADER = "instance_name,location,price,gpu_count,gpu_name,gpu_memory,spot\n"
AWS = HEADER + (
    "g6.xlarge,us-east-1,0.8,1,L4,24.0,False\ng6.xlarge,us-east-1,0.35,1,L4,24.0,True\n"
    "p4de.24xlarge,us-east-1,27.4,8,A100,80.0,False\nNV36,us-east-1,3.2,1,A10,24.0,False\n"
)
GCP = HEADER + "g2-standard-4,us-central1-a,0.3,1,L4,24.0,False\n"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    folder = tmp_path / "catalog"
    folder.mkdir()
    (folder / "aws.csv").write_text(AWS)
    (folder / "gcp.csv").write_text(GCP)
    monkeypatch.chdir(tmp_path)
    return folder


def run(*arguments, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["gpus", *arguments])
    out, err = capfd.readouterr()
    return ended.value.code, out, err


FROM_COPY = ("refresh", "--catalog", "catalog", "--read-on", "2026-11-26")


def test_the_file_is_one_that_other_commands_read(copy, capfd):
    code, out, err = run(*FROM_COPY, "-o", "prices.csv", capfd=capfd)
    assert (code, out) == (0, "")
    assert err.splitlines() == [
        "3 machines with prices",
        "left out: 1 offers of GPUs, or parts of one, that the catalog does not hold (A10 1)",
        "warning: g2-standard-4 of gcp (us-central1) at $0.3/h is less than half of what any other provider asks for "
        "L4: check it before you plan with it",
    ]
    code, out, _ = run(
        "--prices", "prices.csv", "--price-set", "2026-11-26", "--provider", "aws", "-o", "csv", capfd=capfd
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["name"], row["spot"], row["price_usd_per_hour"]) for row in rows] == [
        ("p4de.24xlarge", "False", "27.4"), ("g6.xlarge", "False", "0.8"), ("g6.xlarge", "True", "0.35"),
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(["solve", "arena-120ms", "--prices", "prices.csv"])
    assert ended.value.code == 0
    assert "L4" in capfd.readouterr().out


def test_standard_output_and_filters(copy, capfd):
    code, out, _ = run(*FROM_COPY, "--gpu", "A100-80GB", "--provider", "aws", capfd=capfd)
    assert code == 0
    assert [row["instance"] for row in csv.DictReader(io.StringIO(out))] == ["p4de.24xlarge"]
    assert run(*FROM_COPY, "-o", "-", capfd=capfd)[1] == run(*FROM_COPY, capfd=capfd)[1]


def test_a_zip_says_its_own_day(copy, capfd):
    with zipfile.ZipFile("catalog.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("aws.csv", date_time=(2026, 11, 25, 0, 0, 0)), AWS)
    code, out, _ = run("refresh", "--catalog", "catalog.zip", capfd=capfd)
    assert code == 0
    assert {row["price_set"] for row in csv.DictReader(io.StringIO(out))} == {"2026-11-25"}


TOMORROW = (datetime.now(UTC).date() + timedelta(days=2)).isoformat()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("refresh", "--catalog", "catalog"), "it does not say when its prices were read; give --read-on"),
        ((*FROM_COPY[:3], "--read-on", "yesterday"), "'yesterday' is not a day such as"),
        ((*FROM_COPY[:3], "--read-on", TOMORROW), "is yet to come"),
        (("refresh", "--read-on", "2026-11-26"), "give --catalog, too"),
        (("refresh", "--catalog", "absent", "--read-on", "2026-11-26"), "absent: cannot read it"),
        ((*FROM_COPY, "--gpu", "L44"), "unknown GPU 'L44'; did you mean"),
        ((*FROM_COPY, "--provider", "acme"), "no offer of the provider 'acme'; known: aws, gcp"),
        ((*FROM_COPY, "-o", "nowhere/p.csv"), "its folder does not exist"),
        ((*FROM_COPY, "-o", "catalog"), "is a directory"),
        ((*FROM_COPY, "-o", "catalog/prices.csv"), "the command reads every CSV file of its folder"),
        (("refresh", "--catalog", "catalog/aws.csv", "-o", "catalog/aws.csv"), "reads or writes it already"),
        (("refreh",), "No such command 'refreh'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(copy, capfd, arguments, message):
    before = sorted(copy.parent.rglob("*"))
    code, out, err = run(*arguments, capfd=capfd)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(copy.parent.rglob("*")) == before
    assert (copy / "aws.csv").read_text() == AWS


def test_no_offer_left_is_an_error(copy, capfd):
    code, out, err = run(*FROM_COPY, "--gpu", "H100", "-o", "p.csv", capfd=capfd)
    assert (code, out) == (2, "")
    assert err.startswith("melange: catalog: no offer is left")
    assert not (copy.parent / "p.csv").exists()


def test_without_the_extra_one_line_names_it(copy, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "gpuhunt", None)
    code, out, err = run("refresh", "-o", "p.csv", capfd=capfd)
    assert (code, out) == (2, "")
    assert err == "melange: fetching current prices needs the package gpuhunt; pip install '.[prices]'\n"


def test_fetched_through_gpuhunt_from_a_mirror(copy, capfd, monkeypatch):
    pytest.importorskip("gpuhunt", reason="the extra 'prices' is not installed")
    folder = copy.parent / "mirror" / "aws"
    (folder / "20261124-1").mkdir(parents=True)
    (folder / "version").write_text("20261124-1\n")
    full = HEADER.strip() + ",cpu,memory\n" + "".join(f"{line},4,16\n" for line in AWS.splitlines()[1:])
    with zipfile.ZipFile(folder / "20261124-1" / "catalog.zip", "w") as archive:
        archive.writestr("aws.csv", full)
    monkeypatch.setenv("GPUHUNT_CATALOG_URL", (copy.parent / "mirror").as_uri())
    code, out, err = run("refresh", capfd=capfd)
    assert code == 0
    assert [(row["instance"], row["read_on"]) for row in csv.DictReader(io.StringIO(out))] == [
        ("p4de.24xlarge", "2026-11-24"),
        ("g6.xlarge", "2026-11-24"),
    ]
    assert "warning: Failed to load azure catalog" in err
    assert "things more" in err
    monkeypatch.setenv("GPUHUNT_CATALOG_URL", (copy.parent / "absent").as_uri())
    code, out, err = run("refresh", capfd=capfd)
    assert (code, out) == (1, "")
    assert err.startswith("melange: cannot fetch the catalog of gpuhunt")
    assert len(err.splitlines()) == 1
