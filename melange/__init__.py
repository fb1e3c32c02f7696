"""Find the cheapest fleet of GPUs that serves an LLM workload within a stated latency promise.

    from melange import PlanOptions, load_workload, plan_fleet

    spec = load_workload("arena-120ms")
    plan = plan_fleet(spec, PlanOptions(rate_rps=8))
    print(plan.instances, plan.cost_usd_per_hour, plan.savings)

Names are imported when they are first used, so that ``import melange`` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Catalog": "catalog",
    "ConfigKey": "measurements",
    "ConfigProfile": "profiles",
    "Gpu": "catalog",
    "GroupLimit": "problem",
    "InfeasibleError": "errors",
    "InputError": "errors",
    "InstanceType": "fleet",
    "LatencyStats": "measurements",
    "Limits": "rentable",
    "Measurement": "measurements",
    "MelangeError": "errors",
    "Model": "catalog",
    "Plan": "plan",
    "PlanOptions": "planner",
    "PriceChoice": "offers",
    "Problem": "problem",
    "Profile": "profiles",
    "ProfileChoice": "workload_file",
    "ServingChoice": "workload_file",
    "ServingConfig": "fleet",
    "SizeGrid": "sizes",
    "Slo": "slo",
    "Solution": "problem",
    "Trace": "traces",
    "TraceReport": "traces",
    "TypeLimit": "workload_file",
    "Workload": "workload",
    "WorkloadSpec": "workload_file",
    "cost_efficiency": "efficiency",
    "fractional_costs": "efficiency",
    "iter_trace": "traces",
    "load_catalog": "catalog",
    "load_profile": "profile_source",
    "load_workload": "workload_file",
    "plan_fleet": "planner",
    "plan_release": "interop.release",
    "profile_from": "profiles",
    "read_measurements": "measurements",
    "read_plan": "plan",
    "read_prices": "offers",
    "read_trace": "traces",
    "render_plan": "report.plans",
    "render_sweep": "report.sweeps",
    "solve": "solver",
    "sweep_prices": "sweep",
    "sweep_rates": "sweep",
    "sweep_tpot": "sweep",
    "workload_from_trace": "histogram",
    "write_plan": "plan",
    "write_workload": "workload_file",
}

__all__ = ["__version__", *sorted(_WHERE)]  # noqa: PLE0604 - a list of strings, which ruff cannot see


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'melange' has no attribute {name!r}")
    return getattr(importlib.import_module(f"melange.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
