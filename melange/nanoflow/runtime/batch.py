"""Batch: the tokens of one iteration, as arrays that are the same on every process; decodes first, then prefill chunks.

A batch is formed before the tokens of the iteration in flight are known, so a decoding request's input is named by the
place that its token will have in that iteration's output (``carried_from``), never by its value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.arrays import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One iteration's work: ``n`` token rows in ``c`` chunks, of which the first ``decodes`` are single tokens.

    ``token_ids``, ``positions``, ``slots``: (n,), a row's token (0 where carried), its position in its sequence, and
    its place in the KV cache. ``chunk_starts``: (c + 1,), the row at which each chunk begins, then n. ``lengths``:
    (c,), tokens of the chunk's sequence that are cached after this iteration. ``tables``: (c, pages of the longest),
    page numbers, padded with 0. ``carried_rows`` and ``carried_from``: rows whose token is the previous iteration's
    output at that place. ``sampled_rows`` and ``temperatures``: the rows that yield a token, and how it is drawn (0
    takes the likeliest).
    """

    decodes: int
    token_ids: IntArray
    positions: IntArray
    slots: IntArray
    chunk_starts: IntArray
    lengths: IntArray
    tables: IntArray
    carried_rows: IntArray
    carried_from: IntArray
    sampled_rows: IntArray
    temperatures: FloatArray

    @property
    def tokens(self) -> int:
        return int(self.chunk_starts[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """``tokens`` consecutive tokens of one sequence from position ``start``; ``ids`` is None for a carried token.

    ``pages``: the sequence's page numbers, at least up to the chunk's end. ``carried_from``: see Batch, None where the
    ids are known. ``sampled``: whether the chunk's last row yields a token.
    """

    start: int
    tokens: int
    pages: IntArray
    ids: IntArray | None
    carried_from: int | None
    sampled: bool
    temperature: float


def join_chunks(chunks: list[Chunk], *, decodes: int, page_tokens: int) -> Batch:
    """The batch of these chunks, in their order; the first ``decodes`` must be single tokens."""
    starts = np.zeros(len(chunks) + 1, dtype=np.int64)
    np.cumsum([chunk.tokens for chunk in chunks], out=starts[1:])
    lengths = np.array([chunk.start + chunk.tokens for chunk in chunks], dtype=np.int64)
    tables = np.zeros((len(chunks), -(-int(lengths.max()) // page_tokens)), dtype=np.int64)
    ids = np.zeros(starts[-1], dtype=np.int64)
    for row, chunk in enumerate(chunks):
        used = -(-int(lengths[row]) // page_tokens)
        tables[row, :used] = chunk.pages[:used]
        if chunk.ids is not None:
            ids[starts[row] : starts[row + 1]] = chunk.ids
    owner = np.repeat(np.arange(len(chunks)), np.diff(starts))
    positions = np.arange(starts[-1]) - starts[owner] + np.array([chunk.start for chunk in chunks])[owner]
    carried = [(starts[row], chunk.carried_from) for row, chunk in enumerate(chunks) if chunk.carried_from is not None]
    sampled = [row for row, chunk in enumerate(chunks) if chunk.sampled]
    return Batch(
        decodes=decodes,
        token_ids=ids,
        positions=positions,
        slots=tables[owner, positions // page_tokens] * page_tokens + positions % page_tokens,
        chunk_starts=starts,
        lengths=lengths,
        tables=tables,
        carried_rows=np.array([row for row, _ in carried], dtype=np.int64),
        carried_from=np.array([place for _, place in carried], dtype=np.int64),
        sampled_rows=starts[1:][sampled] - 1,
        temperatures=np.array([chunks[row].temperature for row in sampled], dtype=np.float64),
    )
