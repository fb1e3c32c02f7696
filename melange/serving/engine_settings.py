"""EngineSettings: the limits of a serving engine that shape its iterations."""

from __future__ import annotations

import re
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
    settings: EngineSettings, *, kv_dtype: str = "auto", max_batched_tokens: int | None = None
) -> EngineSettings:
    """The settings with what a config chooses itself. vLLM refuses a budget below the sequences: they are cut to it."""
    if kv_dtype == "fp8":
        settings = replace(settings, kv_bytes_per_element=1.0)
    if max_batched_tokens is not None:
        sequences = min(settings.max_num_seqs, max_batched_tokens)
        settings = replace(settings, max_batched_tokens=max_batched_tokens, max_num_seqs=sequences)
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


_NEWEST_VLLM_0 = (0, 7)  # V1 is the default since 0.8
_LONG_CONTEXT_TOKENS = 32768  # beyond which vLLM chunked prompts before V1 already
_USUAL_CONTEXT_TOKENS = 8192
_LARGE_GIB = 70.0


def version_numbers(version: str | None) -> tuple[int, ...]:
    """The first two numbers of a version, empty where it is unknown."""
    return tuple(int(part) for part in re.findall(r"\d+", version or "")[:2])


def is_vllm_0(engine: str, version: str | None) -> bool:
    """Whether a version is of vLLM before its V1 engine; an unknown version counts as the newest."""
    numbers = version_numbers(version)
    return engine == "vllm" and bool(numbers) and numbers <= _NEWEST_VLLM_0


def default_settings(
    gpu: Gpu, engine: str = "vllm", version: str | None = None, context_tokens: float | None = None
) -> EngineSettings:
    """What an engine picks on this GPU when it is told nothing but the longest request, ``context_tokens``.

    Since its V1 engine, vLLM takes 1024 sequences and 8192 tokens an iteration on GPUs of 70 GiB or more other than the
    A100, else 256 and 2048. Before, it took 256 sequences, and whole prompts in iterations of their own, unless
    requests may be of more than 32768 tokens; versions 0.2.x are :data:`VLLM_0_2`. SGLang prefills between
    decode iterations (its mixed chunks are off), in chunks of 8192 tokens on large GPUs, else 2048. TensorRT-LLM takes
    2048 sequences and 8192 tokens. Engines that are not known get vLLM's figures.
    """
    large = gpu.memory_gib >= _LARGE_GIB
    if engine == "vllm" and version is not None and version.startswith("0.2."):
        return VLLM_0_2
    if is_vllm_0(engine, version):
        longest = int(context_tokens or _USUAL_CONTEXT_TOKENS)
        if longest > _LONG_CONTEXT_TOKENS:
            return EngineSettings(max_batched_tokens=2048)
        return EngineSettings(max_batched_tokens=max(longest, 2048), chunked_prefill=False)
    if engine == "sglang":
        return EngineSettings(
            name=engine,
            max_num_seqs=2048,
            max_batched_tokens=8192 if large else 2048,
            memory_fraction=0.88,
            chunked_prefill=False,
        )
    if engine == "tensorrt-llm":
        return EngineSettings(name=engine, max_num_seqs=2048, max_batched_tokens=8192)
    settings = EngineSettings(name=engine)
    if large and not gpu.name.startswith("A100"):
        settings = replace(settings, max_num_seqs=1024, max_batched_tokens=8192)
    return settings
