"""Do promised attainments stand? 100 re-checks of closed-loop solves on seeds that no search has seen.

Run: python tests/benchmarks/bench_promises.py [SEED] (default 100; searches and re-checks both follow from it).
Twenty-five searches (rates, targets and seeds differ), each promise re-checked four times over ten replications; a
re-check stands when its mean attainment reaches the target.
"""

from __future__ import annotations

import itertools
import os
import sys

from rechecks import recheck

from melange.attainment.closed_loop import attain
from melange.attainment.trial import Trials
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.simulator.clocks import plan_clocks
from melange.simulator.simulate import SimulationOptions

RATES_RPS = (1.0, 2.0, 4.0, 8.0, 16.0)
TARGETS = (0.95, 0.98, 0.99, 0.993, 0.995)
RECHECKS = 4


def main() -> None:
    """Print every promise and how many of its re-checks stand."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    spec = load_workload("arena-120ms-mean")
    stood = reached = total = 0
    for n, (rate, target) in enumerate(itertools.product(RATES_RPS, TARGETS)):
        options = SimulationOptions(requests=max(4000, int(600 * rate)), seed=seed + n, jobs=os.cpu_count() or 1)
        plan, report = attain(spec.with_rate(rate), target, None, options, standing=0)
        trials = Trials(target=target, options=options, clocks=plan_clocks(plan_fleet(spec.with_rate(rate))))
        found = [recheck(plan, trials, 500 * seed + 10 * n + k) for k in range(RECHECKS)]
        stood += sum(value >= target for value in found)
        low = report.fleet.attainment_low or 0.0
        reached += sum(value >= low for value in found)
        total += len(found)
        text = ", ".join(f"{100 * value:.2f}%" for value in found)
        print(
            f"{rate:g} req/s, {100 * target:g}%: {dict(plan.instances)} at {plan.cost_usd_per_hour:.2f} USD/h", end=" "
        )
        print(f"promises {100 * low:.2f}%, re-checked at {text}", flush=True)
        print(f"  {stood} of {total} stand", flush=True)
    print(f"{stood} of {total} re-checks stand, {reached} reach the bound that was promised (seed {seed})")


if __name__ == "__main__":
    main()
