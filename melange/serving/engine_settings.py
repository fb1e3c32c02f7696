"""EngineSettings: the limits of a serving engine that shape its iterations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from melange.catalog.hardware import Gpu
from melange.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How an engine batches and what memory it takes.

    ``memory_fraction`` is the share of the GPU's memory that the engine may use; ``reserved_gib`` of that goes to
    neither weights, activations nor KV cache (CUDA context, graphs, communication buffers). ``max_model_len_tokens``
    is the longest request (input + output); None takes the model's own context. ``kv_bytes_per_element`` is 2 for a
    16-bit cache. ``kv_cache_tokens`` is what the engine itself says that its KV cache holds; None has it computed from
    the memory. ``vector_attention`` says that decode attention runs per query head on the vector units, as vLLM's
    first PagedAttention kernels did, rather than on tensor cores with the query heads of a KV head together.
    ``gemm_shares`` names GPUs on which the engine's libraries reach another share of peak than today's do.
    """

    name: str = "vllm"
    max_num_seqs: int = 256
    max_batched_tokens: int = 2048
    block_tokens: int = 16
    memory_fraction: float = 0.9
    reserved_gib: float = 0.5
    kv_bytes_per_element: float = 2.0
    kv_cache_tokens: int | None = None
    chunked_prefill: bool = True
    vector_attention: bool = False
    max_model_len_tokens: int | None = None
    gemm_shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_batched_tokens", "block_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or value < 1 or int(value) != value:
                raise InputError(f"engine {self.name}: {name} is {value}", fix="give a whole number of at least 1")
        if not 0 < self.memory_fraction <= 1:
            raise InputError(
                f"engine {self.name}: memory_fraction is {self.memory_fraction}", fix="give a share above 0, up to 1"
            )
        if not self.reserved_gib >= 0 or not self.kv_bytes_per_element > 0:
            raise InputError(
                f"engine {self.name}: reserved_gib {self.reserved_gib}, kv_bytes_per_element "
                f"{self.kv_bytes_per_element}",
                fix="give reserved_gib >= 0 and kv_bytes_per_element > 0",
            )
        if self.kv_cache_tokens is not None and self.kv_cache_tokens < self.block_tokens:
            raise InputError(
                f"engine {self.name}: kv_cache_tokens is {self.kv_cache_tokens}", fix="give at least one block"
            )
        if self.max_model_len_tokens is not None and self.max_model_len_tokens < 2:
            raise InputError(
                f"engine {self.name}: max_model_len_tokens is {self.max_model_len_tokens}", fix="give at least 2"
            )


def chosen_settings(
    settings: EngineSettings,
    *,
    kv_dtype: str = "auto",
    max_batched_tokens: int | None = None,
    max_num_seqs: int | None = None,
) -> EngineSettings:
    """The settings with what a config chooses itself.

    vLLM refuses a budget below the sequences: of the two what is not chosen itself gives way to what is.
    """
    if kv_dtype == "fp8":
        settings = replace(settings, kv_bytes_per_element=1.0)
    if max_batched_tokens is not None:
        sequences = min(settings.max_num_seqs, max_batched_tokens)
        settings = replace(settings, max_batched_tokens=max_batched_tokens, max_num_seqs=sequences)
    if max_num_seqs is not None:
        budget = max(settings.max_batched_tokens, max_num_seqs)
        settings = replace(settings, max_batched_tokens=budget, max_num_seqs=max_num_seqs)
    return settings


# vLLM 0.2.x as in the Mélange paper (arXiv 2404.14527, section 5: vLLM 0.2.7): prompts and decodes in separate
# iterations, 256 sequences, and --max-model-len raised beyond Llama-2's own 4096 for the long inputs of the table. The
# libraries of that time used Hopper less well: a 7B model at 2048 tokens trained at 46.4% of peak on H100 where A100
# gave 64.2% (mosaicml/llm-foundry, scripts/train/benchmarking), so the A100's share is scaled by their ratio.
VLLM_0_2 = EngineSettings(
    max_num_seqs=256,
    max_batched_tokens=4096,
    chunked_prefill=False,
    vector_attention=True,
    max_model_len_tokens=18432,
    gemm_shares={"H100": 0.835 * 46.44 / 64.23},
)


def default_settings(gpu: Gpu, engine: str = "vllm", version: str | None = None) -> EngineSettings:
    """What ``vllm serve`` picks on this GPU when it is told nothing.

    Since its V1 engine, vLLM takes 1024 sequences and 8192 tokens an iteration on GPUs of 70 GiB or more other than the
    A100, else 256 and 2048. Versions 0.2.x are :data:`VLLM_0_2`. Engines that are not known get vLLM's figures.
    """
    if engine == "vllm" and version is not None and version.startswith("0.2."):
        return VLLM_0_2
    settings = EngineSettings(name=engine)
    if gpu.memory_gib >= 70 and not gpu.name.startswith("A100"):
        settings = replace(settings, max_num_seqs=1024, max_batched_tokens=8192)
    return settings
