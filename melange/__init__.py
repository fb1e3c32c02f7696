"""Find the cheapest fleet of GPUs that serves an LLM workload within a stated latency promise.

    from melange import load_workload, plan_fleet, simulate

    plan = plan_fleet(load_workload("arena-120ms").with_rate(8))
    print(plan, simulate(plan))

Names are imported when they are first used, so that ``import melange`` stays light. Type checkers see the imports
below; a name is added in both places, and a test holds them equal.
"""

from __future__ import annotations

import importlib

from melange.files.version import __version__ as __version__

TYPE_CHECKING = False  # what type checkers take for typing's, whose import would take longer than all of this one

if TYPE_CHECKING:
    from melange.analysis.additivity import Additivity as Additivity
    from melange.analysis.additivity import additivity as additivity
    from melange.analysis.efficiency import CostEfficiency as CostEfficiency
    from melange.analysis.efficiency import FractionalCosts as FractionalCosts
    from melange.analysis.efficiency import cost_efficiency as cost_efficiency
    from melange.analysis.efficiency import fractional_costs as fractional_costs
    from melange.analysis.nanobatching import NanoBatching as NanoBatching
    from melange.analysis.nanobatching import compare_nanobatching as compare_nanobatching
    from melange.analysis.sweep import Sweep as Sweep
    from melange.analysis.sweep import SweepPoint as SweepPoint
    from melange.analysis.sweep import sweep_prices as sweep_prices
    from melange.analysis.sweep import sweep_rates as sweep_rates
    from melange.analysis.sweep import sweep_tpot as sweep_tpot
    from melange.analysis.uncertainty import solve_with_uncertainty as solve_with_uncertainty
    from melange.attainment.closed_loop import attain as attain
    from melange.attainment.given_machines import MachineRates as MachineRates
    from melange.attainment.given_machines import WayRate as WayRate
    from melange.attainment.given_machines import capacity_of as capacity_of
    from melange.attainment.given_machines import capacity_of_plan as capacity_of_plan
    from melange.capacity.profile import ConfigProfile as ConfigProfile
    from melange.capacity.profile import Profile as Profile
    from melange.capacity.profile import profile_from as profile_from
    from melange.capacity.profile import profile_sets as profile_sets
    from melange.capacity.profile import read_profile_set as read_profile_set
    from melange.catalog.described import extended_catalog as extended_catalog
    from melange.catalog.hardware import Catalog as Catalog
    from melange.catalog.hardware import Gpu as Gpu
    from melange.catalog.hardware import load_catalog as load_catalog
    from melange.catalog.instances import InstanceType as InstanceType
    from melange.catalog.model_config import model_from_config as model_from_config
    from melange.catalog.models import Model as Model
    from melange.catalog.offers import PriceChoice as PriceChoice
    from melange.catalog.offers import read_prices as read_prices
    from melange.errors import InfeasibleError as InfeasibleError
    from melange.errors import InputError as InputError
    from melange.errors import MelangeError as MelangeError
    from melange.files.shipped import data_path as data_path
    from melange.interop.benchmarks import import_results as import_results
    from melange.interop.release import plan_release as plan_release
    from melange.measurements.file import Header as Header
    from melange.measurements.file import MeasurementFile as MeasurementFile
    from melange.measurements.file import append_measurements as append_measurements
    from melange.measurements.file import read_measurements as read_measurements
    from melange.measurements.measurement import LatencyStats as LatencyStats
    from melange.measurements.measurement import Measurement as Measurement
    from melange.perfmodel.at_load import LoadEstimate as LoadEstimate
    from melange.perfmodel.at_load import LoadEstimates as LoadEstimates
    from melange.perfmodel.at_load import estimate_at_load as estimate_at_load
    from melange.perfmodel.calibrate import calibrate as calibrate
    from melange.perfmodel.calibration import Calibration as Calibration
    from melange.perfmodel.calibration import read_calibration as read_calibration
    from melange.perfmodel.calibration import write_calibration as write_calibration
    from melange.perfmodel.estimates import Estimates as Estimates
    from melange.perfmodel.estimates import estimate as estimate
    from melange.perfmodel.limits import PhysicalLimit as PhysicalLimit
    from melange.perfmodel.limits import physical_limits as physical_limits
    from melange.perfmodel.load import Load as Load
    from melange.plan.bucket import PlanBucket as PlanBucket
    from melange.plan.config import PlanConfig as PlanConfig
    from melange.plan.costs import Baseline as Baseline
    from melange.plan.file import read_plan as read_plan
    from melange.plan.file import write_plan as write_plan
    from melange.plan.odds import Uncertainty as Uncertainty
    from melange.plan.plan import Plan as Plan
    from melange.plan.promise import AttainReport as AttainReport
    from melange.plan.promise import SizedFleet as SizedFleet
    from melange.plan.promise import Standing as Standing
    from melange.plan.promise import WindowAttainment as WindowAttainment
    from melange.planning.limits import Limits as Limits
    from melange.planning.limits import TypeLimit as TypeLimit
    from melange.planning.options import SolveOptions as SolveOptions
    from melange.planning.planner import plan_fleet as plan_fleet
    from melange.planning.profile_source import load_profile as load_profile
    from melange.planning.spec import ProfileChoice as ProfileChoice
    from melange.planning.spec import ServingChoice as ServingChoice
    from melange.planning.spec import WorkloadSpec as WorkloadSpec
    from melange.planning.workload_file import load_workload as load_workload
    from melange.planning.workload_file import write_workload as write_workload
    from melange.report.capacity import render_capacity as render_capacity
    from melange.report.estimates import render_calibration as render_calibration
    from melange.report.estimates import render_estimates as render_estimates
    from melange.report.figures import draw_bars as draw_bars
    from melange.report.figures import draw_heatmap as draw_heatmap
    from melange.report.figures import draw_names as draw_names
    from melange.report.figures import draw_shares as draw_shares
    from melange.report.loads import render_loads as render_loads
    from melange.report.measurements import render_profile as render_profile
    from melange.report.plans import render_plan as render_plan
    from melange.report.simulation import render_comparison as render_comparison
    from melange.report.simulation import render_simulation as render_simulation
    from melange.report.sweeps import draw_sweep as draw_sweep
    from melange.report.sweeps import render_sweep as render_sweep
    from melange.report.sweeps import sweep_figure as sweep_figure
    from melange.report.traces import render_trace_report as render_trace_report
    from melange.routing.policy import Policy as Policy
    from melange.routing.policy import policy_by_name as policy_by_name
    from melange.routing.router import Route as Route
    from melange.routing.router import Router as Router
    from melange.serving.config import ConfigKey as ConfigKey
    from melange.serving.config import ServingConfig as ServingConfig
    from melange.simulator.arrivals import Process as Process
    from melange.simulator.clocks import plan_router as plan_router
    from melange.simulator.failures import FailureRule as FailureRule
    from melange.simulator.report import SimulationReport as SimulationReport
    from melange.simulator.simulate import SimulationOptions as SimulationOptions
    from melange.simulator.simulate import compare_policies as compare_policies
    from melange.simulator.simulate import simulate as simulate
    from melange.slo import Slo as Slo
    from melange.solver.explanation import Explanation as Explanation
    from melange.solver.problem import GroupLimit as GroupLimit
    from melange.solver.problem import Problem as Problem
    from melange.solver.problem import Solution as Solution
    from melange.solver.search import solve as solve
    from melange.traces import Trace as Trace
    from melange.traces import TraceReport as TraceReport
    from melange.traces import iter_trace as iter_trace
    from melange.traces import read_trace as read_trace
    from melange.workload.bucket import Bucket as Bucket
    from melange.workload.histogram import workload_from_trace as workload_from_trace
    from melange.workload.prometheus import workload_from_metrics as workload_from_metrics
    from melange.workload.sizes import SizeGrid as SizeGrid
    from melange.workload.workload import Workload as Workload

