from __future__ import annotations

import csv
import io
import json

import pytest
from click.testing import CliRunner

from melange import InputError
from melange.cli.gpus import gpus


def output(*arguments):
    result = CliRunner().invoke(gpus, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_prices_carry_their_age():
    rows = list(csv.DictReader(io.StringIO(output("--gpu", "L4", "--price-set", "paper-2024", "-o", "csv"))))
    assert [(row["gpu"], float(row["price_usd_per_hour"]), row["read_on"]) for row in rows] == [
        ("L4", 0.7, "2024-02-24")
    ]
    assert int(rows[0]["price_age_days"]) > 700


def test_json_lists_gpus_with_their_offers():
    data = json.loads(output("--gpu", "h100,A100", "-o", "json"))
    assert {gpu["name"] for gpu in data["gpus"]} == {"H100", "A100-40GB"}
    assert {offer["gpu"] for offer in data["offers"]} == {"H100", "A100-40GB"}


def test_models():
    names = {row["name"] for row in json.loads(output("--models", "-o", "json"))["models"]}
    assert names >= {"llama-2-7b", "llama-3.1-70b", "mixtral-8x7b"}


def test_own_prices(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("instance,gpu,on_demand_usd_per_hour\nbox,L4,0.5\n")
    assert "box" in output("--prices", str(file))


@pytest.mark.parametrize("arguments", [["--gpu", "L5"], ["--price-set", "2031"], ["--provider", "acme"]])
def test_unknown_names_are_refused(arguments):
    with pytest.raises(InputError, match="known"):
        CliRunner().invoke(gpus, arguments, catch_exceptions=False)


def test_gpus_lists_prices_with_their_age():
    data = json.loads(output("-o", "json", "--gpu", "L4"))
    assert {offer["gpu"] for offer in data["offers"]} == {"L4"}
    assert all("price_age_days" in offer for offer in data["offers"])
    with pytest.raises(InputError, match="did you mean"):
        output("--gpu", "L44")
    assert "llama-3.1-70b" in output("--models")
