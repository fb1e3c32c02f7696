"""How the end-to-end tests run the CPU build of vLLM."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "e2e"
ENGINE_ARGS = "--load-format dummy --max-model-len 2048 --enforce-eager --no-enable-prefix-caching --max-num-seqs 16"
# One core for the engine: its spinning threads would starve the load generator on the other.
ENGINE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "0",
}
INPUTS, OUTPUTS = "16,64,256", "16,32,64"


def vllm_environment(vllm: Path) -> dict[str, str]:
    path = os.pathsep.join([str(vllm.parent), os.environ.get("PATH", "")])
    return {**os.environ, **ENGINE_ENVIRONMENT, "PATH": path}


def profile_command(vllm: Path, tiny: Path, output: Path, *more: str) -> list[str]:
    """``melange profile`` of the tiny model; the price list knows no CPUs, so it stands in for an L4."""
    command = [sys.executable, "-m", "melange", "profile", "run", "--model", str(tiny), "--vllm", str(vllm)]
    command += ["--engine-args", ENGINE_ARGS, "--gpu", "L4", "--slo-tpot-ms", "25", "--tpot-definition", "decode"]
    return [*command, "--max-concurrency", "32", "--resolution", "1.4", *more, "-o", str(output)]
