"""``melange profile`` as a user types it.

A server tells what it is, but loads run in virtual time where a test looks at what came out: how fast this machine
answers must not matter.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("aiohttp")

import click
from profiler.bench import simulated

from melange.cli.main import main
from melange.cli.profile import profile
from melange.measurements.file import read_measurements
from melange.profiler import check, runner
from melange.profiler.runner import RunRequest
from melange.testing.fault_server import FaultServer
from melange.testing.simulated_engine import SimulatedEngine

PATIENCE_S = 300.0  # for what happens in a second on an idle machine
SLO = ("--slo-tpot-ms", "50", "--tpot-definition", "decode")
SMALL = ("--input-tokens", "16", "--output-tokens", "8", "--point-seconds", "1.5", "--requests", "100")
QUICK = (*SMALL, "--max-concurrency", "8", "--resolution", "2")


def melange(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return int(ended.value.code or 0), said.out, said.err


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measured") / "a.jsonl"
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, FaultServer() as server:
        patch.setattr(runner, "live_measure", simulated())
        arguments = ["profile", "--url", server.url, "--gpu", "L4", *SLO, *QUICK, "-o", str(path)]
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
    assert not ended.value.code, err.getvalue()
    assert "cell 1/1, 16 -> 8 tokens: concurrency 1: TPOT" in err.getvalue()
    assert "SLO: mean TPOT (decode) <= 50 ms" in err.getvalue()
    assert "Sustainable rate" in out.getvalue()
    return path


def test_show_draws_and_exports(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = melange("profile", "show", str(measured), "--usd-per-hour", "0.8", capsys=capsys)
    assert code == 0
    assert "fault on 1xL4" in out
    assert "thousand tokens per $" in out
    assert "mean TPOT (decode) <= 50 ms" in out  # the SLO that it was measured for
    code, out, _ = melange("profile", "show", str(measured), "-o", "json", *SLO, capsys=capsys)
    (table,) = json.loads(out)["configs"]
    assert table["gpu"] == "L4"
    assert len(table["next_failing_rps"]) == len(table["max_rate_rps"])
    code, out, _ = melange("profile", "show", str(measured), "-o", "csv", "--slo-ttft-ms", "0.001", capsys=capsys)
    assert out.splitlines()[1].endswith(",0.0")


def test_merge_and_dry_run(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = melange("profile", "merge", str(measured), str(measured), capsys=capsys)
    assert code == 2
    assert "merge needs -o FILE" in err
    before = measured.read_bytes()
    link = tmp_path / "link.jsonl"
    link.symlink_to(measured)
    for output in (measured, link):
        code, _, err = melange("profile", "merge", str(measured), "-o", str(output), capsys=capsys)
        assert code == 2
        assert "reads or writes it already" in err
    assert measured.read_bytes() == before
    everything = str(tmp_path / "all.jsonl")
    code, out, _ = melange("profile", "merge", str(measured), str(measured), "-o", everything, capsys=capsys)
    assert code == 0
    assert "repeated ones left out" in out
    dry = ("--dry-run", "--usd-per-hour", "1.2", "--model", "fault", "--gpu", "L4")
    code, out, _ = melange("profile", *dry, *SLO, *QUICK, "-o", str(tmp_path / "new.jsonl"), capsys=capsys)
    assert code == 0
    assert "to measure" in out
    assert "$" in out
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize(
    ("engine", "code", "verdict"),
    [(SimulatedEngine(), 0, "still holds"), (SimulatedEngine(step_s=0.03), 1, "no longer holds")],
)
def test_check_tells_a_slower_server(
    measured: Path,
    engine: SimulatedEngine,
    code: int,
    verdict: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(check, "live_measure", simulated(engine))
    with FaultServer() as server:
        options = ("--url", server.url, "--gpu", "L4", "--sentinels", "1")
        said = melange("profile", "check", str(measured), *options, capsys=capsys)
    assert said[0] == code, said
    assert verdict in said[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to profile"),
        (("--url", "http://127.0.0.1:1", "--gpu", "L4"), "cannot be reached"),
        (("--url", "nonsense", "--gpu", "L4"), "give one like http://"),
        (("--model", "m", "--slo-tpot-ms", "50"), "go together"),
        (("--model", "m", "--budget-usd", "1", "--gpu", "L4", "--dry-run"), "--usd-per-hour"),
        (("--model", "m", "--resolution", "0.5", "--gpu", "L4", "--dry-run", "--input-tokens", "x"), "whole numbers"),
        (("--model", "m", "--vllm", "no-such-vllm", "--gpu", "L4", "-o", "/nowhere/a.jsonl"), "cannot write it"),
        (("--model", "m", "--vllm", "no-such-vllm", "--gpu", "L4"), "'.[vllm]'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = melange("profile", "run", *arguments, capsys=capsys)
    assert code in (1, 2)
    assert message in err
    assert len(err.strip().splitlines()) <= 2
    assert not out


def fake_vllm(folder: Path) -> Path:
    """An executable that serves like ``vllm serve --port N`` and leaves its process id in a file."""
    script = folder / "vllm"
    script.write_text(
        f"#!{sys.executable}\n"
        "import asyncio, os, pathlib, sys\n"
        "from melange.testing.fault_server import FaultServer\n"
        f"pathlib.Path({str(folder / 'pid')!r}).write_text(str(os.getpid()))\n"
        "port = int(sys.argv[sys.argv.index('--port') + 1])\n"
        "asyncio.run(FaultServer(gap_s=0.002).serve(port))\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def until(happened: Callable[[], bool]) -> bool:
    """Wait for what must happen sooner or later, however busy the machine; False where it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.05)
    return happened()


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return "State:\tZ" not in status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_a_started_engine_never_outlives_the_run(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "melange", "profile", "run", "--model", "fault", "--gpu", "L4", *SLO, *QUICK]
    journal = tmp_path / "a.jsonl"
    command += [
        "--vllm",
        str(fake_vllm(tmp_path)),
        "--point-seconds",
        "600",
        "--requests",
        "100000",
        "-o",
        str(journal),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    # Where the tests themselves run in the background, SIGINT is ignored, and would be here.
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeding) as run:
        assert until(lambda: "header" in journal.read_text() if journal.exists() else False)  # it measures
        engine = int((tmp_path / "pid").read_text())
        assert is_running(engine)
        run.send_signal(number)
        _, said = run.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in said
    assert until(lambda: not is_running(engine))


