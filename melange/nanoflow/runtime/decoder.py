"""Decoder: the operations of a Llama or Mixtral model, each on a range of a batch's rows.

The operations are those that a pipeline orders: KQV with its norm and RoPE, the two attentions, O, UpGate with its norm
(and the expert routing), Down, and the two all-reduces. Each reads and writes only its own rows of the iteration's
buffers, so nano-operations of different nano-batches never touch the same memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from melange.nanoflow.runtime.batch import Batch
from melange.nanoflow.runtime.collectives import TensorParallel
from melange.nanoflow.runtime.config import DecoderConfig
from melange.nanoflow.runtime.kv_cache import KvCache
from melange.nanoflow.runtime.weights import LayerWeights, Weights
from melange.perfmodel.operations import OperationKind

# Decode attention copies the pages it reads into one block: this bounds the block (KV tokens, padding included).
GATHERED_TOKENS = 2**17


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """Memory of one iteration, for up to B tokens, reused by the next one.

    ``residual``, ``partial``: (B, hidden), the stream of hidden states and this process's share of a sum. ``queries``,
    ``attended``: (B, heads / tp, head_size). ``activation``: (B, experts a token or 1, intermediate / tp).
    ``experts``, ``expert_weights``: (B, experts a token or 1).
    """

    residual: Tensor
    partial: Tensor
    queries: Tensor
    attended: Tensor
    activation: Tensor
    experts: Tensor
    expert_weights: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A batch on the device. ``cosine``, ``sine``: (n, 1, head_size / 2), RoPE's rotation of each row."""

    batch: Batch
    slots: Tensor
    positions: Tensor
    tables: Tensor
    lengths: Tensor
    cosine: Tensor
    sine: Tensor


