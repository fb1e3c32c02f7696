"""Places that a command reads and writes: files, pipes, descriptors and devices, each by its own way, within bounds.

``-`` is standard input where something is read and standard output where something is written. What can be read but
once (a pipe, a terminal) is kept within :func:`pipes_held`, because a command may look at an input more than once.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from melange.errors import InputError

MOST_BYTES = 256 * 2**20  # of anything that is read whole
PATIENCE_S = 30.0  # for a named pipe that nobody writes to, or reads from
_LONGEST_PREFIX = 100
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self|\d+))/fd/(\d+)")
_STANDARD = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}

_held: dict[str, bytes] | None = None


@contextlib.contextmanager
def pipes_held() -> Iterator[None]:
    """Within it, what came out of a pipe is kept and read again from memory: for one command, which reads it twice."""
    global _held
    before, _held = _held, {}
    try:
        yield
    finally:
        _held = before


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Whether this names a plain file, which can be read twice and replaced; not so ``-`` and what is missing."""
    try:
        return os.fspath(path) != "-" and stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_bytes(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> bytes:
    """All that a file, a pipe or (``-``) standard input holds.

    InputError: it is missing, unreadable or a folder, holds more than ``most_bytes``, or is a named pipe that nobody
    writes to for ``PATIENCE_S`` seconds.
    """
    name = os.fspath(path)
    if _held is not None and name in _held:
        return _held[name]
    try:
        handle = os.dup(0) if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb", buffering=0):
            data = _all_of(handle, name, most_bytes)
            regular = stat.S_ISREG(os.fstat(handle).st_mode)
    except ValueError as error:
        raise InputError(f"cannot read it: {error}", file=name, fix="check the path") from error
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", file=path, fix="check the path") from error
    if _held is not None and not regular:
        _held[name] = data
    return data


def _all_of(handle: int, name: str, most_bytes: int) -> bytes:
    info = os.fstat(handle)
    if name != "-":
        if stat.S_ISFIFO(info.st_mode) and name != "/dev/stdin" and not _DESCRIPTOR.fullmatch(name):
            _wait_for_writer(handle, name)
        os.set_blocking(handle, True)
    parts, left = [], most_bytes
    if stat.S_ISREG(info.st_mode) and info.st_size > most_bytes:
        left = -1
    while left >= 0 and (part := os.read(handle, 2**20)):
        parts.append(part)
        left -= len(part)
    if left < 0:
        raise InputError(f"it holds more than {most_bytes // 2**20} MiB", file=name, fix="give the file that was meant")
    return b"".join(parts)


def _wait_for_writer(handle: int, name: str) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(1000 * PATIENCE_S):
        raise InputError(f"nobody wrote to this pipe for {PATIENCE_S:g} s", file=name, fix="start what writes to it")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file by these bytes in one step, or send them to what is no plain file.

    A symbolic link stays, and its target is replaced (made, where it is missing); other hard links keep the old
    content. On any failure a plain file stays as it was. InputError where it cannot be written.
    """
    name = os.fspath(path)
    check_place(name)
    try:
        if (descriptor := _descriptor_of(name)) is not None:
            _send(os.dup(descriptor), data)
        elif os.path.exists(name) and not is_regular(name):
            _send(_open_stream(name), data)
        else:
            _replace(Path(os.path.realpath(name)), data)
    except OSError as error:
        raise InputError(
            f"cannot write it: {error.strerror}", file=path, fix="check the folder and the disk"
        ) from error


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise InputError where nothing can be written, for commands to ask before their work."""
    name = os.fspath(path)
    if not name.strip():
        raise InputError("cannot write it: the name is empty", file=repr(name), fix="name a file")
    try:
        if (descriptor := _descriptor_of(name)) is not None:
            os.fstat(descriptor)
            return
        with contextlib.suppress(FileNotFoundError):
            os.stat(name)  # which tells a loop of links, a name that is too long, a file in a folder's place
        target = Path(os.path.realpath(name))
        if name.endswith("/") or target.is_dir():
            raise InputError("cannot write it: it is a folder", file=path, fix="name a file")
        if not target.parent.is_dir():
            raise InputError("cannot write it: its folder does not exist", file=path, fix="make the folder first")
        if target.exists():
            if not os.access(target, os.W_OK):
                raise InputError("cannot write it: it is read-only", file=path, fix="name another file")
            if not is_regular(target):
                return
        if not os.access(target.parent, os.W_OK):
            raise InputError("cannot write it: its folder is read-only", file=path, fix="name another folder")
    except ValueError as error:
        raise InputError(f"cannot write it: {error}", file=repr(name), fix="name a file") from error
    except OSError as error:
        raise InputError(f"cannot write it: {error.strerror}", file=path, fix="name another file") from error


def same_place(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    """Whether two names, links and hard links followed, mean one plain file, be it there already or not."""
    try:
        if is_regular(a) and is_regular(b):
            return os.path.samefile(a, b)
        missing = not os.path.exists(a) and not os.path.exists(b)
        return missing and os.path.realpath(a) == os.path.realpath(b)
    except (OSError, ValueError):
        return False


def _descriptor_of(name: str) -> int | None:
    """The descriptor of this process that a name stands for."""
    if name in _STANDARD:
        return _STANDARD[name]
    found = _DESCRIPTOR.fullmatch(name)
    return int(found[1]) if found and ("/proc/" not in name or "self" in name or f"/{os.getpid()}/" in name) else None


def _open_stream(name: str) -> int:
    """A pipe or device, open for writing; a named pipe's reader is waited for, ``PATIENCE_S`` at the most."""
    if not stat.S_ISFIFO(os.stat(name).st_mode):
        return os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            handle = os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            if time.monotonic() > deadline:
                raise InputError(
                    f"nobody reads from this pipe for {PATIENCE_S:g} s", file=name, fix="start what reads from it"
                ) from None
            time.sleep(0.05)
        else:
            os.set_blocking(handle, True)
            return handle


def _send(handle: int, data: bytes) -> None:
    """Write and close; what was printed before stays before it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _replace(target: Path, data: bytes) -> None:
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:_LONGEST_PREFIX]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
