"""From catalog figures to a StepClock: weights, KV capacity, GEMM rates, collectives of one configuration.

Per-token work follows from the model's shape (NanoFlow, arXiv 2408.12757, section 3): 2 FLOP per active parameter, 4
FLOP per (query, key) pair, head and layer, 2 all-reduces per layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.catalog.hardware import Gpu
from melange.catalog.models import Model
from melange.catalog.precisions import BYTES_PER_PARAMETER, FULL_PRECISIONS
from melange.errors import InputError
from melange.perfmodel.clock import StepClock
from melange.perfmodel.engine_costs import EngineCosts, engine_costs
from melange.perfmodel.kernels import kin_of
from melange.perfmodel.measured import measured_times
from melange.perfmodel.sizes import (
    INDEX_SHARE,
    activation_bytes,
    dense_bytes,
    embedding_parameters,
    expert_parameters,
    latent_flop,
    layer_parameters,
    pair_flop,
    weights_bytes,
)
from melange.serving.clocks import ClockKind
from melange.serving.config import ConfigKey, check_limits
from melange.serving.efficiencies import DEFAULT_GEMM_SHARE, GEMM_SHARE, Efficiencies
from melange.serving.engine_settings import EngineSettings, chosen_settings, default_settings
from melange.serving.speculation import Speculation

GIB = 2.0**30


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledEngine:
    """One model on ``tp`` GPUs of a type, in a precision, under an engine's settings: what a StepClock is built from.

    ``settings`` None takes what the engine would choose on this GPU. ``kv_dtype``, ``max_batched_tokens`` and
    ``max_num_seqs`` are a config's own choices, in place of what the settings say; None leaves a limit to them.
    ``clock`` says what times are taken from (:data:`melange.serving.clocks.ClockKind`), ``engine_version`` whose costs
    are added to those of kernels, None the newest's. ``speculation`` is no part of a config's key yet: plans and files
    cannot hold it.
    """

    model: Model
    gpu: Gpu
    tp: int = 1
    precision: str = "fp16"
    settings: EngineSettings | None = None
    kv_dtype: str = "auto"
    max_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    clock: ClockKind = "kernels"
    engine_version: str | None = None
    speculation: Speculation | None = None

    def __post_init__(self) -> None:
        if self.precision not in BYTES_PER_PARAMETER:
            raise InputError(f"precision is {self.precision!r}", fix=f"use one of {', '.join(BYTES_PER_PARAMETER)}")
        if self.tp < 1 or self.model.heads % self.tp:
            raise InputError(
                f"{self.model.name}: {self.model.heads} attention heads do not divide among {self.tp} GPUs",
                fix="use a tensor-parallel degree that divides the heads",
            )
        if max(self.model.kv_heads, self.tp) % min(self.model.kv_heads, self.tp):
            raise InputError(
                f"{self.model.name}: {self.model.kv_heads} KV heads do not divide among {self.tp} GPUs",
                fix="use a tensor-parallel degree that divides the KV heads or is a multiple of them",
            )
        check_limits(self.max_batched_tokens, self.max_num_seqs)
        settings = chosen_settings(
            self.settings or default_settings(self.gpu),
            kv_dtype=self.kv_dtype,
            max_batched_tokens=self.max_batched_tokens,
            max_num_seqs=self.max_num_seqs,
        )
        object.__setattr__(self, "settings", settings)

    @property
    def engine(self) -> EngineSettings:
        assert self.settings is not None
        return self.settings

    @property
    def key(self) -> ConfigKey:
        """What estimates of it are filed under."""
        return ConfigKey(
            self.model.name,
            self.gpu.name,
            self.tp,
            self.precision,
            self.engine.name,
            self.kv_dtype,
            self.max_batched_tokens,
            self.max_num_seqs,
        )

    @property
    def costs(self) -> EngineCosts | None:
        """What the engine adds to its kernels' times; None where the datasheet's clock is asked for or all there is.

        That is so of a GPU that is like none whose kernels were measured, and of engines that attended on vector units,
        whose kernels were others.
        """
        if self.clock == "datasheet" or self.engine.vector_attention or kin_of(self.gpu) is None:
            return None
        return engine_costs(self.gpu, self.engine.name, self.engine_version)

    @property
    def max_request_tokens(self) -> int:
        """Longest request (input + output) that the engine accepts."""
        return self.engine.max_model_len_tokens or self.model.max_context_tokens

    @property
    def is_stored_only(self) -> bool:
        """Whether the precision only shrinks the weights: the GPU then computes at 16 bits."""
        return self.precision not in FULL_PRECISIONS and not self.gpu.is_native(self.precision)

    def describe(self) -> str:
        return f"{self.model.name} on {self.tp}x{self.gpu.name} ({self.precision})"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes per GPU: what the engine may use, and what goes to weights, activations and fixed reserves.

    ``kv_bytes`` is the rest; negative when the model does not fit.
    """

    usable_bytes: float
    weights_bytes: float
    activation_bytes: float
    reserved_bytes: float

    @property
    def kv_bytes(self) -> float:
        return self.usable_bytes - self.weights_bytes - self.activation_bytes - self.reserved_bytes


