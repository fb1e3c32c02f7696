"""Weights: a decoder's tensors, one tensor-parallel shard of them, from safetensors files or from a seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from melange.errors import InputError, MissingExtraError
from melange.nanoflow.runtime.config import DecoderConfig
from melange.nanoflow.runtime.placement import Placement

Source = Callable[[str, tuple[int, ...]], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer's tensors on one of ``tp`` processes; rows are outputs, columns inputs.

    ``kqv``: ((heads + 2 kv_heads) head_size / tp, hidden), queries, keys, values in this order.
    ``o``: (hidden, heads head_size / tp). Norms: (hidden,).
    ``gate_up``: (experts or 1, 2 intermediate / tp, hidden), the gate half first;
    ``down``: (experts or 1, hidden, intermediate / tp). ``router``: (experts, hidden), None in a dense model.
    """

    attention_norm: Tensor
    kqv: Tensor
    o: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor
    router: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """All tensors of one process. ``embedding`` and ``head``: (vocabulary, hidden), whole on every process."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of the distinct tensors."""
        tensors = [self.embedding, self.norm, self.head]
        for layer in self.layers:
            tensors += [layer.attention_norm, layer.kqv, layer.o, layer.mlp_norm, layer.gate_up, layer.down]
        return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def random_weights(config: DecoderConfig, placement: Placement, *, seed: int) -> Weights:
    """Normal weights of standard deviation 0.02 (norms are ones); every rank draws the same and keeps its own shard.

    The draw depends on the device type: a CPU and a GPU give different weights for one seed.
    """
    device, dtype = placement.device, placement.dtype
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        if name.endswith("norm.weight"):
            return torch.ones(shape, dtype=dtype, device=device)
        return torch.empty(shape, dtype=dtype, device=device).normal_(0.0, 0.02, generator=generator)

    return _assemble(config, draw, placement.rank, placement.tp)


def load_weights(folder: str | Path, config: DecoderConfig, placement: Placement) -> Weights:
    """A process's shard from a Hugging Face folder of safetensors files.

    A missing file or tensor, or one of another shape than config.json says, raises InputError.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise MissingExtraError.of("safetensors", "nanoflow", "reading model weights") from None
    files = _tensor_files(Path(folder))
    with ExitStack() as stack:
        try:
            handles = [stack.enter_context(safe_open(file, framework="pt", device="cpu")) for file in files]
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot read the weights: {error}", file=folder) from None
        holder = {name: handle for handle in handles for name in handle.keys()}  # noqa: SIM118 (not a dict)

        def read(name: str, shape: tuple[int, ...]) -> Tensor:
            if name not in holder:
                raise InputError(f"the weights have no tensor {name}", file=folder)
            tensor: Tensor = holder[name].get_tensor(name)
            if tuple(tensor.shape) != shape:
                raise InputError(f"{name} has shape {tuple(tensor.shape)}, config.json says {shape}", file=folder)
            if not tensor.is_floating_point():
                raise InputError(
                    f"{name} holds {tensor.dtype} values", file=folder, fix="use the model's unquantized weights"
                )
            return tensor.to(device=placement.device, dtype=placement.dtype)

        return _assemble(config, read, placement.rank, placement.tp)


def _tensor_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            return [folder / name for name in names]
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise InputError("not an index of safetensors files", file=index) from None
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError("no *.safetensors files", file=folder, fix="download the model's safetensors weights")
    return files


def _assemble(config: DecoderConfig, source: Source, rank: int, tp: int) -> Weights:
    config.check_tensor_parallel(tp)
    embedding = source("model.embed_tokens.weight", (config.vocabulary, config.hidden))
    layers = tuple(_layer(config, source, f"model.layers.{number}.", rank, tp) for number in range(config.layers))
    norm = source("model.norm.weight", (config.hidden,))
    tied = config.tied_embeddings
    head = embedding if tied else source("lm_head.weight", (config.vocabulary, config.hidden))
    return Weights(embedding=embedding, layers=layers, norm=norm, head=head)


def _layer(config: DecoderConfig, source: Source, prefix: str, rank: int, tp: int) -> LayerWeights:
    hidden, heads, keys = config.hidden, config.heads * config.head_size, config.kv_heads * config.head_size
    parts = [
        _shard(source(f"{prefix}self_attn.{name}_proj.weight", (rows, hidden)), 0, rank, tp)
        for name, rows in (("q", heads), ("k", keys), ("v", keys))
    ]
    o = _shard(source(f"{prefix}self_attn.o_proj.weight", (hidden, heads)), 1, rank, tp)
    router, gate_up, down = _mlp(config, source, prefix, rank, tp)
    return LayerWeights(
        attention_norm=source(f"{prefix}input_layernorm.weight", (hidden,)),
        kqv=torch.cat(parts),
        o=o,
        mlp_norm=source(f"{prefix}post_attention_layernorm.weight", (hidden,)),
        gate_up=gate_up,
        down=down,
        router=router,
    )


def _mlp(
    config: DecoderConfig, source: Source, prefix: str, rank: int, tp: int
) -> tuple[Tensor | None, Tensor, Tensor]:
    hidden, width = config.hidden, config.intermediate
    router = None
    stems = [(f"{prefix}mlp.", "gate_proj", "up_proj", "down_proj")]
    if config.experts:
        moe = f"{prefix}block_sparse_moe."
        router = source(f"{moe}gate.weight", (config.experts, hidden))
        stems = [(f"{moe}experts.{expert}.", "w1", "w3", "w2") for expert in range(config.experts)]
    gate_up, down = [], []
    for stem, gate, up, out in stems:
        halves = [_shard(source(f"{stem}{name}.weight", (width, hidden)), 0, rank, tp) for name in (gate, up)]
        gate_up.append(torch.cat(halves))
        down.append(_shard(source(f"{stem}{out}.weight", (hidden, width)), 1, rank, tp))
    return router, torch.stack(gate_up), torch.stack(down)


def _shard(tensor: Tensor, axis: int, rank: int, tp: int) -> Tensor:
    """The ``rank``-th of ``tp`` equal slices along ``axis``, copied so that the whole can be freed."""
    return tensor.chunk(tp, axis)[rank].clone() if tp > 1 else tensor
