from __future__ import annotations

from datetime import date

import pytest

from melange import InputError, PriceChoice, read_prices
from melange.catalog.offers import offers_on_sale, price_age_days, without_dominated

HEADER = "instance,gpu,gpu_count,on_demand_usd_per_hour,provider\n"


def choose_offers(offers, choice, *, gpus, capped=()):
    return without_dominated([o for o in offers_on_sale(offers, choice) if o.gpu in gpus], capped=capped)


def prices(tmp_path, rows, header=HEADER):
    file = tmp_path / "prices.csv"
    file.write_text(header + rows)
    return file


def test_shipped_price_sets():
    offers = read_prices()
    paper = {o.gpu: o.price_usd_per_hour for o in offers if o.price_set == "paper-2024"}
    assert paper == {"L4": 0.70, "A10G": 1.01, "A100-80GB": 3.67, "H100": 7.516}
    assert {o.price_set for o in offers} == {"paper-2024", "2026-11"}


def test_dearer_offers_of_the_same_gpu_and_size_are_dropped_and_listed():
    kept, dropped = choose_offers(read_prices(), PriceChoice(), gpus=["H100"])
    assert [(o.key, o.name) for o in kept] == [("H100", "HGX H100"), ("gpu_8x_h100_sxm5", "gpu_8x_h100_sxm5")]
    assert {d.offer.name for d in dropped} >= {"secure H100 SXM", "p5.48xlarge", "a3-highgpu-1g"}
    assert all("costs" in d.reason for d in dropped)


def test_a_capped_cheaper_offer_dominates_nothing_and_names_carry_the_provider():
    kept, _ = choose_offers(read_prices(), PriceChoice(), gpus=["H200"], capped=["HGX H200"])
    assert {o.key for o in kept if o.gpus == 1} == {"H200@nebius", "H200@runpod"}


def test_spot_counts_at_its_upper_price_and_only_when_allowed():
    plain, _ = choose_offers(read_prices(), PriceChoice(providers=("aws",)), gpus=["L4"])
    spot, _ = choose_offers(read_prices(), PriceChoice(providers=("aws",), spot=True), gpus=["L4"])
    assert (plain[0].price_usd_per_hour, spot[0].price_usd_per_hour) == (0.8048, 0.40)
    assert spot[0].spot


def test_own_prices(tmp_path):
    file = prices(tmp_path, "box,A100,2,3.0,me\n")
    kept, _ = choose_offers(read_prices(file), PriceChoice(file=str(file)), gpus=["A100-40GB"])
    assert [(o.key, o.gpus, o.price_usd_per_hour) for o in kept] == [("box", 2, 3.0)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("box,L4,1,cheap,me\n", r"prices.csv:2:4: on_demand_usd_per_hour is 'cheap'"),
        ("box,L5,1,1.0,me\n", r"prices.csv:2: unknown GPU 'L5'; did you mean L4"),
        ("box,L4,1,-1,me\n", r"prices.csv:2: instance box: price is -1"),
        ("box,L4,1,nan,me\n", "price is nan"),
        ("box,L4,1.5,1,me\n", "whole number"),
        ("box,L4,1\n", "columns"),
        ("", "holds no prices"),
    ],
)
def test_bad_rows_name_their_line(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_prices(prices(tmp_path, rows))


def test_bad_columns(tmp_path):
    with pytest.raises(InputError, match="column gpu is missing"):
        read_prices(prices(tmp_path, "a,1\n", "instance,on_demand_usd_per_hour\n"))
    with pytest.raises(InputError, match="unknown column 'prize'"):
        read_prices(prices(tmp_path, "a,L4,1,2\n", "instance,gpu,on_demand_usd_per_hour,prize\n"))


@pytest.mark.parametrize("choice", [{"price_set": "2031"}, {"providers": ("acme",)}, {"regions": ("moon",)}])
def test_names_that_nothing_has_are_refused(choice):
    with pytest.raises(InputError, match=r"known|shipped sets"):
        choose_offers(read_prices(), PriceChoice(**choice), gpus=["L4"])


@pytest.mark.parametrize(
    ("read_on", "days"),
    [("2026-11-09", 13), ("2026-06", 174), ("2026", 325), ("unknown (before 2026-11)", None), (None, None)],
)
def test_price_age(read_on, days):
    assert price_age_days(read_on, date(2026, 11, 22)) == days


def test_an_offer_that_a_limit_asks_for_stays_beside_a_cheaper_one():
    offers = [
        offer for offer in offers_on_sale(read_prices(), PriceChoice()) if offer.gpu == "H100" and offer.gpus == 1
    ]
    kept, dropped = without_dominated(offers, kept=["p5.4xlarge"])
    assert {offer.key for offer in kept} == {"H100@nebius", "H100@aws"}
    assert "p5.4xlarge" not in {d.offer.name for d in dropped}


def test_a_region_admits_no_offer_that_states_none():
    regions = {offer.region for offer in offers_on_sale(read_prices(), PriceChoice(regions=("us-east-1",)))}
    assert regions == {"us-east-1"}


def test_own_prices_from_a_spreadsheet(tmp_path):
    file = tmp_path / "prices.csv"
    file.write_bytes(("\ufeff" + HEADER + "box,L4,1,1.5,me\n").replace("\n", "\r\n").encode())
    assert [(o.name, o.price_usd_per_hour) for o in read_prices(file)] == [("box", 1.5)]
