from __future__ import annotations

from dataclasses import replace

import pytest

from melange import InputError, Slo, SolveOptions, load_workload, plan_fleet, read_plan, write_plan
from melange.planning.planner import prepare, solve_checked
from melange.solver.ties import with_most_slack

RATES = (1, 2, 4, 8, 16, 32)
OPTIMA = (1.71, 2.72, 4.37, 8.35, 16.06, 32.12)
SINGLE = {
    "L4": (3, 5, 9, 17, 33, 66), "A10G": (2, 3, 5, 9, 18, 36), "A100-80GB": (1, 1, 2, 3, 5, 9),
    "H100": (1, 1, 1, 2, 4, 7),
}  # fmt: skip


@pytest.mark.parametrize(("n", "rate"), list(enumerate(RATES)))
def test_the_shipped_arena_workload_gives_the_reference_costs(n, rate):
    plan = plan_fleet(load_workload("arena-120ms").with_rate(rate))
    assert plan.status == "optimal"
    assert plan.cost_usd_per_hour == pytest.approx(OPTIMA[n])
    assert {gpu: b.instances[gpu] for gpu, b in plan.baselines.items()} == {g: c[n] for g, c in SINGLE.items()}


def test_the_plan_adds_up(small_spec):
    plan = plan_fleet(small_spec.with_headroom(0.1))
    cost = sum(
        n * next(c.price_usd_per_hour for c in plan.configs.values() if c.instance_key == k)
        for k, n in plan.instances.items()
    )
    assert plan.cost_usd_per_hour == pytest.approx(cost)
    assert plan.bound_usd_per_hour <= plan.cost_usd_per_hour + 1e-9
    for bucket in plan.buckets:
        assert sum(bucket.shares.values()) == pytest.approx(1)
    for name, replicas in plan.replicas.items():
        load = sum(b.shares.get(name, 0) * b.rate_rps / b.max_rate_rps[name] for b in plan.buckets)
        assert plan.utilization[name] == pytest.approx(load / replicas)
        assert load * 1.1 <= replicas + 1e-6
    best = plan.baselines[plan.best_single_type]
    assert best.savings == pytest.approx(1 - plan.cost_usd_per_hour / best.cost_usd_per_hour)
    assert plan.costs.usd_per_month == pytest.approx(730 * cost)
    per_s = small_spec.workload.input_tokens_per_s
    assert plan.costs.usd_per_million_input_tokens == pytest.approx(cost / (per_s * 3600 / 1e6))


def test_plan_file_round_trip_and_determinism(small_spec, tmp_path):
    plan = plan_fleet(small_spec)
    write_plan(tmp_path / "a.json", plan)
    write_plan(tmp_path / "b.json", plan_fleet(small_spec))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_plan(tmp_path / "a.json") == plan


def test_a_newer_plan_is_refused(small_spec, tmp_path):
    file = tmp_path / "p.json"
    write_plan(file, replace(plan_fleet(small_spec), schema_version=99))
    with pytest.raises(InputError, match=r"p.json: plan schema version is 99.*upgrade"):
        read_plan(file)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1}', "\x00"])
def test_what_is_no_plan(tmp_path, text):
    file = tmp_path / "p.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"p\.json"):
        read_plan(file)


def test_another_slo_cannot_be_asked_of_throughputs_without_one(small_spec):
    with pytest.raises(InputError, match="assumes they keep"):
        plan_fleet(small_spec.with_slo(Slo(tpot_s=0.04, tpot_definition="e2e_per_token")))


def test_caps_bind_and_say_so(small_spec):
    free = plan_fleet(small_spec)
    capped = plan_fleet(small_spec.limited(maximum={next(iter(free.instances)): 0}))
    assert capped.cost_usd_per_hour >= free.cost_usd_per_hour
    assert [limit.binding for limit in capped.limits] == [True]


def test_floors(small_spec):
    plan = plan_fleet(small_spec.limited(minimum={"H100": 1}))
    assert plan.instances["H100"] == 1
    assert plan.baselines["L4"].instances.keys() == {"L4"}


def test_infeasible_says_which_limit_and_the_nearest_way_out(small_spec):
    short = small_spec.with_rate(100).limited(only=("L4",), maximum={"L4": 1})
    plan = plan_fleet(short)
    assert plan.status == "infeasible"
    assert any("L4" in reason for reason in plan.reasons)
    assert plan.baselines["L4"].reason


def test_slices_cost_no_less_than_continuous_shares(small_spec):
    plan = plan_fleet(small_spec, SolveOptions(slice_factor=2))
    assert plan.continuous_cost_usd_per_hour <= plan.cost_usd_per_hour + 1e-9
    shares = [s for b in plan.buckets for s in b.shares.values()]
    assert all(abs(2 * s - round(2 * s)) < 1e-9 for s in shares)


def test_input_only_routing_costs_at_least_as_much(small_spec):
    free, tied = plan_fleet(small_spec), plan_fleet(small_spec, SolveOptions(tie_outputs=True))
    assert tied.cost_usd_per_hour >= free.cost_usd_per_hour - 1e-9
    assert tied.buckets[0].shares == tied.buckets[1].shares


def test_ties_in_cost_go_to_the_replicas_with_the_most_slack(shared):
    """Not one of TP 8, which is busier, for the same machine."""
    spec = load_workload(shared / "cases" / "box-ties.yaml")
    plan = plan_fleet(spec)
    assert plan.cost_usd_per_hour == 20.0
    for tp in (2, 4, 8):
        alone = plan_fleet(spec.with_serving(tp=(tp,)))
        assert alone.cost_usd_per_hour == 20.0
        assert max(plan.utilization.values()) <= max(alone.utilization.values()) + 1e-9
    assert max(plan.utilization.values()) < 0.8 * max(alone.utilization.values())


@pytest.mark.parametrize("name", ["azure-code", "azure-conversation", "mooncake-conversation", "arena-120ms"])
def test_no_shipped_plan_runs_kinds_of_replica_that_bring_next_to_nothing(name):
    """No kind in use can be left out for another of its machine with as much slack left (see solver.ties)."""
    case = prepare(load_workload(name))
    first, _ = solve_checked(case.problem, case.choices.options)
    assert with_most_slack(case.problem, first) is first
