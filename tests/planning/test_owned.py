"""Machines that are owned: offers that cost nothing, as many as there are, beside what is rented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from melange.analysis.efficiency import cost_efficiency, fractional_costs
from melange.analysis.sweep import sweep_rates
from melange.catalog.hardware import load_catalog
from melange.catalog.instances import InstanceType
from melange.errors import InputError
from melange.plan.file import plan_of_record, plan_record
from melange.planning.limits import Limits, TypeLimit
from melange.planning.load import load_measure
from melange.planning.owned import owned_machines
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import dump_workload, load_workload, write_workload
from melange.solver.problem import Status

SHIPPED = {
    "azure-conversation": "L40S",
    "azure-code": "H100",
    "mooncake-conversation": "H200",
    "arena-120ms": "L4",
    "arena-120ms-mean": "A10G",
}


def own(spec, **machines):
    """The spec with so many GPUs of each type owned, (number, GPUs a machine)."""
    return spec.limited(owned={name.replace("_", "-"): count for name, count in machines.items()})


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_workload_uses_what_is_owned_and_pays_no_more_for_it(name):
    spec, gpu = load_workload(name), SHIPPED[name]
    paid = plan_fleet(spec)
    size = 8 if gpu == "H200" else 1
    plan = plan_fleet(own(spec, **{gpu: (size, size)}))
    key = f"8x{gpu}@owned" if size == 8 else f"{gpu}@owned"
    assert plan.status == Status.OPTIMAL
    assert plan.cost_usd_per_hour < paid.cost_usd_per_hour
    assert plan.instances[key] == 1
    rented = sum(n * _price(plan, k) for k, n in plan.instances.items() if k != key)
    assert plan.cost_usd_per_hour == pytest.approx(rented)
    assert {config.owned for config in plan.configs.values() if config.instance_key == key} == {True}
    assert plan_of_record(plan_record(plan)) == plan
    # Much of it is enough, for nothing, and no more is taken than that needs.
    rich = plan_fleet(own(spec, **{gpu: (800, size)}))
    assert (rich.status, rich.cost_usd_per_hour, rich.gap) == (Status.OPTIMAL, 0.0, 0.0)
    assert 0 < rich.instances[key] < 100
    assert rich.savings in (0.0, None)
    fewer = plan_fleet(own(spec, **{gpu: ((rich.instances[key] - 1) * size, size)}))
    assert fewer.cost_usd_per_hour is None or fewer.cost_usd_per_hour > 0


def _price(plan, key):
    return next(c.price_usd_per_hour for c in plan.configs.values() if c.instance_key == key)


def test_the_fleet_is_that_of_renting_less_what_is_owned():
    # Of one type alone, what is owned saves its machines one by one.
    spec = load_workload("azure-conversation").limited(only=("L40S",)).with_rate(30)
    needed = plan_fleet(spec).instances["L40S"]
    for owned in range(needed + 2):
        plan = plan_fleet(own(spec, L40S=(owned, None)))
        assert plan.instances.get("L40S", 0) == max(0, needed - owned)
        assert plan.instances.get("L40S@owned", 0) == min(owned, needed)


def test_limits_are_for_what_is_rented():
    spec = own(load_workload("azure-conversation"), L40S=(2, None))
    assert plan_fleet(spec.limited(maximum={"L40S": 0})).instances == {"L40S@owned": 2}
    assert plan_fleet(spec.limited(only=("H100",))).instances == {"L40S@owned": 2}
    assert plan_fleet(spec.limited(exclude=("L40S",))).instances == {"L40S@owned": 2}
    with_floor = plan_fleet(spec.limited(minimum={"L40S": 1}))
    assert with_floor.instances == {"L40S": 1, "L40S@owned": 1}
    limit = next(row for row in with_floor.limits if row.name == "L40S@owned")
    assert (limit.kind, limit.value, limit.used) == ("max", 2, 1)


def test_what_no_list_offers_may_be_owned(shared):
    # T4 has no offer in the price set, two L40S no machine of their own.
    spec = own(load_workload("azure-conversation"), L40S=(2, 2)).limited(only=("H100",))
    plan = plan_fleet(spec.with_serving(tp=(2,)))
    assert set(plan.instances) == {"2xL40S@owned"}
    assert plan.considered.describe().startswith("2 GPU types of price set 2026-11 and owned machines")
    box = load_workload(shared / "cases" / "box-70b.yaml")
    assert plan_fleet(own(box, H100=(8, 8))).instances == {"8xH100@owned": 1}


def test_a_named_machine_has_the_size_that_the_list_says():
    spec = own(load_workload("azure-conversation"), **{"p5.48xlarge": (1, None)})
    (row,) = owned_machines(spec, load_catalog())
    assert (row.count, row.machine.gpu, row.machine.gpus, row.machine.key) == (1, "H100", 8, "p5.48xlarge@owned")
    assert (row.machine.price_usd_per_hour, row.machine.owned) == (0.0, True)
    assert plan_fleet(spec).instances == {"p5.48xlarge@owned": 1}


def test_machines_that_nothing_fits_stay_idle_and_are_named():
    spec = own(load_workload("mooncake-conversation"), H100=(8, None))  # of one GPU each
    plan = plan_fleet(spec)
    assert not any("owned" in key for key in plan.instances)
    assert any("8 owned H100@owned stay idle" in text for text in plan.warnings)


def test_figures_per_dollar_leave_out_what_has_no_price():
    spec = own(load_workload("azure-conversation"), L40S=(2, None))
    assert not any("owned" in name for name in cost_efficiency(spec).tokens_per_usd)
    assert fractional_costs(spec).mixed_usd_per_hour == 0.0
    assert (load_measure(spec).weight[spec.workload.rate_rps > 0] > 0).all()
    alone = own(replace(spec, limits=Limits(fleet=("L40S",))).limited(exclude=("L40S",)), L40S=(2, None))
    with pytest.raises(InputError, match="every machine of the workload is owned"):
        cost_efficiency(alone)
    assert (load_measure(alone).weight[spec.workload.rate_rps > 0] > 0).all()


def test_a_sweep_rents_what_is_beyond_the_owned():
    frame = sweep_rates(own(load_workload("azure-conversation"), L40S=(2, None)), [2.0, 30.0]).to_frame()
    assert frame["cost_usd_per_hour"].tolist()[0] == 0.0
    assert frame["cost_usd_per_hour"].tolist()[1] > 0


FILE = """\
version: 1
name: mine
model: llama-3.1-8b
slo: {{tpot_ms: 50, tpot_definition: decode}}
rate_rps: 4
sizes:
  input_edges_tokens: [1000]
  output_edges_tokens: [250]
  buckets:
  - {{input_tokens_max: 1000, output_tokens_max: 250, share: 1, mean_input_tokens: 500, mean_output_tokens: 100}}
