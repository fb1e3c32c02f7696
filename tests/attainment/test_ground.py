"""What a search stands on: which configs are left out, and the plan of any fleet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.attainment.ground import describe, ground_of
from melange.errors import InfeasibleError
from melange.planning.assemble import plan_of
from melange.planning.case import case_of
from melange.planning.planner import choices_of
from melange.planning.workload_file import load_workload
from melange.solver.problem import GroupLimit, Solution, Status
from melange.traces import Trace

EVERY = slice(None)
# Machines of several GPUs multiply the clocks to be matched, and nothing of what is tested here.
FEW = {
    "azure-conversation": ("L4", "L40S"),
    "azure-code": ("L4", "L40S"),
    "mooncake-conversation": ("H200",),
    "arena-120ms": ("L4", "H100"),
    "arena-120ms-mean": ("L4", "H100"),
}


@pytest.fixture(scope="module")
def choices():
    spec = load_workload("arena-120ms-mean").with_rate(3)
    return choices_of(replace(spec, limits=replace(spec.limits, only=("L4", "H100"))))


@pytest.fixture(scope="module")
def ground(choices):
    return ground_of(choices)


def too_late(choices, *places):
    """The choices with no rate at these places, (row or slice, config or slice)."""
    rates = choices.max_rate_rps.copy()
    for place in places:
        rates[place] = 0.0
    return replace(choices, max_rate_rps=rates)


def test_loads_in_time_are_the_programs_without_headroom_and_none_is_below_the_least(choices, ground):
    np.testing.assert_allclose(ground.in_time.load, choices.rate_rps[:, None] / choices.max_rate_rps)
    roomy = ground_of(replace(choices, headroom=np.full(2, 0.25)))
    np.testing.assert_allclose(roomy.in_time.load, ground.in_time.load)
    assert (ground.least.load.sum(axis=0) < ground.in_time.load.sum(axis=0)).all()
    assert (ground.least.load > 0).all()


def test_a_config_that_serves_no_size_in_time_is_left_out_and_named(choices):
    found = ground_of(too_late(choices, (EVERY, 0)))
    assert found.left_out == ("L4",)
    assert found.in_time.configs == found.in_time.instances == ("H100",)
    assert set(found.clocks) == {"H100"}
    with pytest.raises(InfeasibleError, match=r"no config serves any size in time: .* cannot be kept on L4, H100"):
        ground_of(too_late(choices, (EVERY, EVERY)))


def test_with_shares_gives_the_plan_of_plan_of(ground):
    plan = ground.plan((2, 1))
    arrangement, served = ground.arranged((2, 1))
    assert served.all()
    cost = float(ground.in_time.price_usd_per_hour @ [2, 1])
    solution = Solution(
        status=Status.FEASIBLE,
        shares=arrangement.shares,
        replicas=arrangement.replicas,
        instances=np.array([2, 1]),
        cost_usd_per_hour=cost,
        bound_usd_per_hour=0.0,
        gap=1.0,
    )
    assert plan == plan_of(ground.case, solution, {})
    assert plan.cost_usd_per_hour == pytest.approx(cost)
    assert dict(plan.instances) == {"L4": 2, "H100": 1}


def test_a_fleet_too_small_for_the_program_has_a_plan_too_and_an_empty_one_has_none(ground):
    plan = ground.plan((1, 0))
    assert max(plan.utilization.values()) > 1
    assert all(sum(bucket.shares.values()) == pytest.approx(1) for bucket in plan.buckets)
    assert ground.plan((0, 0)) is None


def test_a_size_that_nobody_rented_serves_in_time_is_spread_by_the_least_it_takes(choices):
    ground = ground_of(too_late(choices, (3, EVERY), (5, 0)))
    assert np.isinf(ground.in_time.load[3]).all()
    served = ground.plan((2, 1)).buckets
    assert not served[3].shares
    assert sum(served[3].late_shares.values()) == pytest.approx(1)
    # L4 does not serve size 5 in time, H100 does, so it goes there alone; without H100 it is late on L4.
    assert dict(served[5].shares) == {"H100": pytest.approx(1)}
    alone = ground.plan((2, 0)).buckets
    assert dict(alone[5].shares) == {}
    assert dict(alone[5].late_shares) == {"L4": pytest.approx(1)}
    arrangement, _ = ground.arranged((2, 0))
    load = np.where(np.isfinite(ground.in_time.load[:, 0]), ground.in_time.load[:, 0], ground.least.load[:, 0])
    assert arrangement.highest == pytest.approx(load.sum() / 2)


def test_a_size_that_fits_nowhere_is_left_out(ground):
    held = replace(ground.least, load=np.where(np.arange(36)[:, None] == 7, np.inf, ground.least.load))
    late = replace(ground.in_time, load=np.where(np.arange(36)[:, None] == 7, np.inf, ground.in_time.load))
    found = replace(ground, least=held, in_time=late)
    _, served = found.arranged((1, 1))
    assert np.flatnonzero(~served).tolist() == [7]
    buckets = found.plan((1, 1)).buckets
    assert [b for b, bucket in enumerate(buckets) if not (bucket.shares or bucket.late_shares)] == [7]


def test_of_every_kind_of_config_one_token_budget_that_with_the_most_sizes_in_time(choices):
    h100 = choices.configs[1]
    budgets = [replace(h100, max_batched_tokens=tokens) for tokens in (512, 4096)]
    table = choices.profile.configs[h100.key]
    profile = replace(choices.profile, configs={**choices.profile.configs, **{b.key: table for b in budgets}})
    rates = choices.max_rate_rps[:, [0, 1, 1, 1]].copy()
    rates[4, 1] = 0.0  # its own budget serves one size fewer
    rates[:, 2] *= 0.8
    several = replace(
        choices,
        profile=profile,
        configs=(choices.configs[0], h100, *budgets),
        max_rate_rps=rates,
        unlimited_rps=np.full(rates.shape, np.nan),
        headroom=np.zeros(4),
    )
    assert ground_of(several).in_time.configs == ("L4", budgets[1].name)
    rates[:, 2] /= 0.8 / 0.95  # nearly as good: the smaller one holds up others' tokens for less
    assert ground_of(replace(several, max_rate_rps=rates)).in_time.configs == ("L4", budgets[0].name)


def test_tied_outputs_share_a_row(choices):
    tied = replace(choices, options=replace(choices.options, tie_outputs=True))
    ground = ground_of(tied)
    inputs = {bucket.input_tokens_max for bucket in choices.buckets}
    assert ground.in_time.load.shape == ground.least.load.shape == (len(inputs), 2)
    np.testing.assert_allclose(ground.least.load.sum(axis=0), ground_of(choices).least.load.sum(axis=0))
    shares = {}
    for bucket in ground.plan((2, 1)).buckets:
        assert shares.setdefault(bucket.input_tokens_max, dict(bucket.shares)) == dict(bucket.shares)
    assert case_of(tied).row.max() + 1 == len(inputs)


def test_a_floor_keeps_a_machine_that_serves_nothing(choices):
    floor = (GroupLimit(name="L4", weights={"L4": 1}, minimum=1),)
    found = ground_of(replace(too_late(choices, (EVERY, 0)), limits=floor))
    assert found.in_time.instances == ("L4", "H100")
    cap = (GroupLimit(name="L4", weights={"L4": 1}, maximum=1),)
    found = ground_of(replace(too_late(choices, (EVERY, 0)), limits=cap))
    assert found.in_time.instances == ("H100",)
    assert found.in_time.limits == ()


def test_fleets_in_words(ground):
    assert describe(ground.in_time, (2, 0)) == "2 x L4"
    assert describe(ground.in_time, (2, 7)) == "2 x L4 + 7 x H100"


@pytest.mark.parametrize("name", FEW)
def test_no_shipped_workload_stops_on_a_config_without_rates(name):
    spec = load_workload(name)
    choices = choices_of(replace(spec, limits=replace(spec.limits, only=FEW[name])))
    able = (np.nan_to_num(choices.max_rate_rps) > 0).any(axis=0)
    if not able.any():
        with pytest.raises(InfeasibleError, match="no config serves any size in time"):
            ground_of(choices)
        return
    found = ground_of(choices)
    assert found.left_out == tuple(c.name for c, can in zip(choices.configs, able, strict=True) if not can)
    for i in range(len(found.in_time.instances)):
        assert found.plan(tuple(int(i == k) for k in range(len(found.in_time.instances)))) is not None


def test_the_least_loads_are_those_of_the_traces_requests(choices, ground):
    workload = choices.spec.workload
    # A trace of the workload's own mean sizes at its own mix gives its own loads.
    counts = np.rint(choices.rate_rps / choices.rate_rps.min()).astype(int)
    means = np.array([(b.mean_input_tokens, b.mean_output_tokens) for b in choices.buckets])
    sizes = np.maximum(np.repeat(np.rint(means), counts, axis=0).astype(int), 1)
    trace = Trace(input_tokens=sizes[:, 0], output_tokens=sizes[:, 1])
    same = ground_of(choices, trace=trace)
    assert same.least.load.sum(axis=0) == pytest.approx(ground.least.load.sum(axis=0), rel=0.1)
    # One of a single small size is next to no load, and every size can be served all the same.
    small = Trace(input_tokens=np.full(50, 20), output_tokens=np.full(50, 10))
    light = ground_of(choices, trace=small)
    assert (light.least.load.sum(axis=0) < 0.3 * ground.least.load.sum(axis=0)).all()
    assert np.array_equal(np.isfinite(light.least.load), np.isfinite(ground.least.load))
    assert (light.least.load > 0).all()
    assert workload.total_rate_rps == pytest.approx(3)


def test_a_ground_is_one_of_the_whole_mix(choices, ground):
    found = ground_of(replace(choices, spec=choices.spec.for_windows()))
    np.testing.assert_array_equal(found.in_time.load, ground.in_time.load)


def test_machines_of_several_degrees_may_run_one_alone(shared):
    """At 6 req/s the box keeps its promise on TP 4 alone, and not on the replicas with the most slack."""
    ground = ground_of(choices_of(load_workload(shared / "cases" / "box-70b.yaml").with_rate(6)))
    counts = tuple(1 for _ in ground.in_time.instances)
    assert {4, 8} <= set(ground.other_degrees(counts))
    for degree in (4, 8):
        plan = ground.plan(counts, degree=degree)
        assert {plan.configs[name].tp for name in plan.replicas} == {degree}


def test_machines_of_one_degree_leave_no_choice(ground):
    assert ground.other_degrees((2, 1)) == []
