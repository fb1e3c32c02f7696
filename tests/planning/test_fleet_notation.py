"""The notation for fleets: what it says, what it refuses, and which machines it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melange.catalog.hardware import load_catalog
from melange.catalog.instances import InstanceType
from melange.catalog.offers import keyed, read_prices
from melange.catalog.precisions import PRECISIONS
from melange.errors import InputError
from melange.plan.costs import describe_instances
from melange.planning.fleet_notation import FleetPart, machine_of, parse_fleet


def part(count, name, **choices):
    return FleetPart(count=count, name=name, **choices)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("2xH100 + 7xL40S/fp8", [part(2, "H100"), part(7, "L40S", precision="fp8")]),
        ("4xA100-80GB/tp2", [part(4, "A100-80GB", tp=2)]),
        ("1xH100:8/tp4/fp8", [part(1, "H100", gpus=8, tp=4, precision="fp8")]),
        ("L4", [part(1, "L4")]),
        ("3 X secure L40S", [part(3, "secure L40S")]),
        ("2*L4/kv-fp8/bt2048+1 x H200", [part(2, "L4", kv_dtype="fp8", batched_tokens=2048), part(1, "H200")]),
        ("1xL4/s64/bt512", [part(1, "L4", sequences=64, batched_tokens=512)]),
        ("2xp5.48xlarge/fp8/tp8", [part(2, "p5.48xlarge", tp=8, precision="fp8")]),
        ("1xH100@aws/us-east-1+spot/tp1 + L4", [part(1, "H100@aws/us-east-1+spot", tp=1), part(1, "L4")]),
        ("1xL4/kv-auto", [part(1, "L4", kv_dtype="auto")]),
    ],
)
def test_parts_counts_and_choices(text, parts):
    assert parse_fleet(text) == tuple(parts)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a part is empty"),
        ("2xH100 + ", "a part is empty"),
        ("0xH100", "the count is 0"),
        ("2xH100:0", "the number of GPUs is 0"),
        ("2xH100/fp9", "unknown choice 'fp9'"),
        ("2xH100/", "unknown choice ''"),
        ("2xH100/tp2/tp4", "names its tp twice"),
        ("2xH100/fp8/int8", "names its precision twice"),
        ("2xH100/tp0", "the tensor-parallel degree is 0"),
        ("2xH100/s0", "the number of sequences is 0"),
        ("2xH100/x4", "unknown choice 'x4'"),
        ("1xH100:2/tp4", "TP 4 needs more GPUs than the 2"),
        ("2x/fp8", "names no machine"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(text, problem):
    with pytest.raises(InputError, match=problem) as found:
        parse_fleet(text)
    assert "\n" not in str(found.value)
    assert str(found.value).startswith("fleet: ")


@given(
    st.lists(
        st.tuples(
            st.integers(1, 999),
            st.sampled_from(["H100", "A100-80GB", "p5.48xlarge", "L4@aws", "secure H100 SXM"]),
            st.sampled_from([None, 1, 2, 8]),
            st.sampled_from([None, *PRECISIONS]),
            st.sampled_from([None, 512]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read_back(rows):
    parts = [part(n, name, tp=tp, precision=how, batched_tokens=most) for n, name, tp, how, most in rows]
    text = " + ".join(
        f"{p.count}x{p.name}"
        + (f"/tp{p.tp}" if p.tp else "")
        + (f"/{p.precision}" if p.precision else "")
        + (f"/bt{p.batched_tokens}" if p.batched_tokens else "")
        for p in parts
    )
    assert parse_fleet(text) == tuple(parts)


def test_what_plans_print_is_read():
    assert parse_fleet(describe_instances({"L4": 2, "p5.48xlarge": 1})) == (part(2, "L4"), part(1, "p5.48xlarge"))


def machine(name, gpu, gpus, usd, **more):
    return InstanceType(name=name, gpu=gpu, gpus=gpus, price_usd_per_hour=usd, memory_gib=80, **more)


OFFERS = [
    machine("one", "H100", 1, 4.0, provider="a"),
    machine("dear", "H100", 1, 5.0, provider="b"),
    machine("eight", "H100", 8, 30.0, provider="a"),
    machine("six", "L4", 1, 0.8, provider="a"),
]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("2xH100", "one"),
        ("2xh100-sxm", "one"),
        ("2xH100@b", "dear"),
        ("1xH100:8", "eight"),
        ("1xH100/tp2", "eight"),
        ("1xeight/tp1", "eight"),
        ("1xdear", "dear"),
        ("L4/tp1", "six"),
    ],
)
def test_a_part_means_the_cheapest_machine_that_it_describes(text, name):
    (asked,) = parse_fleet(text)
    assert machine_of(asked, OFFERS, load_catalog(), priced="a list").name == name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1xT4", "fleet: a list has no offer of T4; on offer: H100, L4"),
        ("1xH1000", "fleet: unknown GPU or instance type 'H1000'; did you mean 'H100'?"),
        ("1xH100:4", "fleet: a list has no machine of H100 of 4 GPUs; its machines have 1, 8 GPUs"),
        ("1xL4/tp2", "fleet: a list has no machine of L4 for TP 2; its machines have 1 GPUs"),
        ("1xone/tp2", "fleet: a list has no machine of one for TP 2; its machines have 1 GPUs"),
    ],
)
def test_a_machine_that_is_not_on_offer_is_one_clear_line(text, problem):
    (asked,) = parse_fleet(text)
    with pytest.raises(InputError) as found:
        machine_of(asked, OFFERS, load_catalog(), priced="a list")
    assert str(found.value) == problem


def test_every_shipped_offer_is_found_by_each_of_its_names():
    offers = keyed([offer for offer in read_prices() if offer.price_set == "2026-11" and not offer.spot])
    for offer in offers:
        (asked,) = parse_fleet(f"3x{offer.key}")
        assert machine_of(asked, offers, load_catalog(), priced="a list") == offer


@pytest.mark.parametrize("text", ["1.5xL4", "-1xL4", ".5xL4", "nanxL4", "2xH100 + infxL4"])
def test_a_count_that_is_none_is_named(text):
    with pytest.raises(InputError, match="is not a whole number from 1"):
        parse_fleet(text)
