from __future__ import annotations

import pytest

from melange import InputError
from melange.catalog.hardware import load_catalog
from melange.catalog.offers import keyed, read_prices, without_dominated
from melange.catalog.price_rows import price_file
from melange.interop.listings import Listing, price_list

CATALOG = load_catalog()


def listing(gpu="L4", memory_gib=24.0, price=1.0, **more):
    values = {
        "provider": "aws", "instance": "g6.xlarge", "region": "us-east-1", "gpu": gpu, "gpu_memory_gib": memory_gib,
        "gpu_count": 1, "price_usd_per_hour": price, "spot": False, "read_on": "2026-11-26", "source": "a test",
    }  # fmt: skip
    return Listing(**{**values, **more})


def found(*listings, **filters):
    return price_list(listings, CATALOG, **filters)


@pytest.mark.parametrize(
    ("gpu", "memory_gib", "instance", "name"),
    [
        ("L4", 24.0, "g6.xlarge", "L4"),
        ("L4", None, "g6.xlarge", "L4"),
        ("A100", 40.0, "a2-highgpu-1g", "A100-40GB"),
        ("A100", 80.0, "a2-ultragpu-1g", "A100-80GB"),
        ("A100", 80.0, "NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("V100", 32.0, "p3dn.24xlarge", "V100-32GB"),
        ("H100", 80.0, "p5.4xlarge", "H100"),
        ("H100", 80.0, "gpu_1x_h100_pcie", "H100-PCIe"),
        ("H100NVL", 94.0, "Standard_NC40ads_H100_v5", "H100-NVL"),
        ("H200", 141.0, "a3-ultragpu-8g", "H200"),
        ("RTX6000Ada", 48.0, "x", "RTX6000-Ada"),
        ("MI325X", 288.0, "x", "MI325X"),
    ],
)
def test_a_gpu_is_found_by_name_memory_and_instance(gpu, memory_gib, instance, name):
    assert [row.gpu for row in found(listing(gpu, memory_gib, instance=instance)).rows] == [name]


@pytest.mark.parametrize(
    ("gpu", "memory_gib"),
    [("A10", 24.0), ("H200NVL", 141.0), ("L4", 2.8), ("RTXPRO6000", 48.0), ("A100", None), ("A100", 0.0), ("", 80.0)],
)
def test_what_the_catalog_lacks_and_parts_of_a_gpu_are_counted(gpu, memory_gib):
    result = found(listing(gpu, memory_gib), listing("T4", 16.0))
    assert [row.gpu for row in result.rows] == ["T4"]
    assert dict(result.unknown_gpus) == {gpu or "without a name": 1}


def test_spot_and_on_demand_are_one_row_and_zones_a_range():
    result = found(
        listing(price=0.8), listing(price=0.9), listing(price=0.3, spot=True), listing(price=0.2, spot=True),
        listing(price=0.7, region="us-west-2"),
    )  # fmt: skip
    (east, west) = result.rows
    assert (east.on_demand_usd_per_hour, east.spot_usd_per_hour_low, east.spot_usd_per_hour_high) == (0.9, 0.2, 0.3)
    assert (east.price_set, east.read_on, east.region) == ("2026-11-26", "2026-11-26", "us-east-1")
    assert (west.on_demand_usd_per_hour, west.spot_usd_per_hour_low) == (0.7, None)


def test_machines_of_one_name_and_many_sizes_get_names_of_their_own(tmp_path):
    same = {"provider": "runpod", "instance": "NVIDIA L40S", "gpu": "L40S", "memory_gib": 48.0}
    rows = found(*(listing(**same, gpu_count=count, price=1.09 * count) for count in (1, 2, 8))).rows
    assert [row.instance for row in rows] == ["NVIDIA L40S", "NVIDIA L40S x2", "NVIDIA L40S x8"]
    file = tmp_path / "p.csv"
    file.write_text(price_file(rows))
    kept, _ = without_dominated(read_prices(file))
    assert len(keyed(kept)) == 3


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_offers_without_a_price_or_on_other_terms_are_counted_by_reason(price):
    result = found(listing(price=price), listing(special="reserved ahead"), listing(price=0.8))
    assert len(result.rows) == 1
    assert dict(result.left_out) == {"without a usable price": 1, "reserved ahead": 1}


def test_filters_choose_rows_and_what_is_counted():
    everything = [listing(), listing("A10"), listing("T4", 16.0, provider="gcp"), listing("A16", provider="gcp")]
    result = found(*everything, gpus=["l4"], providers=["aws"])
    assert [(row.gpu, row.provider) for row in result.rows] == [("L4", "aws")]
    assert dict(result.unknown_gpus) == {"A10": 1}
    assert not found(*everything, gpus=["T4"], providers=["aws"]).rows
    with pytest.raises(InputError, match="no offer of the provider 'acme'; known: aws, gcp"):
        found(*everything, providers=["acme"])
    with pytest.raises(InputError, match="unknown GPU 'L44'; did you mean"):
        found(*everything, gpus=["L44"])


def test_a_price_below_half_of_every_other_providers_is_suspicious_though_the_others_are_not_asked_for():
    host_alone = listing("A100", 40.0, 0.74, provider="gcp", instance="a2-highgpu-1g")
    others = [listing("A100", 40.0, 8 * 2.7, gpu_count=8), listing("A100", 40.0, 1.99, provider="lambda")]
    result = found(host_alone, *others, providers=["gcp"])
    assert [row.instance for row in result.suspicious] == ["a2-highgpu-1g"]
    assert not found(listing("A100", 40.0, 1.0, provider="gcp"), *others).suspicious
    assert not found(host_alone).suspicious


def test_the_order_of_listings_changes_nothing():
    listings = [listing(price=p, region=r, spot=s) for p in (1.0, 2.0) for r in ("a", "b") for s in (True, False)]
    assert found(*listings) == found(*reversed(listings))
