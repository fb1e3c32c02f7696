"""NanoFlow's cost model: what each operation of a layer costs, what bounds a service, and its optimal throughput.

Formulae from arXiv 2408.12757, section 3. Everything is a total over the N GPUs of one tensor-parallel replica: C
FLOP/s, BW and M memory bytes/s and bytes, NET one-way network bytes/s. S is bytes an element, P parameters (those that
one token uses, for compute), D hidden size, L layers, p and d mean input and output tokens, kappa KV bytes a token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from melange.catalog.hardware import Gpu
from melange.catalog.models import Model
from melange.catalog.precisions import BYTES_PER_PARAMETER
from melange.errors import InputError
from melange.perfmodel.operations import OperationKind, layer_kinds
from melange.serving.efficiencies import DEFAULT_GEMM_SHARE, GEMM_SHARE

Bound = Literal["compute", "memory", "network"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The N GPUs of one replica taken together, at one precision.

    ``gemm_flop_s`` is the rate that a large GEMM achieves, ``compute_flop_s`` the peak.
    """

    gpus: int
    memory_bytes: float
    compute_flop_s: float
    bandwidth_bytes_s: float
    network_bytes_s: float
    gemm_flop_s: float

    @classmethod
    def of(cls, gpu: Gpu, *, gpus: int = 1, precision: str = "fp16", gemm_tflops: float | None = None) -> Device:
        """``gpus`` GPUs of this type; ``gemm_tflops`` per GPU defaults to what :data:`GEMM_SHARE` says it sustains."""
        if gpus < 1:
            raise InputError(f"{gpus} GPUs", fix="give at least 1")
        peak = gpu.compute_tflops(precision)
        gemm = GEMM_SHARE.get(gpu.name, DEFAULT_GEMM_SHARE) * peak if gemm_tflops is None else gemm_tflops
        if not 0 < gemm <= peak:
            raise InputError(
                f"the GEMM rate is {gemm:g} TFLOPS", fix=f"give a rate up to {gpu.name}'s peak of {peak:g}"
            )
        return cls(
            gpus=gpus,
            memory_bytes=gpus * gpu.memory_gib * 2**30,
            compute_flop_s=gpus * peak * 1e12,
            bandwidth_bytes_s=gpus * gpu.bandwidth_gb_s * 1e9,
            network_bytes_s=gpus * gpu.interconnect_gb_s * 1e9,
            gemm_flop_s=gpus * gemm * 1e12,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchShape:
    """One iteration's dense batch: decode requests at their mean context, and tokens of prompts being prefilled."""

    decode_tokens: float
    prefill_tokens: float
    context_tokens: float
    prompt_tokens: float

    @classmethod
    def steady(cls, *, input_tokens: float, output_tokens: float, batch_tokens: float) -> BatchShape:
        """The mix of a service in its steady state: d of every p + d tokens decode, at the mean context p + d/2."""
        _check_sizes(input_tokens, output_tokens)
        decode = batch_tokens * output_tokens / (input_tokens + output_tokens)
        return cls(
            decode_tokens=decode,
            prefill_tokens=batch_tokens - decode,
            context_tokens=input_tokens + output_tokens / 2,
            prompt_tokens=input_tokens,
        )

    @property
    def tokens(self) -> float:
        return self.decode_tokens + self.prefill_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationCost:
    """What one operation of one layer costs on one batch, over all N GPUs."""

    kind: OperationKind
    flop: float
    memory_bytes: float
    network_bytes: float = 0.0

    def times_s(self, device: Device) -> Mapping[Bound, float]:
        """Time by each resource at the device's peak rates; the largest binds."""
        return MappingProxyType(
            {
                "compute": self.flop / device.compute_flop_s,
                "memory": self.memory_bytes / device.bandwidth_bytes_s,
                "network": self.network_bytes / device.network_bytes_s,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAnalysis:
    """What bounds one model on N GPUs for requests of one mean size, and how fast it could be.

    Times are of one iteration over all layers: T_comp = 2 B P / C, T_mem = M / BW, T_net = 4 (N-1) B D S L / NET.
    ``t_r`` = T_mem / T_comp *at the batch that fits in memory*: below 1 the service is bound by compute.
    ``optimal_tokens_per_s_per_gpu`` = C_gemm / (2 P N) counts input and output tokens; ``attainable`` is the same
    with the slower of the three resources. Both are bounds, not predictions.
    """

    model: Model
    device: Device
    precision: str
    batch: BatchShape
    requests: float
    t_comp_s: float
    t_mem_s: float
    t_net_s: float
    bound: Bound
    optimal_tokens_per_s_per_gpu: float
    attainable_tokens_per_s_per_gpu: float
    operations: tuple[OperationCost, ...]

    @property
    def t_r(self) -> float:
        return self.t_mem_s / self.t_comp_s


def analyse(
    model: Model,
    device: Device,
    *,
    input_tokens: float,
    output_tokens: float,
    precision: str = "fp16",
    batch_tokens: float | None = None,
) -> ServiceAnalysis:
    """Analyse a service of this mean request size; ``batch_tokens`` defaults to the batch that fills the memory.

    Raises InputError where the model does not fit, saying by how much.
    """
    requests = requests_that_fit(model, device, input_tokens, output_tokens, precision)
    tokens = requests * (input_tokens + output_tokens) / output_tokens if batch_tokens is None else batch_tokens
    if not (math.isfinite(tokens) and tokens > 0):
        raise InputError(f"the batch holds {tokens} tokens", fix="give a positive number of tokens")
    batch = BatchShape.steady(input_tokens=input_tokens, output_tokens=output_tokens, batch_tokens=tokens)
    flop = 2 * tokens * model.active_parameters
    network = 4 * (device.gpus - 1) * tokens * model.hidden * _element_bytes(precision) * model.layers
    t_mem = device.memory_bytes / device.bandwidth_bytes_s
    t_net = network / device.network_bytes_s
    times: dict[Bound, float] = {"compute": flop / device.compute_flop_s, "memory": t_mem, "network": t_net}
    achieved = max(flop / device.gemm_flop_s, t_mem, t_net)
    return ServiceAnalysis(
        model=model,
        device=device,
        precision=precision,
        batch=batch,
        requests=requests,
        t_comp_s=times["compute"],
        t_mem_s=t_mem,
        t_net_s=t_net,
        bound=max(times, key=lambda name: times[name]),
        optimal_tokens_per_s_per_gpu=optimal_tokens_per_s_per_gpu(model, device),
        attainable_tokens_per_s_per_gpu=tokens / achieved / device.gpus,
        operations=layer_costs(model, batch, gpus=device.gpus, precision=precision),
    )


def optimal_tokens_per_s_per_gpu(model: Model, device: Device) -> float:
    """C_gemm / (2 P N), equation 5: all input and output tokens at the achievable GEMM rate."""
    return device.gemm_flop_s / (2 * model.active_parameters * device.gpus)


def requests_that_fit(
    model: Model, device: Device, input_tokens: float, output_tokens: float, precision: str = "fp16"
) -> float:
    """B_req = (M - P S) / (kappa (p + d/2)): requests whose KV cache fits beside the weights, not rounded."""
    _check_sizes(input_tokens, output_tokens)
    weights = model.weight_bytes(precision)
    free = device.memory_bytes - weights
    if free <= 0:
        needed = math.floor(weights * device.gpus / device.memory_bytes) + 1
        raise InputError(
            f"{model.name} in {precision} takes {weights / 1e9:.1f} GB, {-free / 1e9:.1f} GB more than "
            f"{device.gpus} such GPU{'s' if device.gpus > 1 else ''} hold{'' if device.gpus > 1 else 's'}",
            fix=f"use at least {needed} (--tp) or a smaller precision",
        )
    kappa = model.kv_bytes_per_token(_element_bytes(precision))
    return free / (kappa * (input_tokens + output_tokens / 2))


def service_batch(
    model: Model,
    device: Device,
    *,
    input_tokens: float,
    output_tokens: float,
    precision: str = "fp16",
    batch_tokens: int | None = None,
    limit_tokens: int = 2048,
) -> tuple[int, int]:
    """(tokens, decode requests among them) of a service's steady batch, whole.

    ``batch_tokens`` defaults to what fills the memory, at most ``limit_tokens``; more than fits raises InputError.
    """
    decode_share = output_tokens / (input_tokens + output_tokens)
    fitting = int(requests_that_fit(model, device, input_tokens, output_tokens, precision) / decode_share)
    if fitting < 2:
        raise InputError(f"{model.name} leaves no room for the KV cache of such requests", fix="use more GPUs")
    if batch_tokens is not None and batch_tokens > fitting:
        raise InputError(
            f"a steady batch of {batch_tokens} tokens does not fit: the memory holds {fitting}",
            fix="use a smaller batch or more GPUs",
        )
    tokens = min(fitting, limit_tokens) if batch_tokens is None else batch_tokens
    return tokens, round(tokens * decode_share)


def layer_costs(
    model: Model, batch: BatchShape, *, gpus: int = 1, precision: str = "fp16"
) -> tuple[OperationCost, ...]:
    """Every operation of one layer on this batch, in the order of the data flow; collectives where ``gpus`` > 1.

    Dense: 2 n N_w K_w FLOP; bytes are weights, input and output. Attention: 4 n ctx D FLOP (the prompt's full length
    for prefill: the paper does not use the causal mask); bytes are queries, output, the KV of the mean context (half
    the prompt for prefill, read once a prompt) and the new tokens' KV. Each all-reduce moves 2 (N-1) n D S bytes.
    Of a mixture of experts, the weights read are those of the distinct experts that n tokens are expected to touch.
    """
    size, n = _element_bytes(precision), batch.tokens
    queries, kv = model.heads * model.head_size, model.kv_hidden
    kv_token = 2 * kv * size
    decode_kv = batch.decode_tokens * (batch.context_tokens + 1) * kv_token
    prompts = batch.prefill_tokens / batch.prompt_tokens
    prefill_kv = (prompts * batch.prompt_tokens / 2 + batch.prefill_tokens) * kv_token
    attention = 4 * queries
    reduced = OperationCost(
        kind="o_all_reduce",
        flop=(gpus - 1) * n * model.hidden,
        memory_bytes=2 * (gpus - 1) * n * model.hidden * size,
        network_bytes=2 * (gpus - 1) * n * model.hidden * size,
    )
    costs: dict[OperationKind, OperationCost] = {
        "kqv": _dense("kqv", n, queries + 2 * kv, model.hidden, precision),
        "decode_attention": OperationCost(
            kind="decode_attention",
            flop=attention * batch.decode_tokens * batch.context_tokens,
            memory_bytes=decode_kv + 2 * batch.decode_tokens * queries * size,
        ),
        "prefill_attention": OperationCost(
            kind="prefill_attention",
            flop=attention * batch.prefill_tokens * batch.prompt_tokens,
            memory_bytes=prefill_kv + 2 * batch.prefill_tokens * queries * size,
        ),
        "o": _dense("o", n, model.hidden, queries, precision),
        "o_all_reduce": reduced,
        "up_gate": _experts("up_gate", model, n, 2 * model.intermediate, model.hidden, precision),
        "down": _experts("down", model, n, model.hidden, model.intermediate, precision),
        "down_all_reduce": OperationCost(
            kind="down_all_reduce",
            flop=reduced.flop,
            memory_bytes=reduced.memory_bytes,
            network_bytes=reduced.network_bytes,
        ),
    }
    return tuple(costs[kind] for kind in layer_kinds(gpus))


def _element_bytes(precision: str) -> float:
    """Activations and KV stay in 16 bits where weights are smaller."""
    return max(BYTES_PER_PARAMETER[precision], 2.0)


def _dense(kind: OperationKind, n: float, width_out: int, width_in: int, precision: str) -> OperationCost:
    weights = width_out * width_in * BYTES_PER_PARAMETER[precision]
    return OperationCost(
        kind=kind,
        flop=2 * n * width_out * width_in,
        memory_bytes=weights + n * (width_in + width_out) * _element_bytes(precision),
    )


def _experts(
    kind: OperationKind, model: Model, n: float, width_out: int, width_in: int, precision: str
) -> OperationCost:
    """A dense operation that ``experts_per_token`` of ``experts`` copies of the weights compute for each token."""
    active, experts = model.experts_per_token, model.experts
    one = _dense(kind, active * n, width_out, width_in, precision)
    distinct = experts * (1 - (1 - active / experts) ** n)
    weights = width_out * width_in * BYTES_PER_PARAMETER[precision]
    return OperationCost(kind=kind, flop=one.flop, memory_bytes=one.memory_bytes + (distinct - 1) * weights)


def _check_sizes(input_tokens: float, output_tokens: float) -> None:
    for name, value in (("input", input_tokens), ("output", output_tokens)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"mean {name} tokens are {value}", fix="give positive sizes")
