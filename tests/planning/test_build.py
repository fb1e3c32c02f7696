from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange import InputError, Limits, Measurement, PriceChoice, Slo, profile_from
from melange.measurements.measurement import LatencyStats
from melange.planning.build import build_problem
from melange.planning.profile_source import load_profile
from melange.planning.spec import ServingChoice, TypeLimit


@pytest.fixture
def profile(small_spec):
    return load_profile(small_spec)


def test_load_is_rate_over_max_rate_and_headroom_scales_the_rate(small_spec, profile):
    plain = build_problem(small_spec, profile).problem
    padded = build_problem(replace(small_spec, headroom=0.25), profile).problem
    build = build_problem(small_spec, profile)
    assert plain.load == pytest.approx(build.rate_rps[:, None] / build.max_rate_rps)
    assert padded.load == pytest.approx(1.25 * plain.load)


def test_empty_buckets_are_left_out(small_spec, profile):
    assert build_problem(small_spec, profile).problem.buckets == ("100x100", "100x500", "1000x100")


def test_headroom_of_one_config(small_spec, profile):
    some = build_problem(small_spec, profile, headroom_by_config={"L4": 1.0}).problem
    plain = build_problem(small_spec, profile).problem
    ratio = some.load / plain.load
    assert ratio[:, some.configs.index("L4")] == pytest.approx(2.0)
    assert ratio[:, some.configs.index("H100")] == pytest.approx(1.0)


def test_tied_outputs_sum_their_loads_and_share_their_shares(small_spec, profile):
    tied, free = build_problem(small_spec, profile, tie_outputs=True), build_problem(small_spec, profile)
    assert tied.problem.buckets == ("100x100+100x500", "1000x100")
    assert tied.problem.load[0] == pytest.approx(free.problem.load[0] + free.problem.load[1])
    shares = tied.expand(np.array([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))
    assert shares.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]


def test_caps_by_gpu_count_gpus_and_by_instance_count_instances(small_spec, profile):
    spec = replace(small_spec, prices=PriceChoice())
    limits = Limits(maximum={"H100": 3, "gpu_8x_h100_sxm5": 1})
    by_gpu, by_instance = build_problem(spec, profile, limits=limits).limits
    assert dict(by_gpu.weights) == {"H100": 1, "gpu_8x_h100_sxm5": 8, "p5.48xlarge": 8}
    assert dict(by_instance.weights) == {"gpu_8x_h100_sxm5": 1}


def test_fleet_only_and_exclude(small_spec, profile):
    spec = replace(small_spec, fleet={"L4": TypeLimit(), "A10G": TypeLimit(maximum=1), "H100": TypeLimit()})
    keys = {o.key for o in build_problem(spec, profile, limits=Limits(exclude=("H100",))).offers}
    assert keys == {"L4", "A10G"}
    keys = {o.key for o in build_problem(spec, profile, limits=Limits(only=("H100",))).offers}
    assert keys == {"H100"}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(maximum={"L5": 1}), "unknown GPU or instance type 'L5'; did you mean 'L4'"),
        (Limits(maximum={"A100": 1}), r"A100 \(A100-40GB\) is not in the profile; did you mean 'A100-80GB'"),
        (Limits(only=("H200",)), "H200 is not in the profile"),
        (Limits(exclude=("L4", "A10G", "H100", "A100-80GB")), "no GPU type is left"),
    ],
)
def test_names_that_cannot_be_rented(small_spec, profile, limits, message):
    with pytest.raises(InputError, match=message):
        build_problem(small_spec, profile, limits=limits)


