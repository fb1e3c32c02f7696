"""Chaos: long commands killed at seeded moments and run again, writers on a full disk, and servers that are ill."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import get_args

from fuzz.harness import files_of
from fuzz.readers import QUICK, SLO, readers

from melange.testing.fault_server import Fault, FaultServer

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300.0
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
POINTS = ("--point-seconds", "0.5", "--requests", "50", "--max-concurrency", "4", "--resolution", "2")
PROFILE = (
    "profile",
    "run",
    "--gpu",
    "L4",
    *SLO,
    "--input-tokens",
    "16",
    "--output-tokens",
    "8",
    *POINTS,
    "-o",
    "run.jsonl",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Long:
    """A command that takes a while, and what it writes.

    ``served``: it measures a server. ``appends``: it adds whole records to a file, of which a kill may leave the first.
    """

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    served: bool = False
    appends: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process ended; ``orphans``: something of its process group lives on."""

    code: int
    err: str
    seconds: float
    orphans: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


def long_commands() -> tuple[Long, ...]:
    """Every command that may run for minutes, at a size of seconds."""
    plan = ("--plan", "p-new.json")
    return (
        Long(name="profile run", arguments=PROFILE, outputs=("run.jsonl",), served=True, appends=True),
        Long(name="solve", arguments=("solve", "w.yaml", *plan), outputs=("p-new.json",)),
        Long(
            name="solve --attain",
            arguments=(
                "solve",
                "w.yaml",
                "--attain",
                "0.9",
                "--stands",
                "0",
                "--requests",
                "2000",
                "--jobs",
                "2",
                *plan,
            ),
            outputs=("p-new.json",),
        ),
        Long(
            name="simulate",
            arguments=("simulate", "p.json", "--requests", "20000", "--replications", "4", "--jobs", "2"),
        ),
        Long(
            name="sweep --plot",
            arguments=("sweep", "w.yaml", "--rates", "1,2,4", "--jobs", "2", "--plot", "s-new.svg"),
            outputs=("s-new.svg",),
        ),
        Long(
            name="calibrate",
            arguments=("calibrate", "m3.jsonl", "--folds", "3", "-o", "c-new.yaml"),
            outputs=("c-new.yaml",),
        ),
        Long(
            name="capacity",
            arguments=("capacity", "w.yaml", "--own", "L4=2", "--requests", "500", "--replications", "2"),
        ),
        Long(
            name="workload from-trace",
            arguments=("workload", "from-trace", *QUICK["workload from-trace"]),
            outputs=("w-new.yaml",),
        ),
        Long(
            name="profile import",
            arguments=("profile", "import", *QUICK["profile import"]),
            outputs=("m-new.jsonl",),
            appends=True,
        ),
        Long(name="profile merge", arguments=("profile", "merge", *QUICK["profile merge"]), outputs=("all-new.jsonl",)),
        Long(
            name="aibrix import",
            arguments=("aibrix", "import", *QUICK["aibrix import"]),
            outputs=("m-new.jsonl",),
            appends=True,
        ),
        Long(
            name="nanoflow search",
            arguments=("nanoflow", "search", *QUICK["nanoflow search"], "-o", "n-new.json"),
            outputs=("n-new.json",),
        ),
    )


@contextmanager
def folder_of_samples() -> Iterator[Path]:
    """A folder with every reader's good sample."""
    with tempfile.TemporaryDirectory(prefix="melange-chaos-") as name:
        for reader in readers():
            for path, content in reader.files(None).items():
                (Path(name) / path).write_bytes(content)
        yield Path(name)


@contextmanager
def serving(long: Long, fault: Fault = "none") -> Iterator[tuple[str, ...]]:
    """The arguments of a command, with a server's URL if it measures one."""
    if not long.served:
        yield long.arguments
        return
    with FaultServer(fault=fault, share=0.3 if fault == "500" else 1.0) as server:
        yield (*long.arguments, "--url", server.url)


def run(
    arguments: Sequence[str],
    folder: Path,
    *,
    number: int = 0,
    after_s: float = PATIENCE_S,
    largest_file: int | None = None,
) -> Ended:
    """Run a command in a folder; signal ``number`` after a while, and then wait for it and its children."""
    began_s = time.monotonic()

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "melange", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err if largest_file is None else subprocess.PIPE,
            start_new_session=True,
            preexec_fn=prepare,
        )
        said = b""
        try:
            _, said = process.communicate(timeout=after_s)
        except subprocess.TimeoutExpired:
            # Ctrl-C reaches every process of a terminal's group, kill one alone.
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number or signal.SIGKILL)
            _, said = process.communicate(timeout=PATIENCE_S)
        orphans = not _gone(process.pid)
        err.seek(0)
        text = (said or err.read()).decode("utf-8", "replace")
    seconds = time.monotonic() - began_s
    return Ended(code=process.returncode, err=text, seconds=seconds, orphans=orphans, files=files_of(folder))


