"""The NanoFlow engine: a decoder that executes a searched pipeline of nano-batches.

Everything here needs torch (``pip install '.[nanoflow]'``); nothing outside this package imports it.
``Decoder`` holds a model, ``Scheduler`` forms batches, ``Executor`` runs them in a ``Pipeline``'s order,
``NanoFlowEngine`` joins the three, ``run_server`` puts the OpenAI completions protocol in front.

On a GPU a pipeline's order and streams are kept; its shares are left to the hardware, except in ``measure_gpu``, which
confines attention to part of the device. None of it has been run on a GPU yet.
"""

from __future__ import annotations

from melange.errors import MissingExtraError

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError.of("torch", "nanoflow", "the NanoFlow engine") from None
