"""One seam for running many independent jobs: here, on threads or processes of their own, or on a Ray cluster.

A job is a function and its arguments. Where it runs in another process, both are pickled: a function of a module, and
values. What a job gives may not depend on where or when it runs, so that the answer is the same whatever ``jobs``. A
script that asks for processes keeps its own work under ``if __name__ == "__main__":``, as each of them imports it.

Where is not the concern of those who have jobs: :func:`on_ray` moves all that run within it to a cluster.
"""

from __future__ import annotations

import copyreg
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from types import MappingProxyType
from typing import Any, TypeVar

from melange.errors import InputError, MelangeError, MissingExtraError

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Told how many jobs are done, and of how many."""


def _read_only(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


# Values hold read-only views of dictionaries, which pickle does not know.
copyreg.pickle(MappingProxyType, lambda view: (_read_only, (dict(view),)))


REACH_S = 5.0
_ray: ContextVar[Any] = ContextVar("ray", default=None)
"""The ray module while jobs run on a cluster."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def on_ray(address: str = "auto") -> Iterator[None]:
    """Within it, jobs run on an existing Ray cluster, as many at a time as it has cores for, with the same answers.

    ``address`` is the cluster's, ``auto`` that of $RAY_ADDRESS or of the cluster that this machine belongs to. Its
    machines must have the same version of this package. InputError where Ray is not installed or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError.of("ray", "cluster", "running on a cluster") from None
    try:
        _reach(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no Ray cluster can be used: {reason}",
            fix="start one with 'ray start --head', or set RAY_ADDRESS and what it asks of those who connect",
        ) from error
    token = _ray.set(ray)
    try:
        yield
    finally:
        _ray.reset(token)
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT, for which Ray itself would wait minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), REACH_S).close()


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
    if total > 1 and (ray := _ray.get()) is not None:
        return _on_cluster(ray, function, arguments, progress)
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


def _call(function: Callable[..., Result], *row: Any) -> Result:
    return function(*row)


def _on_cluster(
    ray: Any, function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], progress: Progress | None
) -> list[Result]:
    """:func:`run` on Ray; what several jobs share is sent once."""
    values = {id(value): value for row in arguments for value in row if not isinstance(value, int | float | str)}
    seen = Counter(id(value) for row in arguments for value in row)
    sent = {key: ray.put(value) for key, value in values.items() if seen[key] > 1}
    remote, job, done = ray.remote(num_cpus=1)(_call), ray.put(function), list[Result]()
    pending = [remote.remote(job, *(sent.get(id(value), value) for value in row)) for row in arguments]
    try:
        for future in pending:
            done.append(ray.get(future))
            _tell(progress, len(done), len(arguments))
        return done
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise MelangeError(f"the Ray cluster lost a job: {str(error).splitlines()[0]}") from error
    finally:
        for future in pending[len(done) :]:
            ray.cancel(future, force=True)


def _pool(workers: int, threads: bool) -> Executor:
    if threads:
        return ThreadPoolExecutor(workers)
    # Forking a process that has threads, as numpy's has, may hang.
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_process)


def _begin_process() -> None:
    """Make a process of the pool end with the one that the user started, however that ends.

    On Ctrl-C, which reaches every process of a terminal, only that one says so; when it is killed, nobody else could
    tell the others, which wait for work.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
