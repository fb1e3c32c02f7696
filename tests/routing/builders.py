"""A plan of two configs to route over, and their clocks."""

from __future__ import annotations

from simulator.builders import clock

from melange.plan.bucket import PlanBucket
from melange.plan.config import PlanConfig
from melange.plan.demand import PlanDemand
from melange.plan.plan import Plan
from melange.slo import Slo
from melange.solver.problem import Status


def two_config_plan(slo: Slo | None = None, replicas: dict[str, int] | None = None) -> Plan:
    """``small`` and ``large`` over two output buckets; ``small`` may not serve the longer one."""
    config = {"gpu": "L4", "gpus_per_instance": 1, "tp": 1, "precision": "fp16", "engine": "vllm", "model": None}
    return Plan(
        status=Status.OPTIMAL,
        slo=slo or Slo(tpot_s=10.0),
        workload=PlanDemand(name="two", rate_rps=4.0, input_edges_tokens=(100,), output_edges_tokens=(50, 500)),
        configs={
            name: PlanConfig(instance=name, instance_key=name, price_usd_per_hour=1.0, **config)
            for name in ("small", "large")
        },
        buckets=(
            PlanBucket(
                input_tokens_max=100, output_tokens_max=50, rate_rps=3.0, mean_input_tokens=60.0,
                mean_output_tokens=30.0, shares={"small": 0.75, "large": 0.25},
                max_rate_rps={"small": 4.0, "large": 12.0},
            ),
            PlanBucket(
                input_tokens_max=100, output_tokens_max=500, rate_rps=1.0, mean_input_tokens=60.0,
                mean_output_tokens=300.0, shares={"large": 1.0}, max_rate_rps={"small": 0.0, "large": 2.0},
            ),
        ),
        replicas=replicas or {"small": 2, "large": 1},
        cost_usd_per_hour=3.0,
    )  # fmt: skip


CLOCKS = {"small": clock(), "large": clock(weights_s=2e-3)}
