"""Physical limits: what share of the hardware's best a measured throughput is, and what binds it.

The best is an engine that wastes nothing: peak FLOP/s and peak bandwidth, perfectly overlapped, and all of the memory
that weights leave free holding KV cache. Per request of i (new) input and d decode steps at batch b::

    compute = (2 P_active (i + d) + pairs * 4 H_q L) / peak FLOP/s
    memory  = (d / b) weights / bandwidth + d (i + o/2) kappa / bandwidth
    optimum = 1 / max(compute, memory),  b = free memory / (kappa (i + o/2))

as in NanoFlow's cost model (arXiv 2408.12757, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from melange.catalog.hardware import Catalog, load_catalog
from melange.measurements.measurement import Measurement
from melange.perfmodel.clock import causal_pairs
from melange.perfmodel.hardware import GIB, ModelledEngine, kv_bytes_per_token
from melange.perfmodel.sizes import embedding_parameters, layer_parameters, weights_bytes

Binding = Literal["FLOPs", "bandwidth", "KV capacity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalLimit:
    """A throughput beside the physical optimum of its configuration and size, in requests/s of one replica.

    ``binding`` is ``FLOPs`` or ``bandwidth``; ``KV capacity`` where reading weights for too small a batch is most of
    the memory time, so that more memory rather than more bandwidth would help.
    """

    point: Measurement
    optimum_rps: float
    binding: Binding

    @property
    def share(self) -> float:
        """Achieved over optimum; above 1 the measurement is impossible."""
        return self.point.achieved_rps / self.optimum_rps

    @property
    def is_impossible(self) -> bool:
        return self.share > 1.0


def physical_limit(point: Measurement, *, catalog: Catalog | None = None) -> PhysicalLimit:
    """The physical optimum at a measured point's configuration and size; unknown GPUs or models raise InputError."""
    catalog = catalog or load_catalog()
    modelled = ModelledEngine(
        model=catalog.model(point.model), gpu=catalog.gpu(point.gpu), tp=point.tp, precision=point.precision
    )
    compute = _compute_s(modelled, point)
    weights, cache = _memory_s(modelled, point)
    if compute >= weights + cache:
        binding: Binding = "FLOPs"
    else:
        binding = "KV capacity" if weights > cache else "bandwidth"
    return PhysicalLimit(point=point, optimum_rps=1.0 / max(compute, weights + cache), binding=binding)


def physical_limits(points: Sequence[Measurement], *, catalog: Catalog | None = None) -> list[PhysicalLimit]:
    """The limits of every valid point with a throughput, in their order."""
    catalog = catalog or load_catalog()
    return [physical_limit(point, catalog=catalog) for point in points if point.valid and point.achieved_rps > 0]


def _new_and_steps(point: Measurement) -> tuple[float, float]:
    return max(point.input_tokens - point.cached_tokens, 1.0), max(point.output_tokens - 1.0, 0.0)


def _compute_s(modelled: ModelledEngine, point: Measurement) -> float:
    model, gpu = modelled.model, modelled.gpu
    new, steps = _new_and_steps(point)
    pairs = float(causal_pairs(new, point.cached_tokens)) + steps * (point.input_tokens + point.output_tokens / 2.0)
    flop = 2.0 * layer_parameters(model) * (new + steps) + 2.0 * embedding_parameters(model) * point.output_tokens
    flop += 2.0 * model.heads * (model.head_size + model.value_size) * model.kept_layers * pairs
    return flop / (gpu.compute_tflops(modelled.precision) * 1e12 * modelled.tp)


def _memory_s(modelled: ModelledEngine, point: Measurement) -> tuple[float, float]:
    """Seconds per request of reading weights and of reading the KV cache."""
    model, gpu, tp = modelled.model, modelled.gpu, modelled.tp
    _, steps = _new_and_steps(point)
    context = point.input_tokens + point.output_tokens / 2.0
    kv = kv_bytes_per_token(modelled)
    stored = weights_bytes(model, modelled.precision) / tp
    free = max(gpu.memory_gib * GIB - stored, kv * context)
    batch = max(free / (kv * context), 1.0)
    # At batch 1 of a mixture of experts only the chosen ones are read: the optimum may read no more than that.
    read = stored * (model.active_parameters / model.parameters)
    bandwidth = gpu.bandwidth_gb_s * 1e9
    return steps / batch * read / bandwidth, steps * context * kv / bandwidth
