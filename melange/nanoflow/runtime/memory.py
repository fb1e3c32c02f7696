"""The peak-memory predictor: how many KV pages the live requests hold at most, some iterations ahead.

The NanoFlow engine admits a request while the largest number of pages that any later iteration will hold leaves room
(arXiv 2408.12757, section 4.3). A request that decodes grows by a token an iteration and gives everything back when
it ends, so the peak lies far below the sum of the final lengths. How fast a prompt is filled depends on the other
requests: it is bounded from both sides, so the figure is an upper bound of every way the run can go, given that no
request produces more than its ``remaining_tokens``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRequest:
    """What the predictor needs of one request.

    ``cached_tokens`` are in the KV cache (or on their way into it), ``prompt_tokens`` still have to be,
    ``decode_steps`` iterations follow once the prompt is in, each adding one token to the cache.
    """

    cached_tokens: int
    prompt_tokens: int
    decode_steps: int

    def __post_init__(self) -> None:
        if min(self.cached_tokens, self.prompt_tokens, self.decode_steps) < 0:
            raise InputError(f"live request with negative tokens: {self}")


def pages_of(tokens: int, page_tokens: int) -> int:
    """Pages that hold this many tokens."""
    return -(-tokens // page_tokens)


def peak_pages(requests: Sequence[LiveRequest], *, page_tokens: int, prefill_tokens: int) -> int:
    """The most KV pages that ``requests`` can hold at once from now on, when nothing more is admitted.

    ``prefill_tokens`` is the least number of prompt tokens an iteration fills while any wait (the batch size less the
    most requests that can decode); prompts are filled in the given order. A request holds at most
    ``cached + prompt + min(k, decode_steps)`` tokens after k iterations, and nothing later than
    ``prefill steps + decode_steps + 2`` iterations from now: its last token is known, and its pages are back, one
    iteration after it was computed.
    """
    if not requests:
        return 0
    start = np.array([r.cached_tokens + r.prompt_tokens for r in requests])
    steps = np.array([r.decode_steps for r in requests])
    waiting = np.cumsum([r.prompt_tokens for r in requests])
    prefill = np.where([r.prompt_tokens > 0 for r in requests], -(-waiting // prefill_tokens), 0)
    last = prefill + steps + 1
    # Between two endings the sum only grows, so its maximum lies in the last iteration of some request.
    held = start[None, :] + np.minimum(last[:, None], steps[None, :])
    pages = -(-held // page_tokens) * (last[:, None] <= last[None, :])
    return int(pages.sum(axis=1).max())
