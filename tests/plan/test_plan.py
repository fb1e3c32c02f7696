from __future__ import annotations

import json

import pytest

from melange import InputError, plan_fleet, read_plan, write_plan
from melange.plan.file import plan_of_record, plan_record
from melange.plan.plan import describe_instances

CONTRACT = {
    "schema_version", "status", "instances", "replicas", "cost_usd_per_hour", "bound_usd_per_hour", "gap", "configs",
    "buckets", "utilization", "baselines", "best_single_type", "limits", "costs", "slo", "workload", "provenance",
}  # fmt: skip


@pytest.fixture
def row(small_spec):
    return plan_record(plan_fleet(small_spec))


def test_the_fields_of_the_contract(row):
    assert set(row) >= CONTRACT
    config = next(iter(row["configs"].values()))
    assert set(config) >= {"gpu", "instance", "tp", "price_usd_per_hour"}
    for bucket in row["buckets"]:
        assert set(bucket) >= {"input_tokens_max", "output_tokens_max", "rate_rps", "shares", "max_rate_rps"}
    for baseline in row["baselines"].values():
        assert set(baseline) >= {"instances", "replicas", "cost_usd_per_hour", "savings", "reason"}
    assert set(row["configs"]) == set(row["baselines"]) == {"L4", "A10G", "A100-80GB", "H100"}
    assert 0 <= row["baselines"][row["best_single_type"]]["savings"] < 1


@pytest.mark.parametrize("name", sorted(CONTRACT - {"schema_version", "best_single_type"}))
def test_a_mistyped_field_is_one_line_with_the_file(row, name, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**row, name: [5] if isinstance(row[name], float) else 5}))
    with pytest.raises(InputError, match=rf"^{file}: .*{name}") as caught:
        read_plan(file)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["status", "slo", "workload", "configs", "buckets"])
def test_a_missing_field_is_named(row, name, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({key: value for key, value in row.items() if key != name}))
    with pytest.raises(InputError, match=rf"^{file}: .*lacks the key '{name}'"):
        read_plan(file)


def test_a_plan_that_is_not_finite_is_never_written(row, tmp_path):
    plan = plan_of_record({**row, "cost_usd_per_hour": float("nan")})
    with pytest.raises(InputError, match="cost_usd_per_hour is nan"):
        write_plan(tmp_path / "plan.json", plan)
    assert not (tmp_path / "plan.json").exists()


def test_replicas_of_an_unknown_config_are_refused(row):
    with pytest.raises(InputError, match="replicas of 'B200'"):
        plan_of_record({**row, "replicas": {"B200": 1}})


def test_fleets_in_words():
    assert describe_instances({"L4": 1, "A10G": 2, "H100": 0}) == "1 x L4 + 2 x A10G"
    assert describe_instances({}) == "nothing"
