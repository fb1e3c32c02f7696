"""Speed of the simulator on the Arena workload at 32 req/s: compiled, beside the same loop in plain Python.

Run: python tests/benchmarks/bench_simulator.py [--quick | --closed-loop]. The plain loop plays fewer requests, in a
process of its own (NUMBA_DISABLE_JIT=1), and is scaled per request. Then several seeds at a time, and closed-loop
solves; ``--closed-loop`` runs these alone.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

from melange.attainment.closed_loop import attain
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.simulator.simulate import SimulationOptions, replicate, scenario_of, simulate

RATE_RPS = 32
PLAIN_REQUESTS = 1_000


def played_s(requests: int) -> float:
    """Seconds (wall clock) of one replication, calibration and compilation left out."""
    plan = plan_fleet(load_workload("arena-120ms").with_rate(RATE_RPS))
    scenario = scenario_of(plan, None, SimulationOptions(requests=requests))
    replicate(scenario, 1)
    started = time.perf_counter()
    replicate(scenario, 0)
    return time.perf_counter() - started


def plain_s() -> float:
    """Seconds of the plain loop, from a process without compilation."""
    code = f"import bench_simulator as b; print(b.played_s({PLAIN_REQUESTS}))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print the figures."""
    if "--closed-loop" in sys.argv:
        closed_loops()
        return
    quick = "--quick" in sys.argv
    sizes = (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000)
    seconds = {n: played_s(n) for n in sizes}
    for n, s in seconds.items():
        print(f"{n:>9,} requests  {s:8.3f} s   {1e6 * s / n:6.2f} us a request")
    plain = plain_s()
    ratio = plain / PLAIN_REQUESTS / (seconds[100_000] / 100_000)
    print(f"{PLAIN_REQUESTS:>9,} requests  {plain:8.3f} s   in plain Python: compiled is {ratio:,.0f} times as fast")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")
    spec = load_workload("arena-120ms")
    plan = plan_fleet(spec.with_rate(RATE_RPS))
    for jobs in (1, 2):
        started = time.perf_counter()
        simulate(plan, None, SimulationOptions(requests=100_000, replications=6, jobs=jobs))
        print(f"6 seeds x 100,000 requests, {jobs} at a time: {time.perf_counter() - started:.2f} s")
    closed = closed_loops()
    print(json.dumps({"seconds_by_requests": seconds, "ratio_to_plain": ratio, "closed_loop_s": closed}))


def closed_loops() -> dict[str, float]:
    """Seconds of a closed-loop solve by workload."""
    return {name: closed_loop_s(name) for name in ("arena-120ms", "arena-120ms-mean")}


def closed_loop_s(workload: str) -> float:
    """Seconds of ``melange solve WORKLOAD --rate 32 --attain 0.99`` without its start; prints them beside CPU time."""
    jobs = os.cpu_count() or 1
    started, used = time.perf_counter(), time.process_time()
    _, report = attain(load_workload(workload).with_rate(RATE_RPS), 0.99, None, SimulationOptions(jobs=jobs))
    taken, used = time.perf_counter() - started, time.process_time() - used
    print(f"closed loop of {workload} at {RATE_RPS} req/s, 99%: {taken:.1f} s, {used:.1f} s of CPU time", end=" ")
    print(f"({jobs} at a time), {report.simulated} fleets simulated", end=", ")
    print("every cheaper fleet ruled out" if report.complete else "search cut short", flush=True)
    return taken


if __name__ == "__main__":
    main()