def kv_bytes_per_token(modelled: ModelledEngine) -> float:
    """KV bytes of one token on one of the modelled engine's GPUs, in the layers that keep every token.

    KV heads are repeated where GPUs outnumber them; a latent, which all heads share, is whole on each.
    """
    model = modelled.model
    return _kv_elements(modelled) * model.growing_layers * modelled.engine.kv_bytes_per_element


def _kv_elements(modelled: ModelledEngine) -> float:
    """Elements of one token in one layer on one GPU."""
    model = modelled.model
    if model.kv_latent_elements:
        return float(model.kv_latent_elements)
    return max(model.kv_heads / modelled.tp, 1.0) * (model.head_size + model.value_size)


def kept_beside(modelled: ModelledEngine) -> dict[str, float]:
    """What layers keep that do not keep every token, as a StepClock's fields count it."""
    model, tp = modelled.model, modelled.tp
    one = _kv_elements(modelled) * model.growing_layers
    state = model.state_bytes / tp / (one * modelled.engine.kv_bytes_per_element)
    if model.attended_tokens:  # every token is kept, but beside its index only what is picked is read
        return {
            "window_tokens": model.attended_tokens,
            "window_read_share": 1.0 / INDEX_SHARE,
            "window_pair_share": 1.0 / INDEX_SHARE,
            "state_tokens": state,
        }
    if not model.bounded_layers:
        return {"state_tokens": state}
    own = model.window_kv_elements
    ratio = max(own / tp, own / model.kv_heads) if own else _kv_elements(modelled)
    share = ratio * model.bounded_layers / one
    return {
        "window_tokens": model.window_tokens,
        "window_kv_share": share,
        "window_read_share": share,
        "window_pair_share": model.bounded_layers / model.growing_layers,
        "state_tokens": state,
    }


def memory_use(modelled: ModelledEngine) -> MemoryUse:
    """How one GPU's memory is spent.

    Activations are the peak of the engine's largest iteration: four hidden-size and three intermediate-size 16-bit rows
    per batched token, or, once those are gone, 32-bit logits with a copy per sequence, whichever is more. (Qwen3-32B
    in 16 bits on one H100 took a prompt of 32,000 tokens in vLLM 0.11, which the sum of both would not leave room for.)
    """
    model, engine, tp = modelled.model, modelled.engine, modelled.tp
    rows = 4.0 * model.hidden + 3.0 * model.intermediate * model.experts_per_token / tp
    logits = 2.0 * 4.0 * engine.max_num_seqs * model.vocabulary / tp
    return MemoryUse(
        usable_bytes=modelled.gpu.memory_gib * GIB * engine.memory_fraction,
        weights_bytes=weights_bytes(model, modelled.precision) / tp,
        activation_bytes=max(2.0 * rows * engine.max_batched_tokens, logits),
        reserved_bytes=engine.reserved_gib * GIB,
    )