def test_a_started_engine_is_profiled_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "melange", "profile", "run", "--model", "fault", "--gpu", "L4", *SLO, *QUICK]
    command += ["--vllm", str(fake_vllm(tmp_path)), "-o", str(tmp_path / "a.jsonl")]
    command += ["--engine-args", "--dtype float16 --tensor-parallel-size 2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert not is_running(int((tmp_path / "pid").read_text()))
    measured = read_measurements(tmp_path / "a.jsonl")
    assert measured.points[0].key[:5] == ("fault", "L4", 2, "fp16", "vllm")
    command_line = measured.headers[0].engine_command
    assert command_line is not None
    assert command_line[-2:] == ("--tensor-parallel-size", "2")


def test_an_engine_that_cannot_start_gives_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "vllm"
    script.write_text("#!/bin/sh\necho 'ValueError: No available memory for the cache blocks'\nexit 3\n")
    script.chmod(0o755)
    command = [sys.executable, "-m", "melange", "profile", "run", "--model", "m", "--gpu", "L4", *QUICK]
    command += ["--vllm", str(script), "-o", str(tmp_path / "a.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "No available memory for the cache blocks" in done.stderr
    assert "code 3" in done.stderr


def test_every_option_is_documented() -> None:
    for name, command in profile.commands.items():
        assert "Examples:" in (command.help or ""), name
        options = [option for option in command.params if isinstance(option, click.Option)]
        assert all(option.help for option in options), name


def test_the_defaults_are_the_librarys() -> None:
    given = {option.name: option.default for option in profile.commands["run"].params}
    for name in ("resolution", "point_seconds", "requests", "max_concurrency"):
        assert given[name] == getattr(RunRequest(model="m"), name), name