def test_a_gpu_without_a_price(small_spec, profile, tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("instance,gpu,on_demand_usd_per_hour\nbox,L4,1\n")
    spec = replace(small_spec, prices=PriceChoice(file=str(file)))
    assert any("A10G is profiled but" in w for w in build_problem(spec, profile).warnings)
    with pytest.raises(InputError, match="no offer of A10G"):
        build_problem(spec, profile, limits=Limits(only=("A10G",)))


def test_unknown_model(small_spec, profile):
    spec = replace(small_spec, workload=replace(small_spec.workload, model="llama-2-7"))
    with pytest.raises(InputError, match="did you mean 'llama-2-7b'"):
        build_problem(spec, profile)


def test_grid_mismatch_with_upper_edges(small_spec, profile):
    grid = replace(small_spec.workload.grid, input_edges_tokens=(110, 1000))
    spec = replace(small_spec, workload=replace(small_spec.workload, grid=grid, representative="upper_edge"))
    with pytest.raises(InputError, match="grid mismatch: the input edge 110"):
        build_problem(spec, profile)


def test_sizes_that_nobody_measured_are_refused(small_spec):
    sizes = {"model": "llama-2-7b", "gpu": "L4", "loop": "capacity", "achieved_rps": 1.0}
    points = [Measurement(**sizes, input_tokens=i, output_tokens=o) for i in (50, 100) for o in (50, 100)]
    profile = profile_from(points, Slo())
    with pytest.raises(InputError, match=r"not measured: 100x500, 1000x100 \(not measured on L4\)"):
        build_problem(small_spec, profile)


def slow_above_100(slo):
    """An L4 that meets the SLO for short outputs only."""
    points = []
    for i in (50, 1000):
        for o, tpot in ((50, 0.05), (100, 0.05), (500, 0.3)):
            stats = LatencyStats(mean=tpot, p50=tpot, p99=tpot)
            points.append(
                Measurement(
                    model="llama-2-7b", gpu="L4", input_tokens=i, output_tokens=o, loop="closed", concurrency=1,
                    achieved_rps=1.0, tpot_e2e_per_token_s=stats,
                )
            )  # fmt: skip
    return profile_from(points, slo)


def test_demand_that_no_config_can_meet(small_spec):
    slo = small_spec.workload.slo
    build = build_problem(small_spec, slow_above_100(slo))
    assert build.problem is None
    assert build.unservable == ("100x500",)


def test_an_attainment_slo_lets_the_allowed_share_be_late(small_spec):
    slo = replace(small_spec.workload.slo, attainment=0.6)
    spec = replace(small_spec, workload=replace(small_spec.workload, slo=slo))
    build = build_problem(spec, slow_above_100(slo))
    assert build.problem.buckets == ("100x100", "1000x100")
    assert build.expand(np.ones((2, 1))).tolist() == [[1], [0], [1]]
    assert any("29% of the requests (100x500)" in w for w in build.warnings)


def test_serving_choice_filters_configs(small_spec, profile):
    with pytest.raises(InputError, match="serving choice"):
        build_problem(replace(small_spec, serving=ServingChoice(tp=(2,))), profile)


def keys_and_limits(spec, profile, limits):
    build = build_problem(spec, profile, limits=limits)
    return {o.key for o in build.offers}, [(g.name, dict(g.weights), g.minimum, g.maximum) for g in build.limits]


def test_a_named_instance_may_be_rented_although_a_cheaper_one_exists(small_spec, profile):
    spec = replace(small_spec, prices=PriceChoice())
    assert keys_and_limits(spec, profile, Limits(only=("p5.4xlarge",)))[0] == {"H100"}
    assert keys_and_limits(spec, profile, Limits(only=("H100@aws",)))[0] == {"H100"}
    keys, floors = keys_and_limits(spec, profile, Limits(only=("H100",), minimum={"p5.4xlarge": 2}))
    assert keys == {"H100@nebius", "H100@aws", "gpu_8x_h100_sxm5"}
    assert floors == [("p5.4xlarge", {"H100@aws": 1}, 2, None)]


def test_what_is_excluded_neither_dominates_nor_names_the_rest(small_spec, profile):
    spec = replace(small_spec, prices=PriceChoice())
    build = build_problem(spec, profile, limits=Limits(only=("H100",), exclude=("HGX H100", "gpu_8x_h100_sxm5")))
    assert {(o.key, o.provider) for o in build.offers} == {("H100", "runpod"), ("p5.48xlarge", "aws")}


def test_only_keeps_the_caps_of_the_file_however_a_type_is_written(small_spec, profile):
    spec = replace(small_spec, fleet={"L4": TypeLimit(maximum=3), "H100": TypeLimit(minimum=1)})
    keys, limits = keys_and_limits(spec, profile, Limits(only=("l4",)))
    assert keys == {"L4"}
    assert limits == [("L4", {"L4": 1}, 0, 3)]
    merged = keys_and_limits(spec, profile, Limits(maximum={"l4": 2}))[1]
    assert ("L4", {"L4": 1}, 0, 2) in merged


def test_a_floor_on_what_may_not_be_rented_is_an_error(small_spec, profile):
    with pytest.raises(InputError, match="at least 1 of H100 is asked for, but it may not be rented"):
        build_problem(small_spec, profile, limits=Limits(exclude=("H100",), minimum={"H100": 1}))


def test_names_of_the_file_are_placed_in_it(small_spec, profile):
    spec = replace(
        small_spec,
        file="w.yaml",
        places={"fleet.L5": (7, 3), "model": (3, 8)},
        fleet={"L5": TypeLimit(), "L4": TypeLimit()},
    )
    with pytest.raises(InputError, match=r"^w\.yaml:7:3: unknown GPU or instance type 'L5'"):
        build_problem(spec, profile)
    other = replace(spec, workload=replace(spec.workload, model="llama-9"))
    with pytest.raises(InputError, match=r"^w\.yaml:3:8: the profile has no model 'llama-9'"):
        build_problem(other, profile)
