"""One seam for running many independent jobs: here, on threads or on processes of their own.

A job is a function and its arguments. Where it runs in another process, both are pickled: a function of a module, and
values. What a job gives may not depend on where or when it runs, so that the answer is the same whatever ``jobs``. A
script that asks for processes keeps its own work under ``if __name__ == "__main__":``, as each of them imports it.
"""

from __future__ import annotations

import copyreg
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from types import MappingProxyType
from typing import Any, TypeVar

from melange.errors import InputError, MelangeError

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Told how many jobs are done, and of how many."""


def _read_only(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


# Values hold read-only views of dictionaries, which pickle does not know.
copyreg.pickle(MappingProxyType, lambda view: (_read_only, (dict(view),)))


def run(
    function: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    *,
    jobs: int = 1,
    threads: bool = False,
    progress: Progress | None = None,
) -> list[Result]:
    """What ``function`` gives for each of these arguments, in their order, at most ``jobs`` of them at a time.

    ``threads`` is for functions that run without the interpreter's lock; others get processes. The first failure, in
    the order of the arguments, is raised, and what has not begun by then is left undone, as on Ctrl-C. ``progress`` is
    called in this thread, in order.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}", fix="give at least 1")
    total, done = len(arguments), list[Result]()
    if min(jobs, total) <= 1:
        for row in arguments:
            done.append(function(*row))
            _tell(progress, len(done), total)
        return done
    pool = _pool(min(jobs, total), threads)
    try:
        futures: list[Future[Result]] = [pool.submit(function, *row) for row in arguments]
        for future in futures:
            done.append(future.result())
            _tell(progress, len(done), total)
        return done
    except BrokenExecutor as error:
        raise MelangeError(
            "a process ended amid its job, killed perhaps for want of memory; run fewer jobs at a time"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int, threads: bool) -> Executor:
    if threads:
        return ThreadPoolExecutor(workers)
    # Forking a process that has threads, as numpy's has, may hang.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_silently)


def _end_silently() -> None:
    """On Ctrl-C, which reaches every process of a terminal, only the one that the user started says so."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
