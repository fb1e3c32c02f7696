"""A real vLLM on the CPU, and one profile measured with it that the end-to-end tests share."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.vllm_cpu import CACHE, ENGINE_ARGS, ENGINE_ENVIRONMENT, INPUTS, OUTPUTS, profile_command, vllm_environment

from melange.profiler.engine import VllmServer, running
from melange.testing.tiny_model import write_tiny_model


@dataclass(frozen=True)
class MeasuredProfile:
    """The measurements file of a 3x3 grid, the seconds that it took, and what the command said."""

    path: Path
    seconds: float
    said: str


@pytest.fixture(scope="session")
def vllm() -> Path:
    """The vllm executable of the CPU environment."""
    python = os.environ.get("MELANGE_VLLM_PYTHON")
    if not python:
        pytest.skip("needs vLLM: set MELANGE_VLLM_PYTHON to the Python of an environment that has it")
    return Path(python).parent / "vllm"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def measured_profile(vllm: Path, tiny: Path) -> MeasuredProfile:
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / "profile.jsonl"
    path.unlink(missing_ok=True)
    sizes = ["--input-tokens", INPUTS, "--output-tokens", OUTPUTS, "--point-seconds", "10", "--requests", "200"]
    began = time.monotonic()
    done = subprocess.run(
        profile_command(vllm, tiny, path, *sizes, "--budget-minutes", "6"),
        env=vllm_environment(vllm),
        capture_output=True,
        text=True,
        timeout=700,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return MeasuredProfile(path=path, seconds=time.monotonic() - began, said=done.stderr + done.stdout)


@pytest.fixture(scope="module")
def server(vllm: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running vLLM with the tiny model."""
    engine = VllmServer(
        model=str(tiny),
        served_name="tiny",
        args=ENGINE_ARGS.split(),
        command=str(vllm),
        log=tmp_path_factory.mktemp("server") / "vllm.log",
        environment={
            name: value for name, value in vllm_environment(vllm).items() if name in (*ENGINE_ENVIRONMENT, "PATH")
        },
    )
    with running(engine) as endpoint:
        yield endpoint.url
