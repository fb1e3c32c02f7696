"""Operation times from the cost model, for GPUs that nobody measured: a prediction, and labelled as one.

Each operation takes t = max(FLOP / rate, bytes / bandwidth, network bytes / link) + launch, at the rates that the
performance model's efficiencies say kernels reach: the same ones that its step clock has.
"""

from __future__ import annotations

from melange.catalog.hardware import Gpu
from melange.catalog.models import Model
from melange.nanoflow.costs import BatchShape, Device, OperationCost, layer_costs
from melange.nanoflow.operation_times import OperationTimes
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.hardware import ModelledEngine, gemm_flops
from melange.perfmodel.operations import OperationKind, layer_kinds
from melange.perfmodel.overlap import LAUNCH_S
from melange.serving.efficiencies import Efficiencies


def modelled_times(
    model: Model,
    gpu: Gpu,
    *,
    context_tokens: float,
    prompt_tokens: float,
    tp: int = 1,
    precision: str = "fp16",
    max_tokens: int = 8192,
    calibration: Calibration | None = None,
) -> OperationTimes:
    """Times of one layer's operations at up to ``max_tokens`` tokens.

    ``context_tokens`` is the decode requests' mean context, ``prompt_tokens`` the prefilled prompts' length. InputError
    where the model does not divide among ``tp`` GPUs.
    """
    calibration = calibration or Calibration()
    modelled = ModelledEngine(model=model, gpu=gpu, tp=tp, precision=precision)
    mean = {"context_tokens": context_tokens, "prompt_tokens": prompt_tokens}
    points: dict[OperationKind, list[tuple[float, float]]] = {kind: [] for kind in layer_kinds(tp)}
    for n in (1, 2, 4, 8, 16, 32, 64, *range(128, max(max_tokens, 128) + 1, 128)):
        shapes = (
            BatchShape(decode_tokens=n, prefill_tokens=0, **mean),
            BatchShape(decode_tokens=0, prefill_tokens=n, **mean),
        )
        decodes, prompts = (layer_costs(model, shape, gpus=tp, precision=precision) for shape in shapes)
        for decode, prompt in zip(decodes, prompts, strict=True):
            cost = prompt if prompt.kind == "prefill_attention" else decode
            points[cost.kind].append((n, operation_s(cost, modelled, calibration.efficiencies_of(gpu.name))))
    return OperationTimes(
        model=model.name,
        gpu=gpu.name,
        tp=tp,
        precision=precision,
        context_tokens=context_tokens,
        points={kind: tuple(rows) for kind, rows in points.items()},
        source=f"modelled, not measured: roofline of the catalog's figures, {calibration.describe()}",
    )


def operation_s(cost: OperationCost, modelled: ModelledEngine, efficiencies: Efficiencies) -> float:
    """Seconds of one operation alone on the modelled engine's GPUs.

    Prefill attention computes half of the cost's FLOPs: kernels use the causal mask that the cost leaves out.
    """
    device = Device.of(modelled.gpu, gpus=modelled.tp, precision=modelled.precision)
    flops = gemm_flops(modelled, modelled.precision, efficiencies) * modelled.tp
    if cost.kind == "prefill_attention":
        flops *= 2 * efficiencies.attention_share / efficiencies.gemm_scale
    cached = cost.kind.endswith("attention")
    bandwidth = efficiencies.kv_bandwidth_share if cached else efficiencies.bandwidth_share
    launch = efficiencies.collective_latency_s if cost.network_bytes else LAUNCH_S
    times = (
        cost.flop / flops,
        cost.memory_bytes / (device.bandwidth_bytes_s * bandwidth),
        cost.network_bytes / (device.network_bytes_s * efficiencies.network_share),
    )
    return max(times) + launch
