"""KvCache: keys and values of every layer in pages of a fixed number of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from melange.errors import InputError
from melange.nanoflow.runtime.config import DecoderConfig
from melange.nanoflow.runtime.placement import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """``pages``: (layers, 2, pages, page_tokens, kv_heads / tp, head_size); index 0 of axis 1 keys, 1 values."""

    pages: Tensor

    @classmethod
    def empty(cls, config: DecoderConfig, placement: Placement, *, pages: int, page_tokens: int) -> KvCache:
        """A cache of zeros."""
        shape = (config.layers, 2, pages, page_tokens, config.kv_heads // placement.tp, config.head_size)
        return cls(pages=torch.zeros(shape, dtype=placement.dtype, device=placement.device))

    @property
    def page_tokens(self) -> int:
        return int(self.pages.shape[3])

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store ``keys`` and ``values``, (n, kv_heads, head_size), at the places ``slots``, (n,)."""
        flat = self.pages[layer].flatten(1, 2)
        flat[0].index_copy_(0, slots, keys)
        flat[1].index_copy_(0, slots, values)

    def read(self, layer: int, tables: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of page tables (n, p), each (n, kv_heads, p page_tokens, head_size), in token order."""
        keys, values = (half[tables].flatten(1, 2).transpose(1, 2) for half in self.pages[layer])
        return keys, values


def pages_that_fit(config: DecoderConfig, placement: Placement, *, memory_bytes: float, page_tokens: int) -> int:
    """Pages that ``memory_bytes`` on each process hold; fewer than one raises InputError."""
    row_bytes = config.kv_heads // placement.tp * config.head_size * placement.dtype.itemsize
    page = config.layers * 2 * page_tokens * row_bytes
    pages = int(memory_bytes // page)
    if pages < 1:
        raise InputError(
            f"{memory_bytes / 2**30:.3g} GiB of KV memory do not hold one page of {page / 2**30:.3g} GiB",
            fix="give the KV cache more memory",
        )
    return pages