_WHERE = {
    "Additivity": "analysis.additivity",
    "AttainReport": "plan.promise",
    "Baseline": "plan.costs",
    "Bucket": "workload.bucket",
    "Calibration": "perfmodel.calibration",
    "Catalog": "catalog.hardware",
    "ConfigKey": "serving.config",
    "ConfigProfile": "capacity.profile",
    "CostEfficiency": "analysis.efficiency",
    "Estimates": "perfmodel.estimates",
    "Explanation": "solver.explanation",
    "FailureRule": "simulator.failures",
    "FractionalCosts": "analysis.efficiency",
    "Gpu": "catalog.hardware",
    "GroupLimit": "solver.problem",
    "Header": "measurements.file",
    "InfeasibleError": "errors",
    "InputError": "errors",
    "InstanceType": "catalog.instances",
    "LatencyStats": "measurements.measurement",
    "Limits": "planning.limits",
    "Load": "perfmodel.load",
    "LoadEstimate": "perfmodel.at_load",
    "LoadEstimates": "perfmodel.at_load",
    "MachineRates": "attainment.given_machines",
    "Measurement": "measurements.measurement",
    "MeasurementFile": "measurements.file",
    "MelangeError": "errors",
    "Model": "catalog.models",
    "NanoBatching": "analysis.nanobatching",
    "PhysicalLimit": "perfmodel.limits",
    "Plan": "plan.plan",
    "PlanBucket": "plan.bucket",
    "PlanConfig": "plan.config",
    "Policy": "routing.policy",
    "PriceChoice": "catalog.offers",
    "Problem": "solver.problem",
    "Process": "simulator.arrivals",
    "Profile": "capacity.profile",
    "ProfileChoice": "planning.spec",
    "Route": "routing.router",
    "Router": "routing.router",
    "ServingChoice": "planning.spec",
    "ServingConfig": "serving.config",
    "SimulationOptions": "simulator.simulate",
    "SimulationReport": "simulator.report",
    "SizeGrid": "workload.sizes",
    "SizedFleet": "plan.promise",
    "Slo": "slo",
    "Solution": "solver.problem",
    "SolveOptions": "planning.options",
    "Standing": "plan.promise",
    "Sweep": "analysis.sweep",
    "SweepPoint": "analysis.sweep",
    "Trace": "traces",
    "TraceReport": "traces",
    "TypeLimit": "planning.limits",
    "Uncertainty": "plan.odds",
    "WindowAttainment": "plan.promise",
    "WayRate": "attainment.given_machines",
    "Workload": "workload.workload",
    "WorkloadSpec": "planning.spec",
    "additivity": "analysis.additivity",
    "append_measurements": "measurements.file",
    "attain": "attainment.closed_loop",
    "calibrate": "perfmodel.calibrate",
    "capacity_of": "attainment.given_machines",
    "capacity_of_plan": "attainment.given_machines",
    "compare_nanobatching": "analysis.nanobatching",
    "compare_policies": "simulator.simulate",
    "cost_efficiency": "analysis.efficiency",
    "data_path": "files.shipped",
    "draw_bars": "report.figures",
    "draw_heatmap": "report.figures",
    "draw_names": "report.figures",
    "draw_shares": "report.figures",
    "draw_sweep": "report.sweeps",
    "estimate": "perfmodel.estimates",
    "estimate_at_load": "perfmodel.at_load",
    "extended_catalog": "catalog.described",
    "fractional_costs": "analysis.efficiency",
    "import_results": "interop.benchmarks",
    "iter_trace": "traces",
    "load_catalog": "catalog.hardware",
    "load_profile": "planning.profile_source",
    "load_workload": "planning.workload_file",
    "model_from_config": "catalog.model_config",
    "physical_limits": "perfmodel.limits",
    "plan_fleet": "planning.planner",
    "plan_release": "interop.release",
    "plan_router": "simulator.clocks",
    "policy_by_name": "routing.policy",
    "profile_from": "capacity.profile",
    "profile_sets": "capacity.profile",
    "read_calibration": "perfmodel.calibration",
    "read_measurements": "measurements.file",
    "read_plan": "plan.file",
    "read_prices": "catalog.offers",
    "read_profile_set": "capacity.profile",
    "read_trace": "traces",
    "render_calibration": "report.estimates",
    "render_capacity": "report.capacity",
    "render_comparison": "report.simulation",
    "render_estimates": "report.estimates",
    "render_loads": "report.loads",
    "render_plan": "report.plans",
    "render_profile": "report.measurements",
    "render_simulation": "report.simulation",
    "render_sweep": "report.sweeps",
    "render_trace_report": "report.traces",
    "simulate": "simulator.simulate",
    "solve": "solver.search",
    "solve_with_uncertainty": "analysis.uncertainty",
    "sweep_figure": "report.sweeps",
    "sweep_prices": "analysis.sweep",
    "sweep_rates": "analysis.sweep",
    "sweep_tpot": "analysis.sweep",
    "workload_from_metrics": "workload.prometheus",
    "workload_from_trace": "workload.histogram",
    "write_calibration": "perfmodel.calibration",
    "write_plan": "plan.file",
    "write_workload": "planning.workload_file",
}

__all__ = ["__version__", *sorted(_WHERE)]  # noqa: PLE0604 - a list of strings, which ruff cannot see

if not TYPE_CHECKING:  # a checker that saw it would take every misspelt name for one that exists

    def __getattr__(name):
        if name not in _WHERE:
            raise AttributeError(f"module 'melange' has no attribute {name!r}")
        return getattr(importlib.import_module(f"melange.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
