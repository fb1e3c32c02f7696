"""The catalog as tables, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from datetime import date

from melange.catalog.hardware import Catalog, load_catalog
from melange.catalog.instances import InstanceType
from melange.report.catalog import render_gpus, render_models

CATALOG = load_catalog()
TODAY = date(2026, 11, 26)
OFFERS = [
    InstanceType(
        name="two", gpu="L4", gpus=2, price_usd_per_hour=1.5, memory_gib=48.0, price_set="mine", read_on="2026-11-16"
    ),
    InstanceType(name="one", gpu="L4", gpus=1, price_usd_per_hour=0.8, memory_gib=24.0, price_set="mine", spot=True),
]


def test_offers_come_in_order_with_their_age():
    lines = render_gpus([CATALOG.gpu("L4")], OFFERS, "table", today=TODAY).splitlines()
    one, two = ([cell for cell in line.split() if cell] for line in lines[-2:])
    assert one[:3] == ["L4", "1", "one"]
    assert one[-4:] == ["0.800", "0.800", "mine", "unknown"]
    assert "spot" in one
    assert two[:3] == ["L4", "2", "two"]
    assert two[-5:] == ["1.500", "0.750", "mine", "10", "days"]
    assert "spot" not in two


def test_fp8_where_it_is_only_stored():
    a100, h100 = (render_gpus([CATALOG.gpu(name)], [], "table", today=TODAY) for name in ("A100-80GB", "H100"))
    assert "stored only" in a100
    assert "stored only" not in h100
    assert f"{CATALOG.gpu('H100').tflops['fp8']:g}" in h100


def test_json_and_csv_hold_the_same_offers():
    data = json.loads(render_gpus([CATALOG.gpu("L4")], OFFERS, "json", today=TODAY))
    assert [gpu["name"] for gpu in data["gpus"]] == ["L4"]
    assert data["gpus"][0]["tflops"] == dict(CATALOG.gpu("L4").tflops)
    assert [offer["price_age_days"] for offer in data["offers"]] == [10, None]
    rows = list(csv.DictReader(io.StringIO(render_gpus([], OFFERS, "csv", today=TODAY))))
    assert [(row["name"], row["price_age_days"]) for row in rows] == [("two", "10"), ("one", "")]
    assert render_gpus([], [], "csv", today=TODAY) == ""


def test_models():
    names = ("llama-3.1-8b", "mixtral-8x7b")
    catalog = Catalog(gpus={}, models={name: CATALOG.model(name) for name in names})
    rows = {line.split()[0]: line.split() for line in render_models(catalog, "table").splitlines() if line.split()}
    model = CATALOG.model("llama-3.1-8b")
    assert rows[model.name][1:5] == ["8.0e9", "8.0e9", str(model.layers), "32/8x128"]
    assert rows[model.name][5] == "-"
    assert rows["mixtral-8x7b"][5:8] == ["2", "of", "8"]
    assert [row["name"] for row in json.loads(render_models(catalog, "json"))["models"]] == list(names)
    parsed = list(csv.DictReader(io.StringIO(render_models(catalog, "csv"))))
    assert [(row["name"], int(row["layers"])) for row in parsed] == [(n, CATALOG.model(n).layers) for n in names]
