"""measured_times: an iteration's times from measured kernels, in place of datasheet figures and efficiencies alone.

Efficiencies count as what they are relative to their priors: 1 where nothing was calibrated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from melange.catalog.precisions import BYTES_PER_PARAMETER, FULL_PRECISIONS
from melange.perfmodel.engine_costs import EngineCosts
from melange.perfmodel.kernels import Kernels, kernels_of
from melange.perfmodel.sizes import (
    INDEX_SHARE,
    activation_bytes,
    dense_layer_parameters,
    dense_precision,
    embedding_parameters,
    expert_parameters,
    latent_flop,
    pair_flop,
)
from melange.serving.efficiencies import PRIORS, Efficiencies

if TYPE_CHECKING:
    from melange.perfmodel.hardware import ModelledEngine

_SMALL_KERNELS = 5  # a layer: two norms, rotation, activation, writing the cache
_PRODUCTS = 4  # a layer: query with key and value, output, gate with up, down
_COLLECTIVES = 2  # a layer


def measured_times(
    modelled: ModelledEngine, eff: Efficiencies, costs: EngineCosts, kv_bytes: float
) -> dict[str, float]:
    """Fields of a StepClock in seconds; ``kv_bytes`` is what a token keeps on one GPU in the layers that keep all."""
    model, tp = modelled.model, modelled.tp
    kernels = kernels_of(modelled.gpu)
    slow = costs.kernel_time
    dense = kernels.gemm(dense_precision(model, modelled.precision))
    nk, n, k = _sums(modelled)
    head = embedding_parameters(model) / tp
    sixteen = kernels.gemm("bf16")
    head_s = sixteen.read(head, model.vocabulary / tp, model.hidden)
    read, computed = _rel(eff, "bandwidth_share"), _rel(eff, "gemm_scale")
    launches = _launches(modelled, kernels)
    expert = kernels.expert(modelled.precision)
    inside = expert_parameters(model) / tp
    narrowed = _narrowed(modelled, eff)
    routed = 2.0 * inside * model.experts_per_token / model.experts * expert.s_per_flop if inside else 0.0
    return {
        "overhead_s": costs.host_s * _rel(eff, "overhead_s") + slow * launches,
        "per_sequence_s": costs.host_per_sequence_s * _rel(eff, "per_sequence_s")
        + sixteen.compute(head, 0.0, 0.0) * slow / computed,
        "front_s": costs.front_s,
        "per_request_s": costs.host_per_request_s * _rel(eff, "per_request_s"),
        "weights_s": slow * (dense.read(nk, n, k) + head_s) / read,
        "expert_weights_s": slow * inside * BYTES_PER_PARAMETER[modelled.precision] * expert.s_per_byte / read,
        "compute_s_per_token": slow * (dense.compute(nk, n, k) + routed) / (computed * narrowed),
        "kv_read_s_per_token": slow * _decode_s(modelled, eff, kernels, kv_bytes),
        "attention_s_per_pair": slow * pair_flop(model) / (kernels.prefill_flops * tp) / _rel(eff, "attention_share"),
        "other_s_per_token": costs.host_per_token_s * _rel(eff, "per_token_s")
        + slow
        * eff.activation_passes
        * activation_bytes(model, tp)
        / (modelled.gpu.bandwidth_gb_s * 1e9 * PRIORS["bandwidth_share"].mean),
        **_collectives(modelled, eff, kernels),
    }


def _rel(eff: Efficiencies, name: str) -> float:
    return float(getattr(eff, name) / PRIORS[name].mean)


def _narrowed(modelled: ModelledEngine, eff: Efficiencies) -> float:
    if modelled.precision in FULL_PRECISIONS:
        return 1.0
    return _rel(eff, "dequantised_gemm_share" if modelled.is_stored_only else "eight_bit_gemm_share")


def _sums(modelled: ModelledEngine) -> tuple[float, float, float]:
    """Sums over all layers' dense products on one GPU: of n k, of n, of k (a Megatron split: columns, then rows)."""
    model, tp = modelled.model, modelled.tp
    dense = model.layers - model.sparse_layers
    width = model.heads * model.head_size
    mixing = model.attention_layers + model.linear_layers
    n = mixing * ((width + 2.0 * model.kv_hidden) / tp + model.hidden) + dense * (
        2.0 * model.intermediate / tp + model.hidden
    )
    k = mixing * (model.hidden + width / tp) + dense * (model.hidden + model.intermediate / tp)
    return dense_layer_parameters(model) / tp, n, k


def _launches(modelled: ModelledEngine, kernels: Kernels) -> float:
    """Seconds of an iteration that kernels take whatever they work on."""
    model = modelled.model
    dense = kernels.gemm(dense_precision(model, modelled.precision))
    small = kernels.gemm("bf16").launch_s
    products = model.layers * _PRODUCTS - 2 * model.sparse_layers
    found = products * dense.launch_s + model.layers * _SMALL_KERNELS * small
    found += (model.attention_layers + model.linear_layers) * kernels.attention_launch_s
    return found + model.sparse_layers * kernels.expert(modelled.precision).launch_s


def _decode_s(modelled: ModelledEngine, eff: Efficiencies, kernels: Kernels, kv_bytes: float) -> float:
    """Decode attention per cached token, as :func:`melange.perfmodel.hardware.step_clock` documents it."""
    model = modelled.model
    element = min(modelled.engine.kv_bytes_per_element, 2.0)
    rate = kernels.kv_bytes_s.get(element, kernels.kv_bytes_s[2.0])
    read = kv_bytes / (rate * _rel(eff, "kv_bandwidth_share"))
    if model.kv_latent_elements:
        flop = latent_flop(model) / modelled.tp
        read = float(np.hypot(read, flop / (kernels.prefill_flops * _rel(eff, "attention_share"))))
    return read * INDEX_SHARE if model.attended_tokens else read


def _collectives(modelled: ModelledEngine, eff: Efficiencies, kernels: Kernels) -> dict[str, float]:
    """All-reduces, where their link was measured: of the next number of GPUs, or the largest with latency grown on."""
    model, tp = modelled.model, modelled.tp
    if tp == 1 or not kernels.all_reduce:
        return {}
    near = min((gpus for gpus in kernels.all_reduce if gpus >= tp), default=max(kernels.all_reduce))
    latency, rate = kernels.all_reduce[near]
    latency *= max(tp / near, 1.0)
    ring = 2.0 * (tp - 1) / tp
    return {
        "collective_s": _COLLECTIVES * model.layers * latency * _rel(eff, "collective_latency_s"),
        "collective_s_per_token": _COLLECTIVES
        * model.layers
        * ring
        * model.hidden
        * 2.0
        / (rate * _rel(eff, "network_share")),
    }