def kv_capacity_tokens(modelled: ModelledEngine) -> int:
    """Tokens that the KV cache holds, in whole blocks; 0 when the model does not fit."""
    known = modelled.engine.kv_cache_tokens
    if known is not None:
        # vLLM counts a token as if every layer kept it.
        known = int(known * (1.0 + kept_beside(modelled).get("window_kv_share", 0.0)))
        return known // modelled.engine.block_tokens * modelled.engine.block_tokens
    blocks = memory_use(modelled).kv_bytes / (kv_bytes_per_token(modelled) * modelled.engine.block_tokens)
    return max(int(blocks), 0) * modelled.engine.block_tokens


def missing_memory_gib(modelled: ModelledEngine) -> float:
    """GiB per GPU by which the model, with room for one block, exceeds the memory; 0 when it fits."""
    if kv_capacity_tokens(modelled):
        return 0.0
    block = kv_bytes_per_token(modelled) * modelled.engine.block_tokens
    return (block - memory_use(modelled).kv_bytes) / GIB


def gemm_share(modelled: ModelledEngine) -> float:
    """Share of the fp16 peak that large matrix products reach on this GPU with this engine's libraries."""
    usual = GEMM_SHARE.get(modelled.gpu.name, DEFAULT_GEMM_SHARE)
    return modelled.engine.gemm_shares.get(modelled.gpu.name, usual)


def gemm_flops(modelled: ModelledEngine, precision: str, efficiencies: Efficiencies) -> float:
    """FLOP/s of one GPU that matrix products reach; 4-bit weights, and precisions only stored, compute at 16 bits."""
    gpu = modelled.gpu
    native = gpu.is_native(precision)
    peak = gpu.compute_tflops(precision)
    share = min(gemm_share(modelled) * efficiencies.gemm_scale, 1.0)
    if precision not in FULL_PRECISIONS:
        share *= efficiencies.eight_bit_gemm_share if native else efficiencies.dequantised_gemm_share
    return peak * 1e12 * share


def step_clock(
    modelled: ModelledEngine, efficiencies: Efficiencies | None = None, costs: EngineCosts | None = None
) -> StepClock:
    """Iteration-time parameters of a configuration. A model that does not fit raises InputError saying by how much.

    Kernels take the times that were measured of them (:mod:`melange.perfmodel.kernels`), and the engine adds its costs;
    without :attr:`ModelledEngine.costs` all of it follows from the datasheet's figures and the efficiencies. ``costs``
    stand in place of the engine's own, as when they are fitted.
    """
    eff = efficiencies or Efficiencies()
    model, engine = modelled.model, modelled.engine
    missing = missing_memory_gib(modelled)
    if missing:
        raise InputError(
            f"{modelled.describe()} does not fit: {missing:.1f} GiB per GPU are missing",
            fix="use more GPUs, a smaller precision or a larger GPU",
        )
    costs = costs or modelled.costs
    times = _datasheet_links(modelled, eff)
    if costs is None:
        times |= _datasheet_times(modelled, eff)
    else:
        times |= measured_times(modelled, eff, costs, kv_bytes_per_token(modelled))
    return StepClock(
        **times,
        expert_share=model.experts_per_token / model.experts,
        recompute_share=eff.recompute_share,
        kv_usable_share=eff.kv_usable_share,
        kv_capacity_tokens=kv_capacity_tokens(modelled),
        max_num_seqs=engine.max_num_seqs,
        max_batched_tokens=engine.max_batched_tokens,
        block_tokens=engine.block_tokens,
        chunked_prefill=engine.chunked_prefill,
        **_speculative(modelled),
        **kept_beside(modelled),
    )


def _speculative(modelled: ModelledEngine) -> dict[str, float]:
    """What speculation changes of a StepClock."""
    if modelled.speculation is None:
        return {}
    return {
        "drafted_tokens": float(modelled.speculation.tokens),
        "yielded_tokens": modelled.speculation.yielded_tokens,
        "draft_share": modelled.speculation.draft_share(modelled.model.layers),
    }


