from __future__ import annotations

from dataclasses import fields

import pytest

from melange import InputError
from melange.catalog.offers import KNOWN_COLUMNS, read_prices
from melange.catalog.price_rows import PriceRow, price_file

ROW = {
    "price_set": "2026-11-26", "provider": "aws", "instance": "g6.xlarge", "gpu": "L4", "gpu_count": 1,
    "on_demand_usd_per_hour": 0.8048, "spot_usd_per_hour_low": 0.35, "spot_usd_per_hour_high": 0.4,
    "region": "us-east-1", "read_on": "2026-11-26", "source": "a test, with a comma",
}  # fmt: skip


def row(**changes):
    return PriceRow(**{**ROW, **changes})


def test_the_fields_are_the_columns():
    assert tuple(field.name for field in fields(PriceRow)) == KNOWN_COLUMNS


def test_what_is_written_is_read_again(tmp_path):
    file = tmp_path / "p.csv"
    only_spot = row(instance='a "big", box\n', gpu_count=8, on_demand_usd_per_hour=None, spot_usd_per_hour_high=1 / 3)
    file.write_text(price_file([row(), only_spot]))
    offers = read_prices(file)
    assert [(o.name, o.gpus, o.spot, o.price_usd_per_hour) for o in offers] == [
        ("g6.xlarge", 1, False, 0.8048),
        ("g6.xlarge", 1, True, 0.4),
        ('a "big", box', 8, True, 0.3333333333),
    ]
    same = {(o.provider, o.region, o.price_set, o.read_on, o.source) for o in offers}
    assert same == {("aws", "us-east-1", "2026-11-26", "2026-11-26", "a test, with a comma")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu_count": 0}, "it has 0 GPUs"),
        ({"on_demand_usd_per_hour": -1.0}, "on_demand_usd_per_hour is -1.0"),
        ({"spot_usd_per_hour_high": float("nan")}, "spot_usd_per_hour_high is nan"),
        ({name: None for name in ROW if "usd" in name}, "it has no price"),
    ],
)
def test_a_row_that_no_file_may_hold(changes, message):
    with pytest.raises(InputError, match=message):
        row(**changes)
