"""Trials: a mutated input, the command that reads it, in this process, and what must hold of what it does."""

from __future__ import annotations

import io
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melange.cli.main import main

EXIT_CODES = (0, 1, 2, 3, 4)
MOST_MEMORY_BYTES = 3 * 2**30
MOST_SECONDS = 60.0
# What only a library says of itself; Melange's own progress and remarks have none of these.
FOREIGN = ("Traceback", "Warning:", "site-packages", "Exception ignored", "Error:", "WARNING", "ERROR")

Main = Callable[[Sequence[str]], Any]


class TooLong(BaseException):
    """A command went on for longer than a trial may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended. ``crash`` is the traceback of what left ``main`` without being an exit."""

    code: int | None
    out: str
    err: str
    crash: str | None = None


def run_main(arguments: Sequence[str], folder: Path, *, run: Main = main) -> Outcome:
    """Run a command in ``folder`` with its real file descriptors 1 and 2, in bounded time and memory."""
    code, crash = None, None
    with _inside(folder), _bounded(), _captured() as read:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                run(arguments)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
            except TooLong:
                crash = f"not done after {MOST_SECONDS:g} s"
            except BaseException:
                crash = traceback.format_exc()
        out, err = read()
        err += "".join(f"{w.filename}:{w.lineno}: {w.category.__name__}: {w.message}\n" for w in warned)
    return Outcome(code=code, out=out, err=err, crash=crash)


def complaint(outcome: Outcome) -> str | None:
    """What is wrong with how a command ended, or None."""
    if outcome.crash is not None:
        return f"crashed: {outcome.crash}"
    if outcome.code not in EXIT_CODES:
        return f"exit code {outcome.code}"
    lines = outcome.err.splitlines()
    said = [line for line in lines if line.startswith("melange: ")]
    if outcome.code in (1, 2) and not lines:
        return f"exit code {outcome.code} without a word"
    if outcome.code == 2 and len(said) != 1:
        return f"{len(said)} lines of error: {outcome.err[:2000]}"
    foreign = [line for line in lines if any(word in line for word in FOREIGN) and line not in said]
    if foreign:
        return f"a library speaks: {foreign[0][:500]}"
    if any(len(line) > 4000 for line in said):
        return f"a line of {max(map(len, said))} characters"
    return None


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def try_command(
    arguments: Sequence[str], files: dict[str, bytes], *, outputs: Sequence[str] | None = (), run: Main = main
) -> str | None:
    """Run a command beside these files; what is wrong with what it did, or None.

    ``outputs``: what it may leave if it ends well; None: anything.
    """
    with tempfile.TemporaryDirectory(prefix="melange-fuzz-") as name:
        folder = Path(name)
        for path, content in files.items():
            (folder / path).write_bytes(content)
        outcome = run_main(arguments, folder, run=run)
        wrong = complaint(outcome)
        if wrong is None and outputs is not None:
            wrong = _left_wrongly(folder, files, outputs if outcome.code in (0, 3, 4) else ())
        return wrong


def _left_wrongly(folder: Path, before: dict[str, bytes], allowed: Sequence[str]) -> str | None:
    after = files_of(folder)
    changed = [path for path, content in before.items() if after.get(path) != content]
    if changed:
        return f"changed its input {changed[0]}"
    left = [path for path in after if path not in before and path not in allowed]
    return f"left {left[0]}" if left else None


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _bounded() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise TooLong

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    before = signal.signal(signal.SIGALRM, stop)
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY_BYTES, hard))
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _captured() -> Iterator[Callable[[], tuple[str, str]]]:
    """File descriptors 1 and 2 go to files, and so do sys.stdout and sys.stderr; the function reads what came."""
    kept, kept_fds = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    sinks = (tempfile.TemporaryFile(), tempfile.TemporaryFile())  # noqa: SIM115 - closed below
    for fd, sink in zip((1, 2), sinks, strict=True):
        os.dup2(sink.fileno(), fd)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), "utf-8", errors, write_through=True)
        for fd, errors in ((1, "strict"), (2, "backslashreplace"))
    )

    def read() -> tuple[str, str]:
        texts = []
        for stream, sink in zip((sys.stdout, sys.stderr), sinks, strict=True):
            stream.flush()
            sink.seek(0)
            texts.append(sink.read().decode("utf-8", "replace"))
        return texts[0], texts[1]

    try:
        yield read
    finally:
        sys.stdout, sys.stderr = kept
        for fd, old in zip((1, 2), kept_fds, strict=True):
            os.dup2(old, fd)
            os.close(old)
        for sink in sinks:
            sink.close()


def rng_of(reader: str, seed: int) -> random.Random:
    """The stream of one trial: the same for a reader's name and a seed, wherever it runs."""
    return random.Random(f"{reader}/{seed}")
