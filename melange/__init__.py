"""Find the cheapest fleet of GPUs that serves an LLM workload within a stated latency promise.

    from melange import load_workload, plan_fleet

    spec = load_workload("arena-120ms").with_rate(8)
    plan = plan_fleet(spec)
    print(plan.instances, plan.cost_usd_per_hour, plan.savings)

Names are imported when they are first used, so that ``import melange`` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Bucket": "workload.bucket",
    "Catalog": "catalog.hardware",
    "ConfigKey": "serving.config",
    "ConfigProfile": "capacity.profile",
    "Gpu": "catalog.hardware",
    "GroupLimit": "solver.problem",
    "InfeasibleError": "errors",
    "InputError": "errors",
    "InstanceType": "catalog.instances",
    "LatencyStats": "measurements.measurement",
    "Limits": "planning.limits",
    "Measurement": "measurements.measurement",
    "MelangeError": "errors",
    "Model": "catalog.hardware",
    "Plan": "plan.plan",
    "PriceChoice": "catalog.offers",
    "Problem": "solver.problem",
    "Profile": "capacity.profile",
    "ProfileChoice": "planning.spec",
    "ServingChoice": "planning.spec",
    "ServingConfig": "serving.config",
    "SizeGrid": "workload.sizes",
    "Slo": "slo",
    "Solution": "solver.problem",
    "SolveOptions": "planning.options",
    "Trace": "traces",
    "TraceReport": "traces",
    "TypeLimit": "planning.limits",
    "Workload": "workload.workload",
    "WorkloadSpec": "planning.spec",
    "cost_efficiency": "analysis.efficiency",
    "fractional_costs": "analysis.efficiency",
    "iter_trace": "traces",
    "load_catalog": "catalog.hardware",
    "load_profile": "planning.profile_source",
    "load_workload": "planning.workload_file",
    "plan_fleet": "planning.planner",
    "plan_release": "interop.release",
    "profile_from": "capacity.profile",
    "read_measurements": "measurements.file",
    "read_plan": "plan.file",
    "read_prices": "catalog.offers",
    "read_trace": "traces",
    "render_plan": "report.plans",
    "render_sweep": "report.sweeps",
    "solve": "solver.search",
    "sweep_prices": "analysis.sweep",
    "sweep_rates": "analysis.sweep",
    "sweep_tpot": "analysis.sweep",
    "workload_from_trace": "workload.histogram",
    "write_plan": "plan.file",
    "write_workload": "planning.workload_file",
}

__all__ = ["__version__", *sorted(_WHERE)]  # noqa: PLE0604 - a list of strings, which ruff cannot see


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'melange' has no attribute {name!r}")
    return getattr(importlib.import_module(f"melange.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
