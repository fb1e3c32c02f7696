"""PrefixCache: how many of a request's leading blocks earlier requests of the trace already held."""

from __future__ import annotations

from itertools import chain

import numpy as np

from melange.arrays import BoolArray, IntArray

BlockId = int | str
# One byte an id: 256 MiB at most. Larger ids, and text, are numbered in the order they come.
MAX_DIRECT_ID = 1 << 28
# Other traces use blocks of 16 tokens: read as 512, their blocks would hold 32 times the input.
MAX_OVERFILL = 4


class PrefixCache:
    """An infinite prefix cache that remembers every block of every earlier request.

    A hit ends at the first block that no earlier request held, as prefix caching in serving engines does. No block is
    ever evicted, so the hits are an upper bound of what a real cache gives. The last input token is always computed:
    hits stay below the input length.
    """

    def __init__(self, block_tokens: int = 512) -> None:
        self.block_tokens = block_tokens
        self._seen = np.zeros(1 << 16, dtype=np.bool_)
        self._codes: dict[BlockId, int] | None = None
        self._next_code = 0

    def fits(self, hash_ids: list[list[BlockId]], input_tokens: IntArray) -> bool:
        """Whether the block size can be the trace's: a few odd rows pass, blocks of another size do not."""
        # A request's last block may be filled in part.
        full_blocks = sum(map(len, hash_ids)) - len(hash_ids)
        return full_blocks * self.block_tokens <= MAX_OVERFILL * int(input_tokens.sum())

    def hit_tokens(self, hash_ids: list[list[BlockId]], input_tokens: IntArray) -> IntArray:
        """Cached tokens of each request, shape (requests,), in the order of arrival; remembers their blocks."""
        lengths = np.fromiter(map(len, hash_ids), np.int64, len(hash_ids))
        flat = self._numbers(list(chain.from_iterable(hash_ids)))
        owner = np.repeat(np.arange(len(hash_ids)), lengths)
        missed = np.flatnonzero(~(self._held_before(flat) | self._held_by_earlier(flat, owner)))
        ends = np.cumsum(lengths)
        starts = ends - lengths
        # The first miss at or after a request's start, or its end where all its blocks hit.
        stops = np.minimum(np.append(missed, len(flat))[np.searchsorted(missed, starts)], ends)
        self._remember(flat)
        hits: IntArray = np.minimum((stops - starts) * self.block_tokens, np.maximum(input_tokens - 1, 0))
        return hits

    def _held_before(self, flat: IntArray) -> BoolArray:
        known = np.zeros(len(flat), dtype=np.bool_)
        inside = flat < len(self._seen)
        known[inside] = self._seen[flat[inside]]
        return known

    @staticmethod
    def _held_by_earlier(flat: IntArray, owner: IntArray) -> BoolArray:
        _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
        return np.asarray(owner[first][inverse] < owner)

    def _remember(self, flat: IntArray) -> None:
        if len(flat) and flat.max() >= len(self._seen):
            grown = np.zeros(int(1.5 * int(flat.max())) + 1, dtype=np.bool_)
            grown[: len(self._seen)] = self._seen
            self._seen = grown
        self._seen[flat] = True

    def _numbers(self, ids: list[BlockId]) -> IntArray:
        if self._codes is None:
            if set(map(type, ids)) <= {int} and (not ids or (min(ids) >= 0 and max(ids) < MAX_DIRECT_ID)):  # type: ignore[operator]
                return np.array(ids, np.int64)
            self._codes = {int(block): int(block) for block in np.flatnonzero(self._seen)}
            self._next_code = len(self._seen)
        codes = self._codes
        for block in ids:
            if block not in codes:
                codes[block] = self._next_code
                self._next_code += 1
        return np.array([codes[block] for block in ids], np.int64)
