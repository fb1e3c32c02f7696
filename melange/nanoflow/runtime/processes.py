"""The processes of a tensor-parallel engine: one leads and serves, the others follow it batch by batch."""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from melange.errors import MelangeError
from melange.nanoflow.runtime.build import EngineOptions, build_engine, check_options
from melange.nanoflow.runtime.collectives import TensorParallel
from melange.nanoflow.runtime.engine import NanoFlowEngine
from melange.nanoflow.runtime.placement import usable_device

STOP_TIMEOUT_S = 30.0


@contextmanager
def running_engine(options: EngineOptions) -> Iterator[NanoFlowEngine]:
    """An engine with the processes its tensor-parallel degree needs; all of them end with the block.

    What cannot run raises InputError before any process is started.
    """
    check_options(options)
    with ExitStack() as stack:
        parallel = TensorParallel()
        if options.tp > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="melange-"))
            rendezvous = (Path(folder) / "rendezvous").as_uri()
            stack.enter_context(_followers(options, rendezvous))
            device = usable_device(options.device)
            parallel = TensorParallel.join(rank=0, tp=options.tp, rendezvous=rendezvous, device=device)
            stack.callback(parallel.leave)
        engine = build_engine(options, parallel)
        stack.callback(engine.close)
        yield engine


@contextmanager
def _followers(options: EngineOptions, rendezvous: str) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    ranks = range(1, options.tp)
    followers: list[BaseProcess] = [
        context.Process(target=_follow, args=(options, rank, rendezvous), daemon=True) for rank in ranks
    ]
    for follower in followers:
        follower.start()
    try:
        yield
    finally:
        for follower in followers:
            follower.join(STOP_TIMEOUT_S)
            if follower.is_alive():
                follower.terminate()
                follower.join()


def _follow(options: EngineOptions, rank: int, rendezvous: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader, which gets the same Ctrl-C, ends the followers
    device = usable_device(options.device, rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    parallel = TensorParallel.join(rank=rank, tp=options.tp, rendezvous=rendezvous, device=device)
    try:
        build_engine(options, parallel).executor.follow()
    except MelangeError:
        return  # the leader meets the same and reports it
    finally:
        parallel.leave()