fleet: {fleet}
"""


def written(tmp_path, fleet):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE.format(fleet=fleet))
    return path


def test_the_file_says_what_is_owned_and_is_read_back(tmp_path):
    spec = load_workload(written(tmp_path, "{H100: {owned: 16, gpus_per_machine: 8, max: 2}, L4: {owned: 3}}"))
    assert spec.limits.types["H100"] == TypeLimit(maximum=2, owned=16, gpus_per_machine=8)
    again = tmp_path / "again.yaml"
    write_workload(again, spec)
    assert load_workload(again).limits == spec.limits
    assert "owned: 16" in dump_workload(spec)
    # A command's word stands in the place of the file's.
    asked = spec.limited(owned={"h100": (8, None), "L4": (0, None)})
    assert [(row.machine.key, row.count) for row in owned_machines(asked, load_catalog())] == [("8xH100@owned", 1)]
    assert plan_fleet(spec).cost_usd_per_hour == 0.0


@pytest.mark.parametrize(
    ("fleet", "problem"),
    [
        ("{H100: {owned: -1}}", "fleet.H100.owned is -1; give a value at least 0"),
        ("{H100: {owned: 4, gpus_per_machine: 8}}", "fleet.H100: 4 owned in machines of 8 GPUs; give a multiple"),
        ("{H100: {owned: 8, gpus_per_machine: 0}}", "fleet.H100.gpus_per_machine is 0; give a value at least 1"),
        ("{H1000: {owned: 1}}", "unknown GPU or instance type 'H1000'"),
        ("{p5.48xlarge: {owned: 4, gpus_per_machine: 4}}", "the price list says 8 GPUs, not 4"),
        ("{H100: {own: 1}}", "own"),
    ],
)
def test_a_wrong_word_on_what_is_owned_is_one_clear_line(tmp_path, fleet, problem):
    with pytest.raises(InputError) as found:
        plan_fleet(load_workload(written(tmp_path, fleet)))
    assert problem in str(found.value)
    assert "mine.yaml" in str(found.value)


def test_an_owned_machine_has_no_price():
    with pytest.raises(InputError, match=r"it is owned at 1\.0"):
        InstanceType(name="x", gpu="L4", gpus=1, price_usd_per_hour=1.0, memory_gib=24, owned=True)


def test_a_file_s_entry_of_nothing_but_what_is_owned_leaves_open_what_is_rented(tmp_path):
    text = Path(load_workload("azure-conversation").file).read_text()
    plain = plan_fleet(load_workload("azure-conversation").with_rate(20))
    costs = {}
    entries = {"H100": "{owned: 1}", "L4": "{owned: 1}", "T4": "{owned: 2}", "A100-80GB": "{owned: 1, min: 0}"}
    for name, entry in entries.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"{text}\nfleet: {{{name}: {entry}}}\n")
        spec = load_workload(file).with_rate(20)
        assert spec.limits.fleet == (("A100-80GB",) if "min" in entry else None)
        again = tmp_path / f"again-{name}.yaml"
        write_workload(again, spec)
        assert load_workload(again).limits == spec.limits
        costs[name] = plan_fleet(spec).cost_usd_per_hour
    assert all(costs[name] <= plain.cost_usd_per_hour for name in ("H100", "L4", "T4"))
    asked = own(load_workload("azure-conversation").with_rate(20), H100=(1, None))
    assert costs["H100"] == plan_fleet(asked).cost_usd_per_hour
