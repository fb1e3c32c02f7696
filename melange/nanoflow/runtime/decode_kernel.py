"""Decode attention straight from the pages of the KV cache, as a Triton kernel.

One program serves one request and one KV head: it walks the request's page table and keeps the running maximum and sum
of the softmax, so keys and values are read once and never copied. Without Triton the decoder copies pages instead.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_TOKENS = 64
LEAST_ROWS = 16  # the smallest tile that tl.dot multiplies


def paged_decode_attention(queries: Tensor, keys: Tensor, values: Tensor, tables: Tensor, lengths: Tensor) -> Tensor:
    """Attention of one query token a request to that request's pages.

    ``queries``: (n, heads, head_size), head_size a power of two. ``keys``, ``values``: (pages, page_tokens, kv_heads,
    head_size). ``tables``: (n, p) page numbers in token order. ``lengths``: (n,) tokens to attend to, at least 1.
    Returns (n, heads, head_size).
    """
    requests, heads, size = queries.shape
    page_tokens, kv_heads = keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    queries, tables = queries.contiguous(), tables.contiguous()
    output = torch.empty_like(queries)
    _kernel[(requests, kv_heads)](
        queries,
        keys,
        values,
        tables,
        lengths,
        output,
        tables.stride(0),
        keys.stride(0),
        keys.stride(1),
        keys.stride(2),
        1.0 / math.sqrt(size),
        HEADS=heads,
        GROUP=group,
        ROWS=max(LEAST_ROWS, triton.next_power_of_2(group)),
        SIZE=size,
        PAGE=page_tokens,
        BLOCK=BLOCK_TOKENS,
    )
    return output


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _kernel(  # type: ignore[no-untyped-def,unused-ignore]
    queries,
    keys,
    values,
    tables,
    lengths,
    output,
    table_stride,
    page_stride,
    token_stride,
    head_stride,
    scale,
    HEADS: tl.constexpr,  # noqa: N803 (Triton's custom for compile-time constants)
    GROUP: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    SIZE: tl.constexpr,  # noqa: N803
    PAGE: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    request = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    rows, columns, steps = tl.arange(0, ROWS), tl.arange(0, SIZE), tl.arange(0, BLOCK)
    place = (request * HEADS + kv_head * GROUP + rows[:, None]) * SIZE + columns[None, :]
    query = tl.load(queries + place, mask=rows[:, None] < GROUP, other=0.0)
    length = tl.load(lengths + request)
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    gathered = tl.zeros([ROWS, SIZE], tl.float32)
    for start in range(0, length, BLOCK):
        tokens = start + steps
        real = tokens < length
        page = tl.load(tables + request * table_stride + tokens // PAGE, mask=real, other=0)
        base = page * page_stride + (tokens % PAGE) * token_stride + kv_head * head_stride
        key = tl.load(keys + base[None, :] + columns[:, None], mask=real[None, :], other=0.0)
        scores = tl.where(real[None, :], tl.dot(query, key, input_precision="ieee") * scale, float("-inf"))
        peak = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - peak[:, None])
        fade = tl.exp(highest - peak)
        value = tl.load(values + base[:, None] + columns[None, :], mask=real[:, None], other=0.0)
        gathered = gathered * fade[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        total = total * fade + tl.sum(weights, 1)
        highest = peak
    tl.store(output + place, gathered / total[:, None], mask=rows[:, None] < GROUP)
