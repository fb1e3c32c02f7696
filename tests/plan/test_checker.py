"""A plan that cannot be is refused by the field that says so; every plan that is made passes."""

from __future__ import annotations

import copy
import json
import random

import pytest

from melange import InputError, SolveOptions, load_workload, plan_fleet
from melange.files.shipped import data_path
from melange.plan.checker import MOST_REPLICAS, faults_of, number_faults
from melange.plan.file import plan_record, read_plan

WORKLOADS = sorted(path.stem for path in data_path("workloads").glob("*.yaml"))
ADVERSARIAL = {
    "headroom-infinity": "headroom is infinite",
    "plan-hardware-empty": r"configs\.A10G\.hardware\.\w+ is missing",
    "plan-profile-list": r"configs\.A10G\.profile\.max_rate_rps\[0\]\[0\] is a number of 401 digits",
    "plan-replicas-1e9": r"replicas\.A10G take 1000000000 GPUs of A10G, its instances hold 3",
    "plan-shape": r"configs\.A10G\.model_shape\.kv_heads is missing",
    "plan-slo-big": r"slo\.tpot_s is a number of 401 digits",
    "replicas-beyond-instances": r"replicas\.A10G take 50 GPUs of A10G, its instances hold 3",
    "shares-half": r"buckets\[0\]\.shares sum to 0\.5, not to 1",
    "shares-nan": r"buckets\[0\]\.shares\.A10G is NaN",
    "shares-unknown-config": r"buckets\[0\]\.shares\.zzz is none of its configs",
    "status-infeasible": "status is infeasible, but",
}


@pytest.fixture(scope="module")
def shipped_plans():
    return {name: plan_fleet(load_workload(name).with_rate(6), SolveOptions(gap=1e-3)) for name in WORKLOADS}


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
def test_plans_that_go_wrong_are_refused_for_their_own_fault(shared, name):
    file = shared / "cases" / "adversarial" / "plans" / f"{name}.json"
    with pytest.raises(InputError, match=ADVERSARIAL[name]) as caught:
        read_plan(file)
    assert str(caught.value).startswith(f"{file}: ")


def test_every_plan_that_goes_wrong_is_known(shared):
    found = {file.stem for file in (shared / "cases" / "adversarial" / "plans").glob("*.json")}
    assert found == set(ADVERSARIAL)


@pytest.mark.parametrize("name", WORKLOADS)
def test_plans_of_shipped_workloads_are_without_fault(shipped_plans, name):
    plan = shipped_plans[name]
    assert [*faults_of(plan), *number_faults(plan_record(plan))] == []


@pytest.mark.parametrize(
    ("headroom", "rate_rps", "limits", "options"),
    [
        (0.5, 3.5, {"maximum": {"L4": 2}, "max_cost_usd_per_hour": 50}, SolveOptions(slice_factor=4)),
        (0.0, 3.5, {"only": ("A10G",)}, SolveOptions(tie_outputs=True)),
        (0.0, 500, {"only": ("L4",), "maximum": {"L4": 1}}, SolveOptions()),
    ],
)
def test_plans_under_limits_are_without_fault(small_spec, headroom, rate_rps, limits, options):
    plan = plan_fleet(small_spec.with_headroom(headroom).with_rate(rate_rps).limited(**limits), options)
    assert list(faults_of(plan)) == []


# What a field may say instead, by what it says.
def changed(value, draw):
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return draw.choice([float("nan"), -(10**400), ["x"], {"x": {}}])
    if isinstance(value, int | float):
        return draw.choice([float("nan"), float("inf"), 10**400, -1.0 - abs(value), "7", [value], 1e300])
    return draw.choice([5, "x"])


def leaves(value, path=()):
    yield path, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in parts:
        yield from leaves(item, (*path, key))


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_changed_field_is_named_or_only_describes(shipped_plans, name, tmp_path):
    """Seeded: 40 fields of each plan, each changed once; those below ``provenance`` are for reading only."""
    draw, row = random.Random(f"plan {name}"), json.loads(json.dumps(plan_record(shipped_plans[name])))
    paths = [path for path, _ in leaves(row) if path and "provenance" not in path]
    for path in draw.sample(paths, 40):
        broken = copy.deepcopy(row)
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = changed(place[path[-1]], draw)
        file = tmp_path / "plan.json"
        file.write_text(json.dumps(broken))
        with pytest.raises(InputError) as caught:
            pytest.fail(f"{path} may be {place[path[-1]]!r}: {read_plan(file)}")
        field = next(key for key in reversed(path) if isinstance(key, str))
        assert str(caught.value).startswith(f"{file}: ")
        assert field in str(caught.value) or path[0] in str(caught.value), (path, str(caught.value))


def doubled(row):
    """Twice the replicas on the same machines."""
    return row | {"replicas": {name: 2 * count for name, count in row["replicas"].items()}}


def unserved(row):
    """The first bucket is sent to a config that has no replicas."""
    other = next(name for name in row["configs"] if name not in row["replicas"])
    return row | {"buckets": [row["buckets"][0] | {"shares": {other: 1.0}}, *row["buckets"][1:]]}


def sized(**means):
    """The first bucket has other means."""
    return lambda row: row | {"buckets": [row["buckets"][0] | means, *row["buckets"][1:]]}


def crowded(row):
    """So many replicas, machines and dollars that all agree with one another."""
    name, config = next(iter(row["configs"].items()))
    count, price = 10 * MOST_REPLICAS, config["price_usd_per_hour"]
    usd = {"cost_usd_per_hour": count * price, "bound_usd_per_hour": count * price, "costs": None}
    many = {"replicas": {name: count}, "instances": {config["instance_key"]: count}}
    return row | many | usd | {"gap": 0.0, "utilization": {}, "buckets": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (doubled, r"replicas\.\S+ take \d+ GPUs of"),
        (unserved, r"buckets\[0\]\.shares\.\S+ is 1 of a config "),
        (crowded, f"replicas are {10 * MOST_REPLICAS} in all"),
        (lambda row: row | {"cost_usd_per_hour": row["cost_usd_per_hour"] / 2}, "cost_usd_per_hour is"),
        (lambda row: row | {"bound_usd_per_hour": 2 * row["cost_usd_per_hour"]}, "bound_usd_per_hour is"),
        (lambda row: row | {"gap": 0.4}, "gap is 0.4"),
        (lambda row: row | {"instances": {"nobody": 1}}, r"instances\.nobody is no instance of its configs"),
        (lambda row: row | {"utilization": dict.fromkeys(row["utilization"], 0.123)}, r"utilization\.\S+ is 0.123"),
        (lambda row: row | {"status": "unknown"}, "status is unknown, but"),
        (lambda row: row | {"buckets": row["buckets"][1:]}, "buckets hold"),
        (lambda row: row | {"headroom": 1e9}, "headroom is 1e"),
        (lambda row: row | {"costs": row["costs"] | {"usd_per_month": 1.0}}, r"costs\.usd_per_month is 1"),
        (sized(mean_input_tokens=1e9), r"buckets\[0\]\.mean_input_tokens is 1e\+09"),
        (sized(mean_cached_tokens=9e8), r"buckets\[0\]\.mean_cached_tokens is 9e\+08"),
        (lambda row: row | {"best_single_type": "T9"}, "best_single_type is 'T9'"),
        (lambda row: row | {"replicas": {}}, "replicas are empty"),
    ],
)
@pytest.mark.parametrize("name", WORKLOADS)
def test_parts_that_contradict_one_another_are_named(shipped_plans, name, change, message, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(change(plan_record(shipped_plans[name]))))
    with pytest.raises(InputError, match=message):
        read_plan(file)
