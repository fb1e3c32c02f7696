"""The NanoFlow engine: a decoder that executes a searched pipeline of nano-batches.

Everything here needs torch (``pip install 'melange[nanoflow]'``); nothing outside this package imports it.
``Decoder`` holds a model, ``Scheduler`` forms batches, ``Executor`` runs them in a ``Pipeline``'s order, ``Engine``
joins the three, ``serve`` speaks the OpenAI completions protocol.
"""

from __future__ import annotations

from melange.errors import MissingExtraError

try:
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError.of("torch", "nanoflow", "the NanoFlow engine") from None
