from __future__ import annotations

from dataclasses import replace

import pytest

from melange import InputError, Limits, PriceChoice, TypeLimit
from melange.planning.choices import choose
from melange.planning.profile_source import load_profile


@pytest.fixture
def profile(small_spec):
    return load_profile(small_spec)


def keys_and_limits(spec, profile, **limits):
    choices = choose(spec.limited(**limits), profile)
    return {o.key for o in choices.offers}, [(g.name, dict(g.weights), g.minimum, g.maximum) for g in choices.limits]


def test_caps_by_gpu_count_gpus_and_by_instance_count_instances(small_spec, profile):
    spec = small_spec.with_prices(PriceChoice())
    _, (by_gpu, by_instance) = keys_and_limits(spec, profile, maximum={"H100": 3, "gpu_8x_h100_sxm5": 1})
    assert by_gpu == ("H100", {"H100": 1, "gpu_8x_h100_sxm5": 8, "p5.48xlarge": 8}, 0, 3)
    assert by_instance == ("gpu_8x_h100_sxm5", {"gpu_8x_h100_sxm5": 1}, 0, 1)


def test_fleet_only_and_exclude(small_spec, profile):
    fleet = Limits(fleet=("L4", "A10G", "H100"), types={"A10G": TypeLimit(maximum=1)})
    spec = replace(small_spec, limits=fleet)
    assert keys_and_limits(spec, profile)[0] == {"L4", "A10G", "H100"}
    assert keys_and_limits(spec, profile, exclude=("H100",))[0] == {"L4", "A10G"}
    assert keys_and_limits(spec, profile, only=("H100",))[0] == {"H100"}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"maximum": {"L5": 1}}, "unknown GPU or instance type 'L5'; did you mean 'L4'"),
        ({"maximum": {"A100": 1}}, r"A100 \(A100-40GB\) is not in the profile; did you mean 'A100-80GB'"),
        ({"only": ("H200",)}, "H200 is not in the profile"),
        ({"exclude": ("L4", "A10G", "H100", "A100-80GB")}, "no GPU type is left"),
    ],
)
def test_names_that_cannot_be_rented(small_spec, profile, limits, message):
    with pytest.raises(InputError, match=message):
        choose(small_spec.limited(**limits), profile)


def test_a_gpu_without_a_price(small_spec, profile, tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("instance,gpu,on_demand_usd_per_hour\nbox,L4,1\n")
    spec = small_spec.with_prices(PriceChoice(file=str(file)))
    assert any("A10G is profiled but" in w for w in choose(spec, profile).warnings)
    with pytest.raises(InputError, match="no offer of A10G"):
        choose(spec.limited(only=("A10G",)), profile)


def test_offers_of_ones_own_stand_in_for_the_list(small_spec, profile):
    (l4,) = [offer for offer in choose(small_spec, profile).offers if offer.gpu == "L4"]
    choices = choose(small_spec.with_offers([replace(l4, price_usd_per_hour=0.1)]), profile)
    assert [(offer.gpu, offer.price_usd_per_hour) for offer in choices.offers] == [("L4", 0.1)]


def test_a_named_instance_may_be_rented_although_a_cheaper_one_exists(small_spec, profile):
    spec = small_spec.with_prices(PriceChoice())
    assert keys_and_limits(spec, profile, only=("p5.4xlarge",))[0] == {"H100"}
    assert keys_and_limits(spec, profile, only=("H100@aws",))[0] == {"H100"}
    keys, floors = keys_and_limits(spec, profile, only=("H100",), minimum={"p5.4xlarge": 2})
    assert keys == {"H100@nebius", "H100@aws", "gpu_8x_h100_sxm5"}
    assert floors == [("p5.4xlarge", {"H100@aws": 1}, 2, None)]


def test_what_is_excluded_neither_dominates_nor_names_the_rest(small_spec, profile):
    spec = small_spec.with_prices(PriceChoice()).limited(only=("H100",), exclude=("HGX H100", "gpu_8x_h100_sxm5"))
    assert {(o.key, o.provider) for o in choose(spec, profile).offers} == {("H100", "runpod"), ("p5.48xlarge", "aws")}


def test_only_keeps_the_caps_of_the_file_however_a_type_is_written(small_spec, profile):
    types = {"L4": TypeLimit(maximum=3), "H100": TypeLimit(minimum=1)}
    spec = replace(small_spec, limits=Limits(fleet=("L4", "H100"), types=types))
    keys, limits = keys_and_limits(spec, profile, only=("l4",))
    assert keys == {"L4"}
    assert limits == [("L4", {"L4": 1}, 0, 3)]
    merged = keys_and_limits(spec, profile, maximum={"l4": 2})[1]
    assert ("L4", {"L4": 1}, 0, 2) in merged


def test_a_floor_on_what_may_not_be_rented_is_an_error(small_spec, profile):
    with pytest.raises(InputError, match="at least 1 of H100 is asked for, but it may not be rented"):
        choose(small_spec.limited(exclude=("H100",), minimum={"H100": 1}), profile)


def test_names_of_the_file_are_placed_in_it(small_spec, profile):
    places = {"fleet.L5": (7, 3), "model": (3, 8)}
    spec = replace(small_spec, file="w.yaml", places=places, limits=Limits(fleet=("L5", "L4")))
    with pytest.raises(InputError, match=r"^w\.yaml:7:3: unknown GPU or instance type 'L5'"):
        choose(spec, profile)
    other = replace(spec, workload=replace(spec.workload, model="llama-9"))
    with pytest.raises(InputError, match=r"^w\.yaml:3:8: the profile has no model 'llama-9'"):
        choose(other, profile)