def _datasheet_times(modelled: ModelledEngine, eff: Efficiencies) -> dict[str, float]:
    """A StepClock's other times from the datasheet's figures and efficiencies."""
    model, gpu, tp = modelled.model, modelled.gpu, modelled.tp
    flops = gemm_flops(modelled, modelled.precision, eff) * tp
    pair_flops = min(gemm_share(modelled) * eff.attention_share, 1.0) * gpu.tflops["fp16"] * 1e12
    bandwidth = gpu.bandwidth_gb_s * 1e9
    embedding = embedding_parameters(model)
    per_parameter = 1.0 / (bandwidth * eff.bandwidth_share * tp)
    head_bytes = 2.0 * embedding if modelled.precision not in FULL_PRECISIONS else 0.0
    experts = expert_parameters(model)
    # The input embedding is looked up, never read whole; the output layer is read once an iteration.
    dense = model.parameters - experts - (0.0 if model.tied_embeddings else embedding)
    head_s = head_bytes / (bandwidth * eff.bandwidth_share * tp)
    in_layers = dense - embedding if head_bytes else dense
    return {
        "overhead_s": eff.overhead_s,
        # Logits are computed per sequence, not per prompt token.
        "per_sequence_s": eff.per_sequence_s + 2.0 * embedding / (gemm_flops(modelled, "fp16", eff) * tp),
        "per_request_s": eff.per_request_s,
        "weights_s": in_layers * dense_bytes(model, modelled.precision) * per_parameter + head_s,
        "expert_weights_s": experts * BYTES_PER_PARAMETER[modelled.precision] * per_parameter,
        "kv_read_s_per_token": _decode_attention_s(modelled, eff),
        "compute_s_per_token": 2.0 * layer_parameters(model) / flops,
        "attention_s_per_pair": pair_flop(model) / (pair_flops * tp),
        "other_s_per_token": eff.per_token_s
        + eff.activation_passes * activation_bytes(model, tp) / (bandwidth * eff.bandwidth_share),
    }


def _datasheet_links(modelled: ModelledEngine, eff: Efficiencies) -> dict[str, float]:
    """A StepClock's times of all-reduces, also of links that were not measured."""
    model, tp = modelled.model, modelled.tp
    ring = 2.0 * (tp - 1) / tp
    return {
        "collective_s": 2.0 * model.layers * eff.collective_latency_s if tp > 1 else 0.0,
        "collective_s_per_token": 2.0 * model.layers * ring * model.hidden * 2.0 / _link_bytes_s(modelled.gpu, eff),
    }


def _decode_attention_s(modelled: ModelledEngine, efficiencies: Efficiencies) -> float:
    """Decode attention per cached token: the KV read, and the arithmetic where that takes longer.

    That is per query head on vector units, as old engines did; and with latent attention, whose one latent serves all
    heads, on matrix units (DeepSeek-V2, arXiv 2405.04434, section 2.1: queries are projected into the latent space).
    """
    model, gpu = modelled.model, modelled.gpu
    read = kv_bytes_per_token(modelled) / (gpu.bandwidth_gb_s * 1e9 * efficiencies.kv_bandwidth_share)
    if model.kv_latent_elements:
        rate = gemm_share(modelled) * efficiencies.attention_share * gpu.tflops["fp16"] * 1e12
        flop = latent_flop(model) / modelled.tp
        read = float(np.hypot(read, flop / rate))
    if model.attended_tokens:
        return read * INDEX_SHARE
    if not modelled.engine.vector_attention:
        return read
    flop = pair_flop(model) / modelled.tp
    rate = gpu.tflops.get("fp32", gpu.tflops["fp16"] / 4.0) * 1e12 * efficiencies.vector_attention_share
    return float(np.hypot(read, flop / rate))


def _link_bytes_s(gpu: Gpu, efficiencies: Efficiencies) -> float:
    return gpu.interconnect_gb_s * 1e9 * efficiencies.network_share
