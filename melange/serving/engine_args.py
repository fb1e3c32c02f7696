"""From the arguments that a vLLM server was started with to the limits that shape its iterations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from melange.catalog.hardware import Gpu
from melange.errors import InputError
from melange.serving.engine_settings import EngineSettings, default_settings

TOKEN_BUDGET, KV_CACHE_DTYPE = "--max-num-batched-tokens", "--kv-cache-dtype"
_THOUSANDS = {"k": 1000, "m": 1000**2, "K": 1024, "M": 1024**2}  # as vLLM reads --max-model-len 8k


def option_value(args: Sequence[str], *names: str) -> str | None:
    """Value of an engine argument, given as ``--name value`` or ``--name=value``; None where absent."""
    for position, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in names:
            if equals:
                return value
            return args[position + 1] if position + 1 < len(args) else None
    return None


def kv_dtype_of(args: Sequence[str]) -> str:
    """What the engine was told to keep the KV cache in: ``fp8``, in whichever format, or ``auto``."""
    return "fp8" if (option_value(args, KV_CACHE_DTYPE) or "").startswith("fp8") else "auto"


def token_budget_of(args: Sequence[str]) -> int | None:
    """The most tokens an iteration may compute, as the engine was told; None where it chooses itself."""
    text = option_value(args, TOKEN_BUDGET)
    return None if text is None else _count(TOKEN_BUDGET, text)


def settings_from_args(
    args: Sequence[str],
    *,
    gpu: Gpu,
    engine: str = "vllm",
    version: str | None = None,
    context_tokens: float | None = None,
) -> EngineSettings:
    """What the engine chooses on this GPU, with what its arguments say instead; a value that is none: InputError.

    ``context_tokens`` is the model's own longest request.
    """
    found: dict[str, object] = {}
    for name, option in (
        ("max_num_seqs", "--max-num-seqs"),
        ("max_batched_tokens", TOKEN_BUDGET),
        ("block_tokens", "--block-size"),
        ("max_model_len_tokens", "--max-model-len"),
    ):
        text = option_value(args, option)
        if text is not None and text not in ("auto", "-1"):
            found[name] = _count(option, text)
    fraction = option_value(args, "--gpu-memory-utilization")
    if fraction is not None:
        found["memory_fraction"] = _number("--gpu-memory-utilization", fraction)
    if kv_dtype_of(args) == "fp8":
        found["kv_bytes_per_element"] = 1.0
    if "--no-enable-chunked-prefill" in args:
        found["chunked_prefill"] = False
    longest = found.get("max_model_len_tokens", context_tokens)
    usual = default_settings(gpu, engine, version, longest)  # type: ignore[arg-type]
    settings = replace(usual, **found)  # type: ignore[arg-type]
    if settings.max_batched_tokens < settings.max_num_seqs and "max_batched_tokens" not in found:
        settings = replace(settings, max_batched_tokens=settings.max_num_seqs)
    return settings


def _count(option: str, text: str) -> int:
    return (
        int(_number(option, text[:-1]) * _THOUSANDS[text[-1]])
        if text[-1:] in _THOUSANDS
        else int(_number(option, text))
    )


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{option} is {text!r}", fix="give a number") from None