class Decoder:
    """A model's weights, KV cache and buffers on one device, and the operations on them."""

    def __init__(
        self,
        config: DecoderConfig,
        weights: Weights,
        cache: KvCache,
        *,
        batch_tokens: int,
        parallel: TensorParallel | None = None,
    ) -> None:
        self.config = config
        self.weights = weights
        self.cache = cache
        self.parallel = parallel or TensorParallel()
        self.device = weights.embedding.device
        self._buffers = _buffers(config, weights, batch_tokens, self.parallel.tp)
        self._frequencies = rope_frequencies(config).to(self.device)
        self._kernel = decode_kernel(self.device, config.head_size)
        self._operations: dict[OperationKind, Callable[[LayerWeights, int, Placed, slice], None]] = {
            "kqv": self._kqv,
            "decode_attention": self._decode_attention,
            "prefill_attention": self._prefill_attention,
            "o": self._o,
            "o_all_reduce": self._all_reduce,
            "up_gate": self._up_gate,
            "down": self._down,
            "down_all_reduce": self._all_reduce,
        }

    def place(self, batch: Batch) -> Placed:
        """Bring a batch's indices to the device and compute its rotations."""
        positions = self._send(batch.positions)
        angles = positions.to(torch.float32)[:, None] * self._frequencies
        return Placed(
            batch=batch,
            slots=self._send(batch.slots),
            positions=positions,
            tables=self._send(batch.tables),
            lengths=self._send(batch.lengths),
            cosine=angles.cos()[:, None, :],
            sine=angles.sin()[:, None, :],
        )

    def embed(self, batch: Batch, previous_tokens: Tensor | None) -> None:
        """Start an iteration: the rows' embeddings, carried tokens taken from the previous iteration's output."""
        ids = self._send(batch.token_ids)
        if previous_tokens is not None and len(batch.carried_rows):
            ids[self._send(batch.carried_rows)] = previous_tokens[self._send(batch.carried_from)]
        torch.index_select(self.weights.embedding, 0, ids, out=self._buffers.residual[: batch.tokens])

    def run(self, kind: OperationKind, layer: int, placed: Placed, start: int, end: int) -> None:
        """One operation of one layer on rows ``start`` to ``end``."""
        self._operations[kind](self.weights.layers[layer], layer, placed, slice(start, end))

    def logits(self, batch: Batch) -> Tensor:
        """(sampled rows, vocabulary) in fp32, after the last layer."""
        rows = self._buffers.residual[self._send(batch.sampled_rows)]
        return F.linear(self._norm(rows, self.weights.norm), self.weights.head).float()

    def _send(self, array: object) -> Tensor:
        host = torch.as_tensor(array)
        if self.device.type == "cuda":
            return host.pin_memory().to(self.device, non_blocking=True)
        return host.clone()

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(hidden, weight.shape, weight, self.config.norm_eps)

    def _kqv(self, weights: LayerWeights, layer: int, placed: Placed, rows: slice) -> None:
        heads, keys = (count // self.parallel.tp for count in (self.config.heads, self.config.kv_heads))
        normed = self._norm(self._buffers.residual[rows], weights.attention_norm)
        joint = F.linear(normed, weights.kqv).view(-1, heads + 2 * keys, self.config.head_size)
        rotated = rotate(joint[:, : heads + keys], placed.cosine[rows], placed.sine[rows])
        self._buffers.queries[rows] = rotated[:, :heads]
        self.cache.write(layer, placed.slots[rows], rotated[:, heads:], joint[:, heads + keys :])

    def _decode_attention(self, weights: LayerWeights, layer: int, placed: Placed, rows: slice) -> None:
        if self._kernel is not None:
            keys, values = self.cache.pages[layer]
            queries, tables, lengths = self._buffers.queries[rows], placed.tables[rows], placed.lengths[rows]
            self._buffers.attended[rows] = self._kernel(queries, keys, values, tables, lengths)
            return
        longest = int(placed.batch.lengths[rows].max())
        step = max(1, GATHERED_TOKENS // longest)
        for start in range(rows.start, rows.stop, step):
            self._attend_decodes(layer, placed, slice(start, min(start + step, rows.stop)))

    def _attend_decodes(self, layer: int, placed: Placed, rows: slice) -> None:
        longest = int(placed.batch.lengths[rows].max())
        keys, values = self.cache.read(layer, placed.tables[rows, : -(-longest // self.cache.page_tokens)])
        seen = torch.arange(keys.shape[2], device=self.device) < placed.lengths[rows, None]
        # The heads that share a KV head are queries of one attention: no copy of keys and values for each.
        queries = self._buffers.queries[rows].view(len(keys), keys.shape[1], -1, keys.shape[3])
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen[:, None, None])
        self._buffers.attended[rows] = attended.flatten(1, 2)

    def _prefill_attention(self, weights: LayerWeights, layer: int, placed: Placed, rows: slice) -> None:
        starts = placed.batch.chunk_starts
        first = int(starts.searchsorted(rows.start, side="right")) - 1
        last = int(starts.searchsorted(rows.stop, side="left"))
        for chunk in range(first, last):
            self._attend_chunk(layer, placed, chunk, max(rows.start, starts[chunk]), min(rows.stop, starts[chunk + 1]))

    def _attend_chunk(self, layer: int, placed: Placed, chunk: int, start: int, end: int) -> None:
        length = int(placed.batch.positions[end - 1]) + 1
        pages = -(-length // self.cache.page_tokens)
        keys, values = self.cache.read(layer, placed.tables[chunk : chunk + 1, :pages])
        attended = F.scaled_dot_product_attention(
            self._buffers.queries[start:end].transpose(0, 1)[None],
            keys[:, :, :length],
            values[:, :, :length],
            attn_mask=self._causal(placed.positions[start:end], length),
            enable_gqa=True,
        )
        self._buffers.attended[start:end] = attended[0].transpose(0, 1)

    def _causal(self, positions: Tensor, length: int) -> Any:
        if self.device.type == "cuda" and self._buffers.queries.dtype != torch.float32:
            return causal_lower_right(len(positions), length)  # flash attention takes no other mask
        return torch.arange(length, device=self.device) <= positions[:, None]

    def _o(self, weights: LayerWeights, layer: int, placed: Placed, rows: slice) -> None:
        self._add(rows, F.linear(self._buffers.attended[rows].flatten(1), weights.o))

    def _up_gate(self, weights: LayerWeights, layer: int, placed: Placed, rows: slice) -> None:
        normed = self._norm(self._buffers.residual[rows], weights.mlp_norm)
        if weights.router is None:
            self._buffers.activation[rows, 0] = gated(F.linear(normed, weights.gate_up[0]))
            return
        shares = F.linear(normed, weights.router).softmax(-1, dtype=torch.float32)
        top, chosen = shares.topk(self.config.experts_per_token)
        self._buffers.experts[rows] = chosen
        self._buffers.expert_weights[rows] = (top / top.sum(-1, keepdim=True)).to(normed.dtype)
        activation = self._buffers.activation[rows]
        for expert in range(self.config.experts):
            tokens, places = torch.where(chosen == expert)
            activation[tokens, places] = gated(F.linear(normed[tokens], weights.gate_up[expert]))

    def _down(self, weights: LayerWeights, layer: int, placed: Placed, rows: slice) -> None:
        activation = self._buffers.activation[rows]
        if weights.router is None:
            self._add(rows, F.linear(activation[:, 0], weights.down[0]))
            return
        chosen, shares = self._buffers.experts[rows], self._buffers.expert_weights[rows]
        total = torch.zeros_like(self._buffers.residual[rows])
        for expert in range(self.config.experts):
            tokens, places = torch.where(chosen == expert)
            output = F.linear(activation[tokens, places], weights.down[expert])
            total.index_add_(0, tokens, output * shares[tokens, places, None])
        self._add(rows, total)

    def _add(self, rows: slice, output: Tensor) -> None:
        """Add to the residual at once, or leave this process's part for the all-reduce that follows."""
        if self.parallel.tp == 1:
            self._buffers.residual[rows] += output
        else:
            self._buffers.partial[rows] = output

    def _all_reduce(self, weights: LayerWeights, layer: int, placed: Placed, rows: slice) -> None:
        self.parallel.all_reduce(self._buffers.partial[rows])
        self._buffers.residual[rows] += self._buffers.partial[rows]


def decode_kernel(device: torch.device, head_size: int) -> Callable[..., Tensor] | None:
    """The kernel that reads pages in place: on CUDA, with Triton, for head sizes that it can tile; else None."""
    if device.type != "cuda" or head_size < 16 or head_size & (head_size - 1):
        return None
    try:
        from melange.nanoflow.runtime.decode_kernel import paged_decode_attention
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return None
    return paged_decode_attention


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """RoPE: (n, heads, head_size) turned by (n, 1, head_size / 2), the halves of a head as real and imaginary parts."""
    real, imaginary = heads.float().chunk(2, dim=-1)
    turned = torch.cat([real * cosine - imaginary * sine, imaginary * cosine + real * sine], dim=-1)
    return turned.to(heads.dtype)


def gated(gate_up: Tensor) -> Tensor:
    """SwiGLU: silu of the first half times the second."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def rope_frequencies(config: DecoderConfig) -> Tensor:
    """(head_size / 2,) radians a position, with Llama 3.1's scaling where the model asks for it.

    Wavelengths longer than ``original_context / low_freq_factor`` are divided by ``factor``, those shorter than
    ``original_context / high_freq_factor`` kept, those between interpolated linearly in the inverse wavelength.
    """
    exponents = torch.arange(0, config.head_size, 2, dtype=torch.float32) / config.head_size
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_context_tokens * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / scaling.factor)


def draw_tokens(logits: Tensor, temperatures: Tensor, generator: torch.Generator) -> Tensor:
    """(n,) tokens: the likeliest where the temperature is 0, else a draw from softmax(logits / temperature)."""
    likeliest = logits.argmax(-1)
    noise = torch.empty_like(logits).exponential_(generator=generator).log_()
    drawn = (logits / temperatures.clamp_min(1e-6)[:, None] - noise).argmax(-1)
    return torch.where(temperatures > 0, drawn, likeliest)


def _buffers(config: DecoderConfig, weights: Weights, tokens: int, tp: int) -> Buffers:
    model = weights.embedding
    places = max(1, config.experts_per_token)

    def rows(*shape: int) -> Tensor:
        return torch.zeros((tokens, *shape), dtype=model.dtype, device=model.device)

    return Buffers(
        residual=rows(config.hidden),
        partial=rows(config.hidden if tp > 1 else 0),
        queries=rows(config.heads // tp, config.head_size),
        attended=rows(config.heads // tp, config.head_size),
        activation=rows(places, config.intermediate // tp),
        experts=torch.zeros((tokens, places), dtype=torch.int64, device=model.device),
        expert_weights=rows(places),
    )
