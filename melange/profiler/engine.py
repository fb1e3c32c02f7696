"""Engine: what the profiler asks of a server, started by us (VllmServer) or running already (AttachedServer)."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from melange.errors import EngineError, InputError
from melange.files.metrics import samples_of
from melange.measurements.file import KvCache
from melange.profiler.answers import get_json, get_text
from melange.profiler.client import Endpoint
from melange.serving.secrets import masked, masked_args, secrets_of, shown

POLL_S = 0.25
STOP_GRACE_S = 30.0
_LOG_TAIL_BYTES = 2**20
CACHE_INFO = "vllm:cache_config_info"


class Engine(Protocol):
    """A server that can be started, watched and stopped."""

    def start(self) -> Endpoint:
        """Bring it up and wait until it is healthy; raises EngineError where it does not come."""

    def check(self) -> None:
        """Raise EngineError, with the reason, once it has died."""

    def stop(self) -> None:
        """Stop it if it was started here; harmless at any time."""

    def command_line(self) -> list[str] | None:
        """What it was started with; None where it was not started here."""

    def describe(self) -> Mapping[str, object]:
        """What else a reader of the measurements may want to know of it, JSON-ready."""


@contextlib.contextmanager
def running(engine: Engine) -> Iterator[Endpoint]:
    """The engine's endpoint, and the engine stopped on every way out."""
    try:
        yield engine.start()
    finally:
        engine.stop()


@dataclass(kw_only=True)
class AttachedServer:
    """An OpenAI-compatible server that runs already; it is never stopped. ``model`` None takes the one it serves."""

    url: str
    model: str | None = None
    api_key_env: str | None = None
    _endpoint: Endpoint | None = None

    def start(self) -> Endpoint:
        headers = {}
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env)
            if not key:
                raise InputError(
                    f"environment variable {self.api_key_env} is not set", fix="set it to the server's API key"
                )
            if not (key.isascii() and key.isprintable()):
                raise InputError(
                    f"environment variable {self.api_key_env} holds characters that no key has",
                    fix="set it to the server's API key alone, without line ends",
                )
            headers["Authorization"] = f"Bearer {key}"
        url = self.url.rstrip("/").removesuffix("/v1")
        if not url.startswith(("http://", "https://")):
            raise InputError(f"server address is {masked(self.url)!r}", fix="give one like http://127.0.0.1:8000")
        served = served_models(url, headers)
        model = self.model or next(iter(served), None)
        if model is None:
            raise InputError(f"{url} does not say which models it serves", fix="name one with --model")
        if served and model not in served:
            raise InputError(f"{url} serves no model {model!r}", fix=f"it serves {', '.join(served)}")
        self._endpoint = Endpoint(url=url, model=model, headers=headers)
        return self._endpoint

    def check(self) -> None:
        if self._endpoint is not None:
            get_json(self._endpoint.url + "/v1/models", self._endpoint.headers)

    def stop(self) -> None:
        """Nothing to do: the server is someone else's."""

    def command_line(self) -> None:
        """Not known: the server is someone else's."""

    def describe(self) -> Mapping[str, object]:
        return {"attached": masked(self.url)}