def _gone(group: int) -> bool:
    """Whether a process group ends, soon; what is left of it is killed."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


@cache
def undisturbed(long: Long) -> Ended:
    """How a command ends when nobody disturbs it."""
    with folder_of_samples() as folder, serving(long) as arguments:
        ended = run(arguments, folder)
        assert ended.code in (0, 3, 4), ended
        return ended


def survives_kill(long: Long, seed: int) -> str | None:
    """Kill a command at a moment of this seed and run it again; what was wrong, or None."""
    rng = random.Random(f"{long.name}/{seed}")
    well = undisturbed(long)
    number = SIGNALS[seed % len(SIGNALS)]
    with folder_of_samples() as folder, serving(long) as arguments:
        before = files_of(folder)
        killed = run(arguments, folder, number=number, after_s=rng.uniform(0.02, 1.0) * well.seconds)
        wrong = _after_kill(long, killed, before, well, number)
        if wrong is not None:
            return f"{signal.Signals(number).name}: {wrong}"
        again = run(arguments, folder)
        if again.code != well.code:
            return f"the second run ended with {again.code}: {again.err[-500:]}"
        return _compare(long, killed, again, well)


def _after_kill(long: Long, killed: Ended, before: dict[str, bytes], well: Ended, number: int) -> str | None:
    if killed.orphans:
        return "left a process"
    if "Traceback" in killed.err:
        return killed.err[-1500:]
    if any(killed.files.get(path) != content for path, content in before.items()):
        return "changed an input"
    left = {path for path in killed.files if path not in before and path not in long.outputs}
    if left and number != signal.SIGKILL:  # after a SIGKILL nobody is there to tidy up; the next run takes no notice
        return f"left {sorted(left)}"
    torn = [path for path in long.outputs if path in killed.files and killed.files[path] != well.files.get(path)]
    if torn and not long.appends and not _same_but_dates(killed.files[torn[0]], well.files[torn[0]]):
        return f"left half of {torn[0]}"
    return None


def _compare(long: Long, killed: Ended, again: Ended, well: Ended) -> str | None:
    for path in long.outputs:
        if path not in again.files:
            return f"the second run wrote no {path}"
        if long.appends:
            whole = killed.files.get(path, b"").rpartition(b"\n")[0]
            if not again.files[path].startswith(whole):
                return "load points were lost"
            if any(_broken(line) for line in again.files[path].splitlines()):
                return "a line is no record"
        elif path not in killed.files and not _same_but_dates(again.files[path], well.files[path]):
            return f"the second run's {path} is another"
    return None


def _same_but_dates(one: bytes, other: bytes) -> bool:
    """Alike in length but for clocks' figures: pictures and plans hold dates and durations."""
    return abs(len(one) - len(other)) <= 64 + len(other) // 100


def _broken(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def survives_full_disk(long: Long, seed: int) -> str | None:
    """No file can be larger than a part of what a command writes: one line, and nothing half-written."""
    well = undisturbed(long)
    sizes = [len(well.files[path]) for path in long.outputs]
    if not sizes:
        return None
    limit = max(1, int(random.Random(f"{long.name}/full/{seed}").uniform(0, 0.99) * min(sizes)))
    with folder_of_samples() as folder, serving(long) as arguments:
        before = files_of(folder)
        full = run(arguments, folder, largest_file=limit)
        said = [line for line in full.err.splitlines() if line.startswith("melange: ")]
        if full.code not in (1, 2) or len(said) != 1 or "Traceback" in full.err:
            return f"exit code {full.code}: {full.err[-1500:]}"
        left = {path: content for path, content in full.files.items() if path not in before}
        half = [path for path, content in left.items() if not (long.appends and content[-1:] in (b"", b"\n"))]
        if half:
            return f"left {sorted(half)}"
        again = run(arguments, folder)
        return None if again.code == well.code else f"the second run ended with {again.code}: {again.err[-500:]}"


def survives_fault(fault: Fault, seed: int) -> str | None:
    """Measure an ill server, then the same one well: one line at the most, and everything measured in the end."""
    long = long_commands()[0]
    well = undisturbed(long)
    with folder_of_samples() as folder:
        with serving(long, fault) as arguments:
            ill = run((*arguments, "--seed", str(seed)), folder)
        said = [line for line in ill.err.splitlines() if line.startswith("melange: ")]
        if ill.code not in (0, 1, 2) or len(said) > 1 or "Traceback" in ill.err or ill.orphans:
            return f"exit code {ill.code}: {ill.err[-1500:]}"
        with serving(long) as arguments:
            again = run((*arguments, "--seed", str(seed)), folder)
        if again.code != well.code:
            return f"the recovered server's run ended with {again.code}: {again.err[-500:]}"
        # What was measured of the ill server is not measured again; a capacity of nothing is no measurement.
        rates = [_rate(line) for line in again.files["run.jsonl"].splitlines()]
        return None if any(rate > 0 for rate in rates) else "nothing of the recovered server was measured"


def _rate(line: bytes) -> float:
    record = json.loads(line)
    return float(record.get("achieved_rps", 0.0)) if record.get("valid", True) and not record.get("failures") else 0.0


Trial = Callable[[int], str | None]


def trials() -> dict[str, Trial]:
    """Every kind of bad day by its name: a seed in, what was wrong out."""
    found: dict[str, Trial] = {f"kill {long.name}": partial(survives_kill, long) for long in long_commands()}
    found |= {f"full disk {long.name}": partial(survives_full_disk, long) for long in long_commands() if long.outputs}
    return found | {f"server: {fault}": partial(survives_fault, fault) for fault in get_args(Fault) if fault != "none"}
