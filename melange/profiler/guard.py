"""Runs a server that must not outlive its owner: ``python -m melange.profiler.guard COMMAND...``.

The owner holds the other end of standard input. However the owner goes away (a clean stop, Ctrl-C, a crash, kill -9),
that end closes, and the whole process group of the server is stopped: SIGTERM first, SIGKILL after a grace period.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 20.0


def main(command: list[str]) -> int:
    """Run the command until it ends or standard input closes; returns its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_default_sigint)
    threading.Thread(target=_stop_when_abandoned, args=(server,), daemon=True).start()
    code = server.wait()
    _signal_group(server.pid, signal.SIGKILL)  # workers that outlive a crashed parent
    return code


def _default_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _stop_when_abandoned(server: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _signal_group(server.pid, signal.SIGTERM)
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        _signal_group(server.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return  # it is gone already


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