@dataclass(kw_only=True)
class VllmServer:
    """``vllm serve MODEL`` started here, under a guard that stops it however this process ends.

    ``command`` is the vllm executable, ``log`` the file that takes its output. ``port`` None picks a free one.
    """

    model: str
    served_name: str
    args: Sequence[str] = ()
    command: str = "vllm"
    port: int | None = None
    startup_s: float = 900.0
    log: Path = Path("vllm.log")
    environment: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _process: subprocess.Popen[bytes] | None = None
    _output: IO[bytes] | None = None

    def command_line(self) -> list[str]:
        """What is run, port included; secrets are masked where it is kept."""
        return list(masked_args(self._command()))

    def _command(self) -> list[str]:
        self.port = self.port or free_port()
        line = [self.command, "serve", self.model, "--served-model-name", self.served_name]
        return [*line, "--host", "127.0.0.1", "--port", str(self.port), *self.args]

    def start(self) -> Endpoint:
        if shutil.which(self.command) is None:
            raise InputError(
                f"no executable {self.command!r}",
                fix="pip install '.[vllm]', name another with --vllm, or attach to a server with --url",
            )
        guard = [sys.executable, "-m", "melange.profiler.guard"]
        self._output = open(self.log, "wb")  # noqa: SIM115  # it outlives this method and is closed by stop()
        self._process = subprocess.Popen(
            [*guard, *self._command()],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **self.environment, "PYTHONPATH": _import_path()},
        )
        url = f"http://127.0.0.1:{self.port}"
        deadline = self.clock() + self.startup_s
        while not is_healthy(url):
            self.check()
            if self.clock() > deadline:
                raise EngineError(f"vLLM was not healthy after {self.startup_s:g} s; its log is {self.log}")
            time.sleep(POLL_S)
        keys = secrets_of(self.args, "--api-key") or (os.environ.get("VLLM_API_KEY"),)
        return Endpoint(
            url=url, model=self.served_name, headers={"Authorization": f"Bearer {keys[0]}"} if keys[0] else {}
        )

    def check(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            reason = last_error(self.log, secrets_of(self.args))
            raise EngineError(f"vLLM ended with code {self._process.returncode}: {reason} (log: {self.log})")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()  # the guard sees this and stops the server
            try:
                process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._output is not None:
            self._output.close()

    def describe(self) -> Mapping[str, object]:
        return {
            "environment": {
                name: masked(f"{name}={value}").partition("=")[2] for name, value in self.environment.items()
            }
        }


def _import_path() -> str:
    """Where the guard finds this package when it is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_healthy(url: str) -> bool:
    """Whether ``/health`` answers 200."""
    try:
        with urllib.request.urlopen(url + "/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def served_models(url: str, headers: Mapping[str, str]) -> dict[str, int | None]:
    """Names that ``/v1/models`` lists, each with its ``max_model_len`` where the server tells."""
    answer = get_json(url + "/v1/models", headers)
    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise EngineError(f"{url}/v1/models does not list models")
    models: dict[str, int | None] = {}
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("id"), str):
            longest = row.get("max_model_len")
            models[row["id"]] = longest if isinstance(longest, int) else None
    return models


def engine_version(url: str, headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The engine's name and version as ``/version`` says; None for what it does not tell."""
    try:
        answer = get_json(url + "/version", headers)
    except EngineError:
        return None, None
    told = answer if isinstance(answer, dict) else {}
    name, version = told.get("engine"), told.get("version")
    return name if isinstance(name, str) and name else None, version if isinstance(version, str) else None


def kv_cache(url: str, headers: Mapping[str, str]) -> KvCache | None:
    """What the engine's KV cache holds, by vLLM's ``/metrics``; None where untold."""
    try:
        found = list(samples_of(get_text(url + "/metrics", headers), CACHE_INFO))
    except (EngineError, InputError):
        return None
    info = next((sample.labels for sample in found if sample.name == CACHE_INFO), {})
    blocks, block_tokens = info.get("num_gpu_blocks", ""), info.get("block_size", "")
    if not (blocks.isdigit() and block_tokens.isdigit() and int(blocks) and int(block_tokens)):
        return None
    return KvCache(tokens=int(blocks) * int(block_tokens), block_tokens=int(block_tokens))


def last_error(log: Path, secrets: Sequence[str] = ()) -> str:
    """The last line of a server's log that names an error, or its last line, as it may be shown."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            text = file.read(_LOG_TAIL_BYTES).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    except OSError:
        return "no log"
    errors = [line for line in lines if "Error" in line or "error:" in line]
    return shown((errors or lines or ["its log is empty"])[-1], secrets, longest=300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The accelerator that the engine runs on, as its driver names it."""

    name: str
    driver: str | None = None
    memory_gib: float | None = None


def local_device() -> Device:
    """This machine's first NVIDIA GPU by ``nvidia-smi`` (NVML), else its processor, named ``CPU``."""
    smi = shutil.which("nvidia-smi")
    if smi is not None:
        query = [smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        rows = [line.split(", ") for line in answer.stdout.splitlines() if line.count(", ") == 2]
        if answer.returncode == 0 and rows:
            name, driver, memory = rows[0]
            return Device(name=name, driver=driver, memory_gib=round(float(memory) / 1024, 2))
    return Device(name="CPU", driver=_processor())


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
