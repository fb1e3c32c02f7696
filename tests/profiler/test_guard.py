"""The guard: a server ends with its owner, whichever way the owner goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def guarded(*command: str) -> subprocess.Popen[bytes]:
    guard = [sys.executable, "-m", "melange.profiler.guard"]
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen([*guard, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)


def test_a_command_that_ends_hands_its_code_on() -> None:
    with guarded("sh", "-c", "echo up; exit 3") as guard:
        assert guard.wait(120) == 3
        assert guard.stdout is not None
        assert guard.stdout.read() == b"up\n"


def test_the_whole_group_is_stopped_when_the_owner_lets_go() -> None:
    with guarded("sh", "-c", "sleep 600 & echo up; wait") as guard:
        assert guard.stdout is not None
        assert guard.stdout.readline() == b"up\n"
        assert guard.stdin is not None
        guard.stdin.close()
        assert guard.wait(120) != 0
        assert guard.stdout.read() == b""  # ends only when the child that holds the pipe has gone too
