"""The public face: every name exists, is typed for its user's mypy, and is imported when it is used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import melange

PACKAGE = Path(melange.__file__).parent
FACE = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))

GOOD = """
from pandas import DataFrame

from melange import (
    AttainReport, MachineRates, Plan, Profile, Router, SimulationOptions, SimulationReport, Slo, SolveOptions,
    Sweep, attain, calibrate, capacity_of, estimate, load_profile, load_workload, plan_fleet, plan_router,
    read_measurements, read_plan, read_trace, render_plan, simulate, sweep_rates, workload_from_trace, write_plan,
)

spec = load_workload("arena-120ms")
plan: Plan = plan_fleet(spec.with_rate(8.0), SolveOptions(gap=0.01), profile=load_profile(spec))
report: SimulationReport = simulate(plan, options=SimulationOptions(requests=1000))
sweep: Sweep = sweep_rates(spec, [1.0, 2.0])
frame: DataFrame = sweep.to_frame()
best: tuple[Plan, AttainReport] = attain(spec, 0.99)
rates: MachineRates = capacity_of(spec, "2xH100 + 7xL40S/fp8", SimulationOptions(requests=1000), simulated=False)
profile: Profile = estimate("llama-3.1-8b", ["L4", "H100"], Slo(ttft_s=0.5), tp=(1, 2)).profile
router: Router = plan_router(plan, "shares")
error: float = calibrate(read_measurements("mine.jsonl").points, name="mine").model_error
trace, told = read_trace("requests.csv"), read_plan("plan.json").slo.tpot_s
write_plan("plan.json", plan)
print(render_plan(plan, "csv"), trace.span_s, told)
"""

# Each line is wrong in one way, and mypy says so in these words.
BAD = {
    "plan_fleet(spec, SolveOptions(gpa=0.01))": 'Unexpected keyword argument "gpa"',
    "spec.with_rates(8.0)": '"WorkloadSpec" has no attribute "with_rates"',
    'plan_fleet(spec, SolveOptions(gap="0"))': 'Argument "gap" to "SolveOptions" has incompatible type "str"',
    "plan_fleet(spec, options=3)": 'Argument "options" to "plan_fleet" has incompatible type "int"',
    "simulate(spec)": 'Argument 1 to "simulate" has incompatible type "WorkloadSpec"',
    "simulate(plan, options=SimulationOptions(request=9))": 'Unexpected keyword argument "request"',
    "attain(spec, targets=0.99)": 'Unexpected keyword argument "targets"',
    'estimate("llama-3.1-8b", ["L4"], slo_s=1.0)': 'Unexpected keyword argument "slo_s"',
    "estimate(8, [1])": 'Argument 1 to "estimate" has incompatible type "int"',
    "calibrate([1], name='x')": 'List item 0 has incompatible type "int"',
    'Router(plan, {}, "shares")': 'Argument 3 to "Router" has incompatible type "str"',
    'sweep_rates(spec, "1,2")': 'Argument 2 to "sweep_rates" has incompatible type "str"',
    "plan.cost_usd_per_day": '"Plan" has no attribute "cost_usd_per_day"',
    "from melange import simulates": 'Module "melange" has no attribute "simulates"',
}


def lazy_names():
    return melange._WHERE


def typed_names():
    """What a type checker sees: name -> module, from the imports under TYPE_CHECKING."""
    return {
        alias.asname: node.module.removeprefix("melange.")
        for node in ast.walk(FACE)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("melange.")
        for alias in node.names
        if alias.asname == alias.name != "__version__"
    }


def test_what_is_typed_is_what_is_imported():
    assert typed_names() == lazy_names()


def test_every_import_of_the_face_is_for_type_checkers():
    at_run_time = [node for node in FACE.body if isinstance(node, ast.Import | ast.ImportFrom)]
    light = {"__future__", "typing", "melange.files.version", None}
    assert {getattr(node, "module", None) for node in at_run_time} <= light


@pytest.mark.parametrize("name", melange.__all__)
def test_every_public_name_exists(name):
    assert getattr(melange, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        melange.nonsense  # noqa: B018


def test_no_name_is_that_of_a_package():
    """Importing a package binds its name in ``melange``, and would hide a function of that name."""
    assert not {name for name in lazy_names() if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


def test_functions_and_values_are_named_where_they_are_made():
    for name, module in lazy_names().items():
        made = getattr(importlib.import_module(f"melange.{module}"), name)
        assert getattr(made, "__doc__", None), f"{name} says nothing about itself"


def mypy(folder, cache, *files):
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", "--no-error-summary"]
    quiet = ["--hide-error-context", "--no-color-output", "--ignore-missing-imports", "--follow-imports=silent"]
    done = subprocess.run(
        [*command, *quiet, *files], cwd=folder, env={"MYPYPATH": str(PACKAGE.parent)}, capture_output=True, text=True
    )
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_a_users_mypy_knows_the_face(tmp_path, pytestconfig):
    """One run over a right file and a wrong one: the first passes, every line of the second is refused."""
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(GOOD + "\n".join(BAD))
    found = mypy(tmp_path, pytestconfig.cache.mkdir("mypy"), "good.py", "bad.py")
    first = GOOD.count("\n") + 1
    assert [line for line in found if line.startswith("good.py")] == []
    for number, (code, complaint) in enumerate(BAD.items(), start=first):
        about = [line for line in found if line.startswith(f"bad.py:{number}:")]
        assert any(complaint in line for line in about), f"{code} passes or is refused for another reason: {about}"
    assert {int(line.split(":")[1]) for line in found} == set(range(first, first + len(BAD)))
